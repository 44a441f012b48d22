"""Frames that the CPU decodes, as planes through upload and kernel to their places, the kernel on the host.

The pixels are real, what is between them and a GPU is wiring only.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpuflow.codecs._backends.pynv_surface import PyNvSurface
from gpuflow.codecs.base import VideoInfo
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.videos import cpu_decoder
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import InvalidOptions
from gpuflow.flow.context import Deadline
from gpuflow.flow.video import Placing, frames_shape
from gpuflow.flow.video_features import FeaturePlacing, plan_features, preset_of
from gpuflow.media import lay_out
from gpuflow.memory import Slab
from gpuflow.ops import picture, tables
from gpuflow.ops.clip_exact import place_frame
from gpuflow.ops.color import nv12_to_rgb
from gpuflow.ops.form import Form
from gpuflow.ops.picture import place_picture
from tests.flow.clips import make_clip
from tests.flow.elementary import Kept
from tests.flow.test_load_video import open_source
from tests.kernels_host.cupy_wiring_only import Array, Lease
from tests.kernels_host.pictures import Drawn, draw, exact_rgb, nearest, resized, rounded_rgb
from tests.parity.tolerances import TOLERANCES

CLIPS: dict[str, dict[str, Any]] = {
    "8 bit": {},
    "rotated": {"rotation": 90.0},
    "10 bit": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "4:2:2": {"pixel_format": "yuv422p"},
    "4:4:4": {"pixel_format": "yuv444p"},
    "full range": {"codec": "mjpeg", "pixel_format": "yuvj420p", "container": "avi", "colour": (5, 2)},
    "av1": {"codec": "libsvtav1"},
    "bt.709": {"colour": (1, 1)},
}


def smooth(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Colours that change slowly: how chroma is interpolated hardly shows."""
    y, x = np.mgrid[0:height, 0:width]
    parts = [128 + 60 * np.sin((x + 4 * number) / 90.0), 128 + 60 * np.cos(y / 80.0), 100 + 0.3 * x + 0.2 * y]
    return np.stack(parts, -1).clip(0, 255).astype(np.uint8)


def _clip(name: str) -> tuple[Any, str]:
    arguments = {"num_frames": 5, "gop": 5, "draw": smooth, **CLIPS[name]}
    return open_source(make_clip(**arguments), arguments.get("container", "mp4")), name


def _decode(source: Any, indices: Sequence[int], sink: Any) -> None:
    decode_frames(
        source.demuxed, source.info, source.plan(indices, limits=Limits()), sink,
        decoder=cpu_decoder, deadline=Deadline(60.0), pool=None,
    )  # fmt: skip


def _through_the_kernel(source: Any, indices: Sequence[int], options: VideoOptions) -> tuple[Any, Lease]:
    shape = frames_shape(source.info, options, len(indices))
    (spec,) = lay_out({"frames": (options.dtype or "uint8", shape)})
    lease: Any = Lease(spec.nbytes)
    _decode(source, indices, Placing(source.info, options, indices, lease, spec, on_host=True))
    return np.asarray(lease.array(spec)), lease


@pytest.mark.parametrize("name", CLIPS)
def test_planes_of_a_decoded_frame_give_the_float64_matrix_and_what_swscale_gives_wiring_only(
    name: str, cupy: Any
) -> None:
    source, _ = _clip(name)
    kept = _KeptExactly(source.info)
    _decode(source, [0, 3], kept)
    frames, lease = _through_the_kernel(source, [3, 0, 3], VideoOptions())
    for place, index in enumerate((3, 0, 3)):
        assert np.abs(frames[place] - kept.exact[index]).max() <= TOLERANCES["color/picture"].max_abs
        difference = np.abs(frames[place].astype(int) - kept.frames[index])
        assert difference.max() <= TOLERANCES["color/swscale-frames"].max_abs
    assert lease.recorded
    assert cupy.cuda.Stream.ptds.synchronized >= 2, "what was uploaded is used again by the decoder"


class _KeptExactly(Kept):
    """Also what the definitions make of the frame's own samples, taken by PyAV."""

    def __init__(self, info: VideoInfo) -> None:
        super().__init__(info)
        self.exact: dict[int, NDArray[np.float64]] = {}

    def put(self, index: int, surface: Any) -> None:
        super().put(index, surface)
        frame, planes = surface._frame, surface.planes()
        dtype = np.uint16 if planes.bit_depth > 8 else np.uint8
        y, u, v = (np.frombuffer(p, dtype).reshape(p.height, -1)[:, : p.width].astype(np.int64) for p in frame.planes)
        halved, size = (int(u.shape[1] < y.shape[1]), int(u.shape[0] < y.shape[0])), (frame.height, frame.width)
        self.exact[index] = exact_rgb(Drawn(planes, y, nearest(u, halved, size), nearest(v, halved, size)))


@pytest.mark.parametrize("kind", ["nv12", "p010"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_surface_of_nvdec_gives_the_same_by_its_planes_and_by_its_rgb_wiring_only(
    kind: str, mirrored: bool, cupy: Any
) -> None:
    drawn = draw(kind, (20, 34), rotation=90, mirrored=mirrored)
    bits = drawn.planes.bit_depth
    info = VideoInfo("h264", 34, 20, 1, 30.0, 1.0, rotation=90, mirrored=mirrored, matrix="bt709", bit_depth=bits)
    surface = PyNvSurface(_NvdecFrame(drawn), info, nv12_to_rgb, cupy.cuda.Stream.ptds)
    found = surface.planes()
    (spec,) = lay_out({"frames": ("uint8", (2, 34, 20, 3))})
    lease: Any = Lease(spec.nbytes)
    frames = lease.array(spec)
    place_picture(found, Form((34, 20)), [0], frames, lease)
    surface.rgb_into(frames[1])
    for frame in np.asarray(frames):
        np.testing.assert_array_equal(frame, rounded_rgb(drawn))


class _NvdecFrame:
    """A decoded frame as PyNvVideoCodec lays it: one allocation, chroma behind luma."""

    def __init__(self, drawn: Drawn) -> None:
        rows, item = drawn.planes.height, drawn.planes.sample_bytes
        pairs = np.stack([drawn.u[::2, ::2], drawn.v[::2, ::2]], -1).reshape(rows // 2, -1)
        stacked = np.concatenate([drawn.y, pairs]) << drawn.planes.shift
        self._samples = np.ascontiguousarray(stacked.astype(f"u{item}"))
        width, address = drawn.planes.width, int(self._samples.ctypes.data)
        strides = (self._samples.strides[0], item)
        luma = {
            "shape": (rows, width, 1),
            "data": (address, False),
            "typestr": f"<u{item}",
            "strides": (*strides, item),
        }
        behind = address + rows * strides[0]
        chroma = {"shape": (rows // 2, width // 2, 2), "data": (behind, False), "typestr": f"<u{item}", "strides": None}
        self._views = [SimpleNamespace(__cuda_array_interface__=view) for view in (luma, chroma)]

    def cuda(self) -> list[Any]:
        return self._views


@pytest.mark.parametrize("layout", ["THWC", "TCHW"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16"])
def test_size_layout_and_type_are_those_of_the_cpus_route_wiring_only(layout: Any, dtype: Any, cupy: Any) -> None:
    from gpuflow.ops.frames import finish
    from gpuflow.ops.resize import resize_rgb

    source, _ = _clip("rotated")
    plain, _ = _through_the_kernel(source, [1, 4], VideoOptions())
    frames, _ = _through_the_kernel(
        source, [1, 4], VideoOptions(size=(45, 70), resample="bilinear", layout=layout, dtype=dtype)
    )
    for frame, rgb in zip(frames, plain, strict=True):
        expected = finish(resize_rgb(rgb, (45, 70), "bilinear"), planar=layout == "TCHW", dtype=dtype)
        np.testing.assert_array_equal(frame, expected)


def test_tables_of_many_sizes_do_not_pile_up_wiring_only(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 10_000)
    kernel, drawn = picture.PictureKernel(0), draw("nv12", (9, 60))
    for width in range(200, 240):
        form = Form((5, width))
        out = cupy.empty(form.place_shape, np.uint8)
        kernel.write(drawn.planes, form, out, stream=cupy.cuda.Stream.ptds)
        np.testing.assert_array_equal(out, resized(rounded_rgb(drawn), form))
        assert tables.device_tables(0).nbytes < 20_000


@pytest.mark.parametrize("shape", [(8, 8, 4), (3, 8, 8), (9, 8, 3)])
def test_a_place_of_another_shape_is_refused_wiring_only(shape: tuple[int, ...], cupy: Any) -> None:
    with pytest.raises(InvalidOptions, match="the place of a picture"):
        picture.PictureKernel(0).write(
            draw("nv12", (8, 8)).planes, Form((8, 8)), cupy.empty(shape, np.uint8), stream=cupy.cuda.Stream.ptds
        )


@pytest.mark.parametrize("resample", ["nearest", "lanczos"])
def test_interpolations_that_torchvision_does_otherwise_are_those_of_the_cpus_route_wiring_only(
    resample: Any, cupy: Any
) -> None:
    from gpuflow.ops.resize import resize_rgb

    source, _ = _clip("8 bit")
    plain, _ = _through_the_kernel(source, [0], VideoOptions())
    frames, _ = _through_the_kernel(source, [0], VideoOptions(size=(45, 70), resample=resample))
    np.testing.assert_array_equal(frames[0], resize_rgb(plain[0], (45, 70), resample))


@pytest.mark.parametrize("preset", ["qwen2.5-vl", "qwen3-vl", "llava-onevision"])
def test_features_of_a_preset_are_those_of_the_exact_engine_wiring_only(preset: str, cupy: Any, slab: Slab) -> None:
    source, _ = _clip("bt.709")
    options, indices = VideoOptions(preset=preset), [0, 1, 3]
    plan = plan_features(preset_of(options), options, source.info, len(indices))
    plain, _ = _through_the_kernel(source, indices, VideoOptions())
    specs = lay_out({name: (dtype, shape) for name, dtype, shape in plan.outputs})
    lease: Any = Lease(specs[0].nbytes)
    sink = FeaturePlacing(source.info, plan, indices, lease, specs[0], on_host=True)
    _decode(source, indices, sink)
    assert sink.exact
    with slab.allocate(specs[0].nbytes) as expected:
        for number in range(plan.num_frames):
            place_frame(plain[min(number, len(indices) - 1)], [number], plan, expected, specs[0])
        found = torch.from_numpy(np.asarray(lease.array(specs[0])))
        assert torch.equal(found, expected.tensor(specs[0]))


def test_an_error_behind_the_launch_finds_the_block_noted_on_the_stream_wiring_only(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(place: Any, key: Any, values: Any) -> None:
        raise RuntimeError("CUDA does not take it")

    drawn = draw("nv12", (20, 34))
    (spec,) = lay_out({"frames": ("uint8", (2, 20, 34, 3))})
    lease: Any = Lease(spec.nbytes)
    frames = lease.array(spec)
    monkeypatch.setattr(Array, "__setitem__", fail)
    with pytest.raises(RuntimeError, match="CUDA does not take it"):
        place_picture(drawn.planes, Form((20, 34)), [0, 1], frames, lease)
    assert cupy.launched
    assert lease.recorded == [cupy.cuda.Stream.ptds]
