"""DALI's video decoder: right where it is used, and what it does to the files that it is not given."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.codecs._backends import dali_video
from gpuflow.codecs._backends.dali_video import DaliVideo, Form
from gpuflow.codecs.base import Capability, VideoInfo
from gpuflow.codecs.video.wholefile import resized
from gpuflow.config import VideoOptions
from gpuflow.errors import BackendUnavailable, CorruptMedia
from gpuflow.flow import video_dali
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.sync import SyncFlow
from gpuflow.flow.video import load_video
from gpuflow.media import block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.ops.resize import resize_rgb
from tests.flow.clips import barcode, decode_all, make_clip
from tests.flow.edge_clips import EDGES
from tests.flow.test_load_video import CLIPS, VFR, blob, kind_of, open_source, remux
from tests.parity.tolerances import TOLERANCES

pytestmark = pytest.mark.skipif(not dali_video.capability(), reason=dali_video.capability().reason)

WANTED = (3, 40, 3, 0, 59, 31, 30)
VP9 = make_clip("libvpx-vp9", container="webm")
TAKEN: dict[str, dict[str, Any]] = {
    "vp9 webm": {"codec": "libvpx-vp9", "container": "webm"},
    "vp9 mp4": {"codec": "libvpx-vp9"},
    "vp9 long gop": {"codec": "libvpx-vp9", "container": "webm", "gop": 250},
    "vp9 odd size": {"codec": "libvpx-vp9", "container": "webm", "size": (161, 97)},
    "vp9 variable rate": {"codec": "libvpx-vp9", "times": VFR, "time_base": CLIPS["variable rate"]["time_base"]},
    "vp8": {"codec": "libvpx", "container": "webm"},
    "mjpeg, full range": {"codec": "mjpeg", "container": "mov", "pixel_format": "yuvj420p"},
}


def load(data: bytes, container: str, context: LoadContext, **options: Any) -> Any:
    return load_video(blob(data), kind_of(container), VideoOptions(engine="dali", **options), context)


def raw(data: bytes, indices: Sequence[int], info: VideoInfo, **arguments: Any) -> NDArray[np.uint8]:
    """What DALI makes of a file, whether it would be given that file or not."""
    source, engine = open_source(VP9, "webm"), DaliVideo(None)
    specs = lay_out({"frames": ("uint8", (len(indices), info.height, info.width, 3))})
    assert source.info.codec == "vp9"
    with Slab("16MiB") as slab, slab.allocate(block_bytes(specs)) as lease:
        engine.place(data, info, indices, Form(None, "bicubic", False, "uint8"), lease, specs[0], Deadline(60.0))
        return np.array(lease.array(specs[0]))


def off(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = np.abs(found.astype(np.float64) - expected)
    return distance


@pytest.mark.parametrize("name", TAKEN)
def test_dali_gives_the_frames_that_were_asked_for(name: str, context: LoadContext) -> None:
    container = TAKEN[name].get("container", "mp4")
    data = make_clip(**TAKEN[name])
    expected = decode_all(data, container)
    with load(data, container, context, indices=WANTED) as frames:
        assert (frames.backend, frames.fallback) == ("dali", None)
        assert [barcode(frame) for frame in frames.numpy()] == list(WANTED)
        error = off(frames.numpy(), np.stack([expected[index] for index in WANTED]))
        assert error.max() <= TOLERANCES["video/dali"].max_abs
        assert error.mean() <= (TOLERANCES["video/dali"].max_mean or 0)
        with load_video(blob(data), kind_of(container), VideoOptions(indices=WANTED), context) as exact:
            assert exact.backend == "pyav"
            assert exact.metadata == frames.metadata


@pytest.mark.parametrize("colour", [None, (6, 1), (6, 2)], ids=["untagged", "601", "601 full"])
def test_dali_gives_the_colours_of_bt601(colour: tuple[int, int] | None, context: LoadContext) -> None:
    data = flat(colour)
    with load(data, "webm", context, indices=tuple(range(8))) as frames:
        assert frames.backend == "dali"
        assert off(frames.numpy(), np.stack(decode_all(data, "webm"))).max() <= TOLERANCES["video/dali-flat"].max_abs


def flat(colour: tuple[int, int] | None, codec: str = "libvpx-vp9") -> bytes:
    def draw(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return np.full((height, width, 3), (20 + 25 * number, 200 - 20 * number, 90 + 10 * number), np.uint8)

    return make_clip(codec, 8, container="webm", colour=colour, draw=draw)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"size": (48, 80)}, (3, 48, 80, 3)),
        ({"size": (48, 80), "resample": "bilinear"}, (3, 48, 80, 3)),
        ({"size": (48, 80), "resample": "lanczos"}, (3, 48, 80, 3)),
        ({"size": (31, 77), "resample": "nearest"}, (3, 31, 77, 3)),
        ({"size": (200, 300)}, (3, 200, 300, 3)),
        ({"layout": "TCHW"}, (3, 3, 96, 160)),
        ({"size": 64, "layout": "TCHW", "dtype": "float32"}, (3, 3, 64, 64)),
        ({"size": 64, "dtype": "float16"}, (3, 64, 64, 3)),
        ({"layout": "TCHW", "dtype": "bfloat16"}, (3, 3, 96, 160)),
    ],
)
def test_resize_layout_and_type_are_those_of_the_exact_engine(
    options: dict[str, Any], shape: tuple[int, ...], context: LoadContext
) -> None:
    indices = (3, 40, 3)
    decoded = raw(VP9, indices, open_source(VP9, "webm").info)
    with load(VP9, "webm", context, indices=indices, **options) as frames:
        assert (frames.backend, frames.shape) == ("dali", shape)
        planar, floats = options.get("layout") == "TCHW", options.get("dtype", "uint8") != "uint8"
        found = frames.tensor.float().numpy() * (255 if floats else 1)
        size = (shape[2], shape[3]) if planar else (shape[1], shape[2])
        expected = np.stack([resize_rgb(frame, size, options.get("resample", "bicubic")) for frame in decoded])
        error = off(found, expected.transpose(0, 3, 1, 2) if planar else expected)
        assert error.max() <= TOLERANCES["video/dali-resize"].max_abs
        assert error.mean() <= (TOLERANCES["video/dali-resize"].max_mean or 0)


def test_a_pipeline_normalises_and_is_built_once_for_a_form_and_a_class_of_sizes() -> None:
    info, indices = open_source(VP9, "webm").info, (7, 0)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    engine = DaliVideo(None)
    form = Form(None, "bicubic", True, "float32", mean, std)
    specs = lay_out({"frames": ("float32", (2, 3, 96, 160))})
    with Slab("16MiB") as slab:
        for _ in range(3):
            with slab.allocate(block_bytes(specs)) as lease:
                engine.place(VP9, info, indices, form, lease, specs[0], Deadline(60.0))
                found = np.array(lease.array(specs[0]))
        assert engine.num_built == 1
        expected = (
            raw(VP9, indices, info).transpose(0, 3, 1, 2) / 255.0 - np.reshape(mean, (1, 3, 1, 1))
        ) / np.reshape(std, (1, 3, 1, 1))
        assert off(found, expected).max() < 1e-5


# What it is not given


@dataclass(frozen=True)
class Refused:
    """A file that DALI is not given, and the reason."""

    make: Callable[[], bytes]
    container: str
    reason: str


def _vp9(**arguments: Any) -> Callable[[], bytes]:
    return lambda: make_clip("libvpx-vp9", **arguments)


def joined(*sizes: tuple[int, int], codec: str = "libvpx-vp9") -> bytes:
    """Clips of several sizes as one stream."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as output:
        target: Any = None
        number = 0
        for size in sizes:
            with av.open(io.BytesIO(make_clip(codec, 20, container="webm", size=size))) as source:
                stream = source.streams.video[0]
                target = target or output.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.size:
                        packet.pts = packet.dts = 33 * number
                        packet.stream, number = target, number + 1
                        output.mux(packet)
    return buffer.getvalue()


REFUSED = {
    "rotated": Refused(_vp9(rotation=90), "mp4", "ignores the rotation by 90"),
    "BT.709": Refused(_vp9(container="webm", colour=(1, 1)), "webm", "takes BT.601 for bt709"),
    "BT.2020": Refused(_vp9(container="webm", colour=(9, 1)), "webm", "takes BT.601 for bt2020"),
    "edit list": Refused(lambda: remux(make_clip("libvpx-vp9", gop=20), shift=7), "mp4", "60 packets for 53 frames"),
    "only reference": Refused(
        lambda: remux(
            make_clip("libvpx", container="webm"), container="webm", into="webm", hide=(5, 17)
        ), "webm", "60 packets for 58 frames",
    ),
    "4:4:4": Refused(_vp9(container="webm", pixel_format="yuv444p"), "webm", "8 bits 4:2:0"),
    "h264 on the CPU": Refused(make_clip, "mp4", "does not take h264"),
    "avi": Refused(
        lambda: make_clip("mjpeg", container="avi", pixel_format="yuvj420p"), "avi", "avi are not found by number"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_dali_gets_wrong_is_decoded_exactly_and_the_result_says_why(
    name: str, context: LoadContext
) -> None:
    case = REFUSED[name]
    data = case.make()
    expected = decode_all(data, case.container)
    indices = (len(expected) - 1, 0, 7)
    with load(data, case.container, context, indices=indices) as frames:
        assert frames.backend == "pyav"
        assert case.reason in (frames.fallback or "")
        for place, index in enumerate(indices):
            np.testing.assert_array_equal(frames.numpy()[place], expected[index])
    assert context.counters.snapshot() == {'gpuflow_fallback_total{modality="video"}': 1}


@pytest.mark.parametrize("name", [name for name in EDGES if "vp8" in name or "vp9" in name or "frame count" in name])
def test_of_an_awkward_clip_dali_gives_the_right_frames_or_is_refused(name: str, context: LoadContext) -> None:
    make, container = EDGES[name]
    data = make()
    expected = decode_all(data, container)
    indices = tuple(range(0, len(expected), 7))
    with load(data, container, context, indices=indices) as frames:
        error = off(frames.numpy(), np.stack([expected[index] for index in indices]))
        assert (frames.backend == "dali") == (frames.fallback is None)
        assert error.max() <= (TOLERANCES["video/dali"].max_abs if frames.backend == "dali" else 0)


def test_pictures_that_change_size_are_refused_and_sizes_that_do_not_are_not() -> None:
    for codec in ("libvpx-vp9", "libvpx"):
        same, smaller = (joined((160, 96), size, codec=codec) for size in ((160, 96), (96, 64)))
        for data, changes in ((same, False), (smaller, True)):
            source = open_source(data, "webm")
            assert resized(source.demuxed, source.info.codec) == changes
            assert bool(DaliVideo(None).supports(source.demuxed, source.info)) == (not changes)


def test_dali_takes_bt601_for_every_matrix() -> None:
    data = flat((1, 1))
    error = off(raw(data, range(8), open_source(data, "webm").info), np.stack(decode_all(data, "webm")))
    assert error.max() > 20


def test_dali_leaves_rotated_clips_as_they_lie() -> None:
    data = REFUSED["rotated"].make()
    assert decode_all(data)[3].shape == (160, 96, 3)
    assert barcode(raw(data, [3], open_source(data).info)[0]) == 3


def test_dali_has_frames_that_an_edit_list_cuts_away() -> None:
    data = REFUSED["edit list"].make()
    assert len(decode_all(data)) == 53
    beyond = raw(data, [53, 59], open_source(data).info)  # no error; of the last one the memory was never written to
    assert all(barcode(frame) != index + 7 for frame, index in zip(beyond, (53, 59), strict=True))


def test_dali_shows_rubbish_where_the_picture_changes_its_size() -> None:
    data = joined((160, 96), (96, 64))
    assert barcode(raw(data, [19], open_source(data, "webm").info)[0]) == 19
    assert barcode(raw(data, [25], open_source(data, "webm").info)[0]) != 5


def test_an_index_that_the_file_does_not_have_is_an_error_and_no_black_frame() -> None:
    info = open_source(VP9, "webm").info
    for indices in ([0, 60], [-1]):
        with pytest.raises(CorruptMedia, match="DALI"):
            raw(VP9, indices, info)


# Errors, and who does not get them


def damaged(number: int, random: np.random.Generator) -> bytes:
    data = bytearray(VP9)
    for at in random.integers(len(data) // 3, len(data), 40 if number % 3 else 4):
        data[at] ^= 0xFF
    return bytes(data)


def test_damaged_files_give_right_frames_or_an_error_and_the_next_one_is_decoded_by_dali() -> None:
    random, ends = np.random.default_rng(3), []
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=1) as flow:
        for number in range(16):
            data = damaged(number, random)
            try:
                with flow.load(data, options=VideoOptions(num_frames=4)) as exact:
                    expected = exact.numpy().copy()
            except CorruptMedia:
                with pytest.raises(CorruptMedia):
                    flow.load(data, options=VideoOptions(engine="dali", num_frames=4))
                continue
            with flow.load(data, options=VideoOptions(engine="dali", num_frames=4)) as frames:
                ends.append(frames.backend)
                assert (frames.backend == "dali") == (frames.fallback is None)
                assert off(frames.numpy(), expected).mean() <= (TOLERANCES["video/dali"].max_mean or 0)
            with flow.load(VP9, options=VideoOptions(engine="dali", indices=(5, 31))) as frames:
                assert frames.backend == "dali"
                assert [barcode(frame) for frame in frames.numpy()] == [5, 31]
        assert flow.slab.statistics().live_leases == 0
    assert set(ends) == {"dali", "pyav"}


def test_bad_clips_beside_good_ones_hurt_nobody_else() -> None:
    random = np.random.default_rng(4)
    clips = [damaged(number, random) if number % 2 else VP9 for number in range(24)]

    def one(number: int) -> str:
        options = VideoOptions(engine="dali", timestamps_seconds=(0.17, 0.9))
        try:
            with flow.load(clips[number], options=options) as frames:
                assert number % 2 or [barcode(frame) for frame in frames.numpy()] == [5, 27]
                return frames.backend
        except CorruptMedia:
            return "corrupt"

    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=4) as flow, ThreadPoolExecutor(4) as threads:
        ends = list(threads.map(one, range(24)))
        assert flow.slab.statistics().live_leases == 0
    assert set(ends[::2]) == {"dali"}


def test_dali_is_opt_in_and_missing_it_is_an_error(context: LoadContext, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ("auto", "exact"):
        options = VideoOptions(num_frames=2, engine=engine)
        with load_video(blob(VP9), kind_of("webm"), options, context) as frames:
            assert (frames.backend, frames.fallback) == ("pyav", None)
    monkeypatch.setattr(video_dali, "capability", lambda: Capability(False, "not here: pip install it"))
    with pytest.raises(BackendUnavailable, match="pip install"):
        load(VP9, "webm", context, num_frames=2)


def test_under_isolation_dali_reads_no_file_in_this_process() -> None:
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=1, isolation="process") as flow:
        options = VideoOptions(engine="dali", indices=(5,))
        with flow.load(VP9, options=options) as frames:
            assert frames.backend == "pyav"
            assert "isolation" in (frames.fallback or "")


@pytest.mark.gpu
def test_on_a_gpu_dali_gives_the_frames_that_were_asked_for() -> None:
    data = make_clip(num_frames=60, size=(320, 240))
    with SyncFlow(device="cuda", slab_bytes="256MiB") as flow:
        options = VideoOptions(engine="dali", indices=WANTED, size=(120, 160))
        with flow.load(data, options=options) as frames:
            assert frames.backend == "dali"
            assert [barcode(frame) for frame in frames.numpy()] == list(WANTED)
