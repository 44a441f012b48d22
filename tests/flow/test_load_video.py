"""Clips from bytes to placed frames, against PyAV decoding everything."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from gpuflow import device as devices
from gpuflow.codecs.base import MediaType
from gpuflow.codecs.video.source import PacketSource
from gpuflow.codecs.videos import capabilities
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import BackendUnavailable, LimitExceeded, UnsupportedFormat
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.video import load_video
from gpuflow.media import Blob
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from tests.flow.clips import FORMATS, barcode, decode_all, make_clip, picture
from tests.parity.tolerances import TOLERANCES

OPEN_GOP = "keyint=20:min-keyint=20:scenecut=0"
VFR = [index * 30 + (index % 7) * 4 for index in range(60)]
CLIPS: dict[str, dict[str, Any]] = {
    "h264 gop 30": {},
    "h264 gop 250": {"gop": 250, "num_frames": 120},
    "h264 open gop": {"num_frames": 80, "options": {"x264-params": f"open-gop=1:{OPEN_GOP}"}},
    "h264 open gop matroska": {
        "num_frames": 80,
        "container": "matroska",
        "options": {"x264-params": f"open-gop=1:{OPEN_GOP}"},
    },
    "h264 10 bit": {"pixel_format": "yuv420p10le"},
    "h264 4:4:4 odd size": {"size": (161, 97), "pixel_format": "yuv444p"},
    "hevc": {"codec": "libx265"},
    "hevc open gop": {
        "codec": "libx265",
        "num_frames": 80,
        "bframes": 4,
        "options": {"x265-params": f"log-level=none:open-gop=1:{OPEN_GOP}"},
    },
    "hevc temporal layers": {
        "codec": "libx265",
        "bframes": 4,
        "options": {"x265-params": "log-level=none:temporal-layers=3:b-pyramid=1"},
    },
    "vp8": {"codec": "libvpx", "container": "webm"},
    "vp9 without a frame count": {"codec": "libvpx-vp9", "container": "webm"},
    "av1": {"codec": "libsvtav1"},
    "mpeg4": {"codec": "mpeg4"},
    "mpegts": {"container": "mpegts"},
    "mpegts intra refresh": {
        "container": "mpegts",
        "num_frames": 100,
        "bframes": 0,
        "options": {"x264-params": "intra-refresh=1:keyint=20"},
    },
    "avi with b frames": {"container": "avi"},
    "mjpeg avi": {"codec": "mjpeg", "container": "avi", "pixel_format": "yuvj420p"},
    "variable rate": {"times": VFR, "time_base": Fraction(1, 900)},
    "variable rate matroska": {"times": VFR, "time_base": Fraction(1, 900), "container": "matroska"},
    "fragmented": {"muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "rotated 90": {"rotation": 90},
    "rotated 180": {"rotation": 180},
    "rotated 270": {"rotation": 270},
}


def kind_of(container: str) -> MediaType:
    return MediaType(container, "video", FORMATS[container])


def open_source(data: bytes, container: str = "mp4") -> PacketSource:
    return PacketSource.open(data, kind_of(container), limits=Limits(), deadline=Deadline(30.0))


def blob(data: bytes) -> Blob:
    return Blob(data, "hash")


def sample(count: int, total: int) -> tuple[int, ...]:
    return tuple(int(index) for index in np.random.default_rng(count + total).integers(0, total, count))


def remux(
    data: bytes, *, container: str = "mp4", into: str = "mp4", drop: int = 0, shift: int = 0, hide: tuple[int, ...] = ()
) -> bytes:
    """The same packets without the first ``drop``, ``shift`` frames earlier: times below 0 become an edit list.
    VP8 packets in ``hide`` lose their show bit."""
    buffer = io.BytesIO()
    options = {"avoid_negative_ts": "disabled"} if shift else {}
    with (
        av.open(io.BytesIO(data), format=FORMATS[container]) as source,
        av.open(buffer, "w", format=into, options=options) as output,
    ):
        stream = source.streams.video[0]
        copied = output.add_stream_from_template(stream)
        for number, packet in enumerate([packet for packet in source.demux(stream) if packet.size][drop:]):
            assert packet.pts is not None
            assert packet.dts is not None
            assert packet.duration
            packet.pts, packet.dts = packet.pts - shift * packet.duration, packet.dts - shift * packet.duration
            packet.stream = copied
            if number in hide:
                payload = bytes(packet)
                packet.update(bytes([payload[0] & ~0x10]) + payload[1:])
            output.mux(packet)
    return buffer.getvalue()


def check_against_decode_all(data: bytes, container: str, context: LoadContext) -> None:
    expected = decode_all(data, container)
    for count in (1, 8, 24):
        indices = sample(count, len(expected))
        with load_video(blob(data), kind_of(container), VideoOptions(indices=indices), context) as frames:
            assert frames.metadata.frame_indices == indices
            assert frames.metadata.num_frames == len(expected)
            assert frames.metadata.corrupt_indices == ()
            for place, index in enumerate(indices):
                np.testing.assert_array_equal(frames.numpy()[place], expected[index], err_msg=f"frame {index}")


@pytest.mark.parametrize("name", CLIPS)
def test_chosen_frames_are_bit_equal_to_decoding_all(name: str, context: LoadContext) -> None:
    container = CLIPS[name].get("container", "mp4")
    check_against_decode_all(make_clip(**CLIPS[name]), container, context)


@pytest.mark.parametrize("name", ["h264 gop 30", "hevc", "vp9 without a frame count", "av1", "variable rate"])
def test_the_barcode_says_which_frame_it_is(name: str, context: LoadContext) -> None:
    clip = make_clip(**CLIPS[name] | {"options": {"crf": "20"} if name == "av1" else {}})
    kind = kind_of(CLIPS[name].get("container", "mp4"))
    with load_video(blob(clip), kind, VideoOptions(num_frames=16), context) as frames:
        assert [barcode(frame) for frame in frames.numpy()] == list(frames.metadata.frame_indices)


def test_what_an_edit_list_cuts_away_is_not_counted(context: LoadContext) -> None:
    for codec in ("libx264", "libvpx-vp9"):
        clip = remux(make_clip(codec), shift=15)
        assert b"elst" in clip
        check_against_decode_all(clip, "mp4", context)
        with load_video(blob(clip), kind_of("mp4"), VideoOptions(indices=(0, 44)), context) as frames:
            assert frames.metadata.num_frames == 45
            assert frames.metadata.timestamps_seconds == (0.0, 44 / 30)
            assert [barcode(frame) for frame in frames.numpy()] == [15, 59]


def test_a_vp8_picture_that_is_not_shown_is_not_counted(context: LoadContext) -> None:
    clip = remux(make_clip("libvpx", container="webm"), container="webm", into="webm", hide=(5, 40))
    check_against_decode_all(clip, "webm", context)
    with load_video(blob(clip), kind_of("webm"), VideoOptions(indices=(4, 5, 57)), context) as frames:
        assert frames.metadata.num_frames == 58
        assert [barcode(frame) for frame in frames.numpy()] == [4, 6, 59]


def test_a_recording_that_begins_between_keyframes_is_counted_by_decoding(context: LoadContext) -> None:
    clip = remux(make_clip(container="mpegts"), container="mpegts", into="mpegts", drop=7)
    assert open_source(clip, "mpegts").sequential
    check_against_decode_all(clip, "mpegts", context)


def test_only_the_groups_that_hold_wanted_frames_are_decoded() -> None:
    source = open_source(make_clip(num_frames=300, gop=30))
    assert not source.sequential
    plan = source.plan([0, 150], limits=Limits())
    assert plan.num_packets == 2
    assert [segment.first for segment in plan.segments] == [0, 150]


def test_times_are_those_of_the_packets_and_the_duration_holds_the_last_frame(context: LoadContext) -> None:
    clip = make_clip(**CLIPS["variable rate"])
    with load_video(blob(clip), kind_of("mp4"), VideoOptions(indices=tuple(range(60))), context) as frames:
        facts = frames.metadata
        assert facts.timestamps_seconds == tuple(time / 900 for time in VFR)
        assert facts.source_fps == pytest.approx(59 / (VFR[-1] / 900))
        assert facts.duration_seconds >= VFR[-1] / 900
    wanted = VideoOptions(timestamps_seconds=(VFR[7] / 900, VFR[7] / 900 - 0.001))
    with load_video(blob(clip), kind_of("mp4"), wanted, context) as frames:
        assert frames.metadata.frame_indices == (7, 6)


def test_metadata_say_what_the_clip_is(context: LoadContext) -> None:
    clip = make_clip(rotation=90, colour=(1, 2), pixel_format="yuv420p10le")
    with load_video(blob(clip), kind_of("mp4"), VideoOptions(num_frames=2), context) as frames:
        facts = frames.metadata
        assert frames.shape == (2, 160, 96, 3)
        assert (facts.codec, facts.width, facts.height, facts.rotation) == ("h264", 96, 160, 90)
        assert (facts.color_matrix, facts.color_range, facts.bit_depth) == ("bt709", "full", 10)
        assert (facts.source_fps, facts.duration_seconds, facts.num_frames) == (30.0, 2.0, 60)
        assert (frames.backend, frames.fallback, frames.content_hash) == ("pyav", None, "hash")
        assert frames.lease.sealed
    assert [stage.name for stage in context.stages] == ["probe", "decode"]


MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("colour_range", [1, 2], ids=["limited", "full"])
def test_colours_follow_the_streams_matrix_and_range(matrix: int, colour_range: int, context: LoadContext) -> None:
    def flat(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return np.full((height, width, 3), ((200, 30, 60), (30, 180, 90), (40, 60, 210))[number], np.uint8)

    clip = make_clip(num_frames=3, draw=flat, colour=(matrix, colour_range), options={"qp": "0", "preset": "ultrafast"})
    with load_video(blob(clip), kind_of("mp4"), VideoOptions(indices=(0, 1, 2)), context) as frames:
        shown = frames.numpy()
        with av.open(io.BytesIO(clip)) as source:
            for place, frame in enumerate(source.decode(video=0)):
                expected = _float_rgb(frame, MATRICES[matrix], full=colour_range == 2)
                assert np.abs(shown[place] - expected).max() <= TOLERANCES["color/swscale-8"].max_abs


def _float_rgb(frame: av.VideoFrame, weights: tuple[float, float], *, full: bool) -> NDArray[np.float64]:
    """RGB of a flat 8-bit picture, by the definition."""
    y, u, v = (float(np.frombuffer(bytes(plane), np.uint8)[0]) for plane in frame.planes)
    luma = y / 255 if full else (y - 16) / 219
    blueness, redness = ((part - 128) / (255 if full else 224) for part in (u, v))
    red, blue = luma + 2 * (1 - weights[0]) * redness, luma + 2 * (1 - weights[1]) * blueness
    green = (luma - weights[0] * red - weights[1] * blue) / (1 - sum(weights))
    return (255 * np.array([red, green, blue])).clip(0, 255)


def test_size_layout_and_type_are_those_asked_for(context: LoadContext) -> None:
    clip = make_clip()
    expected = decode_all(clip)
    options = VideoOptions(indices=(5, 40, 5), size=(48, 64), layout="TCHW", dtype="float32", resample="bilinear")
    with load_video(blob(clip), kind_of("mp4"), options, context) as frames:
        assert (frames.shape, frames.dtype) == ((3, 3, 48, 64), "float32")
        for place, index in enumerate((5, 40, 5)):
            planar = torch.from_numpy(expected[index].copy()).permute(2, 0, 1).contiguous()
            resized = functional.resize(planar, [48, 64], InterpolationMode.BILINEAR, antialias=True)
            np.testing.assert_array_equal(frames.numpy()[place], resized.numpy() / np.float32(255))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_round_to_nearest(dtype: str, context: LoadContext) -> None:
    clip = make_clip(num_frames=3)
    expected = torch.from_numpy(np.stack(decode_all(clip))).to(torch.float32) / 255
    options = VideoOptions(indices=(0, 1, 2), dtype=dtype)  # type: ignore[arg-type]
    with load_video(blob(clip), kind_of("mp4"), options, context) as frames:
        assert torch.equal(frames.tensor, expected.to(getattr(torch, dtype)))


def test_lanczos_is_pillows(context: LoadContext) -> None:
    from PIL import Image

    clip = make_clip(num_frames=2)
    expected = Image.fromarray(decode_all(clip)[1]).resize((40, 40), Image.Resampling.LANCZOS)
    options = VideoOptions(indices=(1,), size=40, resample="lanczos")
    with load_video(blob(clip), kind_of("mp4"), options, context) as frames:
        np.testing.assert_array_equal(frames.numpy()[0], np.asarray(expected))


def test_a_result_larger_than_allowed_is_refused_before_anything_is_decoded(context: LoadContext) -> None:
    context.limits = Limits(max_output_bytes=100_000)
    with pytest.raises(LimitExceeded, match="max_output_bytes"):
        load_video(blob(make_clip()), kind_of("mp4"), VideoOptions(num_frames=8), context)
    assert [stage.name for stage in context.stages] == ["probe"]


def test_a_clip_whose_pictures_change_size_is_refused(context: LoadContext) -> None:
    clip = make_clip(container="mpegts") + make_clip(container="mpegts", size=(128, 64))
    with pytest.raises(UnsupportedFormat, match="from 160x96 to 128x64"):
        load_video(blob(clip), kind_of("mpegts"), VideoOptions(num_frames=8), context)


def test_a_gpu_that_was_asked_for_by_name_is_never_replaced(context: LoadContext) -> None:
    if devices.driver().count:
        pytest.skip("there is a GPU")
    context.device = devices.Device("cuda:0", "for the test")
    context.device_asked = "cuda"
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver"):
        load_video(blob(make_clip(num_frames=2)), kind_of("mp4"), VideoOptions(), context)


def test_capabilities_name_every_backend_and_why_one_is_missing() -> None:
    found = capabilities()
    assert found["pyav"]
    assert found["pynvvideocodec"].available or found["pynvvideocodec"].reason


@pytest.mark.parametrize(
    ("name", "raw"), [("h264 gop 30", "h264"), ("h264 open gop matroska", "h264"), ("hevc", "hevc"), ("mpegts", "h264")]
)
def test_packets_for_nvdec_decode_without_their_container(name: str, raw: str) -> None:
    container = CLIPS[name].get("container", "mp4")
    source = open_source(make_clip(**CLIPS[name]), container)
    for segment in source.plan([35, 58], limits=Limits()).segments:
        context = av.CodecContext.create(raw, "r")
        assert isinstance(context, av.VideoCodecContext)
        payloads = [payload for _, payload in source.demuxed.payloads(segment.first, segment.last)]
        pictures = [frame for payload in payloads for frame in context.decode(av.Packet(payload))]
        pictures += context.decode(None)
        assert set(segment.targets.values()) <= {barcode(frame.to_ndarray(format="rgb24")) for frame in pictures}


@pytest.mark.media
@pytest.mark.parametrize(
    "name", ["nasa_13013.mp4", "h264_10bits.mp4", "h265_10bits.mp4", "bt709_full_range.mp4", "h265_video.mp4"]
)
def test_real_files_are_bit_equal_to_decoding_all(name: str, real_media: Path, context: LoadContext) -> None:
    data = (real_media / name).read_bytes()
    expected = decode_all(data)
    indices = sample(6, len(expected))
    with load_video(blob(data), kind_of("mp4"), VideoOptions(indices=indices), context) as frames:
        for place, index in enumerate(indices):
            np.testing.assert_array_equal(frames.numpy()[place], expected[index])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["h264 gop 30", "hevc", "hevc open gop", "vp9 without a frame count", "rotated 90"])
def test_nvdec_equals_libavcodec(name: str, context: LoadContext) -> None:
    larger = {"size": (320, 240), "draw": picture}
    data, container = make_clip(**CLIPS[name] | larger), CLIPS[name].get("container", "mp4")
    options = VideoOptions(indices=sample(12, 60))
    with Slab("64MiB", device="cuda") as slab:
        on_gpu = LoadContext(
            device=devices.choose("cuda"),
            slab=slab,
            host_slab=context.slab,
            limits=Limits(),
            deadline=Deadline(60.0),
            counters=Counters(),
            device_asked="cuda",
        )
        with (
            load_video(blob(data), kind_of(container), options, on_gpu) as there,
            load_video(blob(data), kind_of(container), options, context) as here,
        ):
            assert there.backend == "pynvvideocodec"
            difference = np.abs(there.numpy().astype(int) - here.numpy())
            assert difference.max() <= TOLERANCES["video/nvdec"].max_abs
            assert there.metadata == here.metadata
