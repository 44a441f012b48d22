"""What the scan lets through: valid files of every format, and what it says of them against other readers."""

from __future__ import annotations

import io
from pathlib import Path

import av
import pytest
import soundfile
from PIL import Image as Picture
from PIL import ImageOps

from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.probe import ContainerClaims, TrackClaims, check, sniff
from gpuflow.config import Limits
from gpuflow.errors import GpuflowError, LimitExceeded
from tests.unit.probe_files import CLIPS, FILES, IMAGES, SOUNDS, made, mp3

LIMITS = Limits()
OF_SOUNDFILE = {"wav", "flac", "ogg", "mp3", "aiff", "au", "caf"}
REAL = ("*.mkv", "*.mp4", "*.png", "*.jpg", "*.mp3", "*.gif", "*.flac")


def claims_of(data: bytes) -> ContainerClaims:
    """The scan's claims of what is no image."""
    found = check(data, sniff(data), LIMITS)
    assert isinstance(found, ContainerClaims)
    return found


def test_no_valid_file_is_refused() -> None:
    refused = {}
    for name in FILES:
        data = made(name)
        try:
            check(data, sniff(data), LIMITS)
        except GpuflowError as error:
            refused[name] = str(error)
    assert not refused
    assert len(FILES) >= 300


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_what_pillow_says(name: str) -> None:
    info = check(made(name), sniff(made(name)), LIMITS)
    assert isinstance(info, ImageInfo)
    with Picture.open(io.BytesIO(made(name))) as image:
        assert (info.width, info.height) == ImageOps.exif_transpose(image).size
        assert info.num_frames == getattr(image, "n_frames", 1)
        assert info.format == (image.format or "").lower()


@pytest.mark.parametrize("name", [*CLIPS, *SOUNDS])
def test_a_container_is_what_ffmpeg_says(name: str) -> None:
    data = made(name)
    claims, kind = claims_of(data), sniff(data)
    with av.open(io.BytesIO(data), format=kind.format) as container:
        assert len(claims.tracks) == len(container.streams)
        if container.streams.video:
            video, claimed = container.streams.video[0].codec_context, claims.first("video")
            assert claimed is not None
            assert (claimed.width, claimed.height) in {(0, 0), (video.width, video.height)}
            assert (claimed.width > 0) == (kind.format != "mpegts")
        if container.streams.audio:
            audio, claimed = container.streams.audio[0].codec_context, claims.first("audio")
            assert claimed is not None or kind.format == "mpegts"  # whose table has no number for Opus
            claimed = claimed or TrackClaims("audio")
            assert claimed.sample_rate in {0, audio.sample_rate}
            assert claimed.channels in {0, audio.layout.nb_channels}
        if claims.duration_seconds is not None and container.duration is not None:
            assert claims.duration_seconds == pytest.approx(container.duration / 1e6, abs=0.25)


@pytest.mark.parametrize("name", [name for name in SOUNDS if name.split()[0] in OF_SOUNDFILE | {"wavex", "rf64"}])
def test_a_sound_is_what_libsndfile_says(name: str) -> None:
    data = made(name)
    if sniff(data).name not in OF_SOUNDFILE:
        pytest.skip("libsndfile does not read this")
    try:
        read = soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError:
        pytest.skip("libsndfile does not read this")
    track = claims_of(data).tracks[0]
    assert track.channels == read.channels
    assert track.sample_rate == (48_000 if read.subtype == "OPUS" else read.samplerate)  # what Opus is decoded at
    if track.num_samples is not None and sniff(data).name in {"wav", "flac", "aiff", "au", "caf"}:
        assert track.num_samples == read.frames
    elif (
        track.num_samples is not None and read.subtype != "OPUS"
    ):  # with the encoder's delay, which libsndfile leaves out or not
        assert track.num_samples == pytest.approx(read.frames, abs=4_000)


def test_the_length_that_only_a_header_knows_is_found() -> None:
    for name in (
        "mp3 VARIABLE 0.2 2 44100",
        "ogg VORBIS 48000 x 2",
        "flac PCM_16 48000 x 1",
        "wav PCM_16 1",
        "mp4 h264",
    ):
        assert claims_of(made(name)).duration_seconds is not None, name
    for name in ("mp4 h264 fragmented", "webm live", "adts aac piped", "ts h264"):
        assert claims_of(made(name)).duration_seconds is None, name


def test_sound_is_held_to_its_own_limits_only_where_it_is_wanted() -> None:
    data, limits = made("mp4 two sounds"), Limits(max_audio_channels=1)
    check(data, sniff(data), limits)
    with pytest.raises(LimitExceeded, match="audio channels"):
        check(data, sniff(data), limits, wanted="audio")


def test_a_section_of_a_long_file_is_not_refused_for_the_rest() -> None:
    data, limits = mp3("VARIABLE", 0.5), Limits(max_audio_seconds=0.5)
    check(data, sniff(data), limits, until_seconds=0.4)
    with pytest.raises(LimitExceeded, match="max_audio_seconds"):
        check(data, sniff(data), limits)


def test_pictures_are_held_to_their_limits_whatever_is_wanted() -> None:
    data, limits = made("mp4 two sounds"), Limits(max_video_side=100)
    for wanted in ("audio", "video"):
        with pytest.raises(LimitExceeded, match="160x96"):
            check(data, sniff(data), limits, wanted=wanted)


@pytest.mark.media
def test_real_files_are_let_through(real_media: Path) -> None:
    files = [path for pattern in REAL for path in sorted(real_media.glob(pattern))]
    for path in files:
        data = path.read_bytes()
        check(data, sniff(data), Limits(max_audio_seconds=3_600))


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("mp4 two sounds", Limits(max_tracks=2)),
        ("matroska two sounds", Limits(max_tracks=2)),
        ("avi two sounds", Limits(max_tracks=2)),
        ("mpegts two sounds", Limits(max_tracks=2)),
        ("mp4 h264 of 1000 frames", Limits(max_samples=999)),
        ("mp4 h264", Limits(max_boxes=20)),
        ("matroska h264", Limits(max_boxes=20)),
        ("avi mpeg4", Limits(max_boxes=5)),
        ("wav pcm_s24le rf64 title", Limits(max_boxes=1)),
        ("mp4 h264", Limits(max_box_depth=5)),
        ("matroska h264", Limits(max_box_depth=2)),
        ("jpeg 95 2 True", Limits(max_jpeg_scans=5)),
        ("jpeg flat of 24 megapixels", Limits(max_jpeg_pixels_per_byte=20)),
    ],
)
def test_an_operators_limit_on_structure_is_the_one_that_holds(name: str, limits: Limits) -> None:
    data = made(name)
    check(data, sniff(data), LIMITS)
    with pytest.raises(LimitExceeded):
        check(data, sniff(data), limits)
