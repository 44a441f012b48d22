"""What isolated workers decode is what this process decodes: bytes, metadata, fallback and errors, file by file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpuflow.config import AudioOptions, ImageOptions, Limits, Options, VideoOptions
from gpuflow.errors import GpuflowError
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Media
from tests.flow.audio_files import chirp, with_ffmpeg, with_soundfile
from tests.flow.clips import make_clip
from tests.unit.image_files import animation, encoded, png, scene, turned, with_alpha
from tests.unit.image_variants import apng, pages, variant
from tests.unit.test_image_decoders import SAME

WORKERS = {"torchvision": {"simplejpeg", "pillow", "pyav"}, "pillow": {"pillow"}}
LEVELS = np.random.default_rng(3).integers(0, 65_536, (19, 23, 4), dtype=np.uint16)
LARGE = encoded(scene(700, 900), "JPEG", quality=95)
IMAGES: dict[str, bytes] = {
    **SAME,
    "jpeg 4:2:2": encoded(scene(33, 57), "JPEG", subsampling=1),
    "jpeg odd progressive": encoded(scene(31, 41), "JPEG", subsampling=2, progressive=True, quality=30),
    "jpeg large": LARGE,
    "png 16-bit gray": png(LEVELS[:, :, :1], 0, depth=16),
    "png 16-bit gray, alpha": png(LEVELS[:, :, :2], 4, depth=16),
    "png 16-bit colour": png(LEVELS[:, :, :3], 2, depth=16),
    "png 16-bit alpha": png(LEVELS, 6, depth=16),
    "gif animated": animation("GIF"),
    **{f"jpeg turned {n}": turned("JPEG", n) for n in range(2, 9)},
    "png turned": turned("PNG", 6),
    "webp turned": turned("WEBP", 8),
    "avif turned": turned("AVIF", 5),
    **{name: variant(name).data for name in ("tiff < 16-bit rgb", "tiff jpeg", "tiff group4", "tiff orientation 6", "jpeg ycck", "bmp 32 alpha")},
    "apng": apng(),
    "tiff of three pages": pages(),
}  # fmt: skip
CLIPS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264 mp4": ("libx264", {}),
    "h264 mov": ("libx264", {"container": "mov"}),
    "h264 matroska": ("libx264", {"container": "matroska"}),
    "h264 mpegts": ("libx264", {"container": "mpegts"}),
    "h264 rotated": ("libx264", {"rotation": 90.0}),
    "h264 bt709": ("libx264", {"colour": (1, 1)}),
    "hevc mp4": ("libx265", {}),
    "vp8 webm": ("libvpx", {"container": "webm"}),
    "vp9 webm": ("libvpx-vp9", {"container": "webm"}),
    "av1 mp4": ("libsvtav1", {}),
    "mpeg4 avi": ("mpeg4", {"container": "avi"}),
    "mjpeg avi": ("mjpeg", {"container": "avi", "pixel_format": "yuvj420p"}),
}
STEREO = chirp(0.7, 44_100, 2)
SOUNDS: dict[str, bytes] = {
    "wav": with_soundfile(STEREO, 44_100, "WAV", "PCM_16"),
    "wav float": with_soundfile(STEREO, 44_100, "WAV", "FLOAT"),
    "flac": with_soundfile(STEREO, 44_100, "FLAC", "PCM_24"),
    "ogg": with_soundfile(STEREO, 44_100, "OGG", "VORBIS"),
    "mp3": with_soundfile(STEREO, 44_100, "MP3", "MPEG_LAYER_III"),
    "m4a": with_ffmpeg(STEREO, 44_100, "ipod", "aac"),
    "aac": with_ffmpeg(STEREO, 44_100, "adts", "aac"),
    "mp4 with pictures": with_ffmpeg(STEREO, 44_100, "mp4", "aac", video=True),
    "matroska": with_ffmpeg(STEREO, 44_100, "matroska", "aac"),
    "aiff": with_soundfile(STEREO, 44_100, "AIFF", "PCM_24"),
    "ac3": with_ffmpeg(STEREO, 44_100, "ac3", "ac3"),
    "wma": with_ffmpeg(STEREO, 44_100, "asf", "wmav2", bit_rate=96_000),
    "amr": with_ffmpeg(STEREO[:1, :8_000], 8_000, "amr", "libopencore_amrnb", bit_rate=12_200),
}


@pytest.fixture(scope="module")
def flows() -> Iterator[tuple[SyncFlow, SyncFlow]]:
    """A flow that decodes here, and one whose workers do."""
    limits = Limits(image_seconds=60.0, audio_seconds=60.0)
    with (
        SyncFlow(device="cpu", slab_bytes="256MiB", limits=limits) as here,
        SyncFlow(device="cpu", slab_bytes="256MiB", limits=limits, workers=2, isolation="process") as there,
    ):
        yield here, there
        for flow in (here, there):
            assert flow.slab.statistics().live_leases == 0


def _same(flows: tuple[SyncFlow, SyncFlow], data: bytes, options: Options, modality: Any = None) -> None:
    results = [_result(flow, data, options, modality) for flow in flows]
    assert results[0] == results[1]


def _result(flow: SyncFlow, data: bytes, options: Options, modality: Any) -> tuple[Any, ...]:
    try:
        media = flow.load(data, options=options, modality=modality)
    except GpuflowError as error:
        return type(error), error.code
    with media:
        tensors = [bytes(media.lease.memory()[spec.offset : spec.offset + spec.nbytes]) for spec in media.specs]
        return type(media), tensors, media.specs, media.metadata, media.fallback, media.content_hash, _backend(media)


def _backend(media: Media) -> str:
    """Who decoded, where a worker's decoder counts as the one that it stands for; and the engine."""
    decoder, _, engine = media.backend.partition("+")
    return f"{'cpu' if decoder in {'torchvision', 'simplejpeg', 'pillow', 'pyav'} else decoder}+{engine}"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_the_same(name: str, flows: tuple[SyncFlow, SyncFlow]) -> None:
    _same(flows, IMAGES[name], ImageOptions())


@pytest.mark.parametrize(
    "options",
    [
        ImageOptions(preset="clip-224"),
        ImageOptions(size=(40, 30), layout="CHW", dtype="float32"),
        ImageOptions(alpha="drop"),
        ImageOptions(background=(1, 2, 3), dtype="bfloat16"),
        ImageOptions(region=(3, 4, 33, 40)),
        ImageOptions(region=(3, 4, 33, 40), preset="siglip-224"),
        ImageOptions(size=16, approximate=True),
    ],
    ids=["preset", "size", "alpha dropped", "background", "region", "region and preset", "approximate"],
)
@pytest.mark.parametrize("name", ["jpeg large", "png alpha", "webp alpha", "png palette, transparent"])
def test_a_transformed_image_is_the_same(name: str, options: ImageOptions, flows: tuple[SyncFlow, SyncFlow]) -> None:
    _same(flows, IMAGES[name], options)


@pytest.mark.parametrize("frame", [1, 2, 7])
def test_a_later_frame_of_an_animation_is_the_same(frame: int, flows: tuple[SyncFlow, SyncFlow]) -> None:
    for name in ("gif animated", "apng", "tiff of three pages", "webp animated"):
        _same(flows, IMAGES[name], ImageOptions(frame=frame))


def test_a_jpeg_decoded_smaller_is_the_same(flows: tuple[SyncFlow, SyncFlow]) -> None:
    data, options = encoded(scene(640, 960), "JPEG"), ImageOptions(size=(48, 64), approximate=True)
    _same(flows, data, options)
    for flow in flows:
        with flow.load(data, options=options) as image:
            assert image.backend == "simplejpeg-dct1/4+exact"


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_the_same(name: str, flows: tuple[SyncFlow, SyncFlow]) -> None:
    codec, arguments = CLIPS[name]
    clip = make_clip(codec, 40, gop=10, **arguments)
    _same(flows, clip, VideoOptions(num_frames=8))
    _same(flows, clip, VideoOptions(indices=(39, 0, 7, 7, 22)))


@pytest.mark.parametrize(
    "options",
    [
        VideoOptions(num_frames=12, size=48),
        VideoOptions(num_frames=5, layout="TCHW", dtype="float16"),
        VideoOptions(indices=(3, 3, 1), size=(30, 50), dtype="bfloat16", resample="lanczos"),
        VideoOptions(timestamps_seconds=(0.5, 0.1)),
        VideoOptions(fps=5.0, start_seconds=0.2),
        VideoOptions(indices=(999,)),
    ],
    ids=["size", "planar float16", "repeats, bfloat16, lanczos", "times", "rate", "a frame that is not there"],
)
def test_a_clip_in_any_form_is_the_same(options: VideoOptions, flows: tuple[SyncFlow, SyncFlow]) -> None:
    _same(flows, make_clip(num_frames=40, gop=10), options)


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_is_the_same(name: str, flows: tuple[SyncFlow, SyncFlow]) -> None:
    for options in (
        AudioOptions(),
        AudioOptions(sample_rate=16_000),
        AudioOptions(mono=False, sample_rate=48_000, start_seconds=0.1, duration_seconds=0.3),
        AudioOptions(features="whisper-80"),
    ):
        _same(flows, SOUNDS[name], options, "audio")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8, 0.97])
def test_damage_has_the_same_end(kept: float, flows: tuple[SyncFlow, SyncFlow]) -> None:
    files = [
        (IMAGES[name], ImageOptions())
        for name in ("jpeg large", "png", "webp", "gif", "bmp", "avif", "png 16-bit colour")
    ]
    clips = [
        (make_clip("mpeg4", 20, container="avi"), VideoOptions(num_frames=3)),
        (make_clip(container="mpegts"), VideoOptions()),
    ]
    sounds = [(SOUNDS[name], AudioOptions()) for name in ("mp3", "flac")]
    cases: list[tuple[bytes, Options]] = [*files, *clips, *sounds]
    for data, options in cases:
        _same(flows, data[: int(kept * len(data))], options)


def test_an_image_with_alpha_is_composited_from_the_same_levels(flows: tuple[SyncFlow, SyncFlow]) -> None:
    for file_format in ("PNG", "WEBP", "AVIF"):
        _same(flows, encoded(with_alpha(91, 77), file_format), ImageOptions(background=(9, 99, 199)))
