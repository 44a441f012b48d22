"""`video/picture` on the host against float64, swscale, torchvision and transformers; on a GPU against its own check."""

from __future__ import annotations

import itertools
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from gpuflow.errors import InvalidOptions
from gpuflow.ops.color import LUMA_WEIGHTS
from gpuflow.ops.form import Form
from gpuflow.ops.picture import launch
from tests.kernels_host.building import HostTables
from tests.kernels_host.check_video_picture import FORMS
from tests.kernels_host.conftest import Run
from tests.kernels_host.pictures import KINDS, Drawn, arranged, draw, exact_rgb, resized, rounded_rgb
from tests.parity.tolerances import TOLERANCES

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
SWSCALE = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}
COLORS = list(itertools.product(sorted(LUMA_WEIGHTS), (False, True)))


def converted(run: Run, drawn: Drawn, form: Form) -> NDArray[Any]:
    """A picture's place after the kernel has run; bfloat16 as its bits."""
    dtype = "uint16" if form.dtype == "bfloat16" else form.dtype
    place, tables = np.zeros(form.place_shape, dtype), HostTables()
    run(launch(drawn.planes, form, int(place.ctypes.data), place.strides, tables))
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_colour_equals_the_float64_matrix(run_on_host: Run, kind: str) -> None:
    worst = 0.0
    for (matrix, full), rotation in itertools.product(COLORS, (0, 90, 180, 270)):
        for size in ((16, 8), (9, 17), (1, 1), (3, 2)):
            drawn = draw(kind, size, matrix=matrix, full=full, rotation=rotation)
            rgb = converted(run_on_host, drawn, Form(drawn.planes.displayed_size))
            worst = max(worst, float(np.abs(rgb - exact_rgb(drawn)).max()))
    assert worst <= TOLERANCES["color/picture"].max_abs


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10", "yuv422p10"])
@pytest.mark.parametrize("size", [(32, 64), (17, 33)], ids=str)
def test_colour_of_flat_patches_equals_swscale(run_on_host: Run, pixel_format: str, size: tuple[int, int]) -> None:
    worst = 0.0
    for (matrix, full), seed in itertools.product(COLORS, range(12)):
        drawn = draw(pixel_format, (1, 1), matrix=matrix, full=full, seed=seed)
        legal = _legal(drawn)
        frame = _frame(legal, pixel_format, size)
        theirs = frame.to_ndarray(
            format="rgb24", src_colorspace=SWSCALE[matrix], dst_colorspace=SWSCALE[matrix],
            src_color_range=2 if full else 1, dst_color_range=2,
        )  # fmt: skip
        ours = converted(run_on_host, drawn, Form((1, 1)))
        worst = max(worst, float(np.abs(theirs[size[0] // 2, size[1] // 2].astype(float) - ours[0, 0]).max()))
    assert worst <= TOLERANCES["color/swscale"].max_abs


@pytest.mark.parametrize("resample", MODES)
def test_a_resized_picture_equals_torchvisions(run_on_host: Run, resample: Any) -> None:
    random = np.random.default_rng(5)
    sizes: list[Any] = [
        ((96, 160), (28, 56)),
        ((1, 1), (5, 3)),
        ((1, 700), (1, 2)),
        ((401, 3), (2, 3)),
        ((50, 60), (60, 50)),
    ]
    sizes += [tuple(tuple(int(side) for side in random.integers(2, 130, 2)) for _ in "ab") for _ in range(12)]
    for number, (before, after) in enumerate(sizes):
        drawn = draw("nv12" if number % 2 else "yuv420p10", before, rotation=90 * (number % 4))
        form = Form(after, resample=resample)
        expected = functional.resize(
            torch.from_numpy(rounded_rgb(drawn).copy()).permute(2, 0, 1), list(after), MODES[resample], antialias=True
        )
        difference = np.abs(converted(run_on_host, drawn, form) - expected.permute(1, 2, 0).numpy().astype(int))
        assert difference.max() <= TOLERANCES["resize/picture"].max_abs, (before, after)


@pytest.mark.parametrize("size", [(6, 7_681), (8_193, 4)], ids=str)
def test_a_very_large_reduction_goes_through_shared_memory_in_stages(run_on_host: Run, size: tuple[int, int]) -> None:
    drawn, after = draw("nv12", size), (max(2, size[0] // 34), max(2, size[1] // 34))
    expected = functional.resize(
        torch.from_numpy(rounded_rgb(drawn).copy()).permute(2, 0, 1), list(after), MODES["bicubic"], antialias=True
    )
    np.testing.assert_array_equal(converted(run_on_host, drawn, Form(after)), expected.permute(1, 2, 0))


@pytest.mark.parametrize(("family", "patch"), [("qwen2", 14), ("qwen3", 16)])
@pytest.mark.parametrize("num_frames", [4, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_patches_equal_the_video_processors(
    run_on_host: Run, family: str, patch: int, num_frames: int, dtype: str
) -> None:
    processor = _processor(family)
    frames = [draw("nv12", (70, 100), rotation=90, seed=number) for number in range(num_frames)]
    video = torch.from_numpy(np.stack([rounded_rgb(drawn) for drawn in frames])).permute(0, 3, 1, 2)
    expected = processor(videos=[video], return_tensors="pt", do_sample_frames=False)
    times, down, across = expected["video_grid_thw"][0].tolist()
    form = Form(
        (down * patch, across * patch), layout="patches", dtype=dtype, patch=patch, merge=2, temporal_patch=2,
        mean=tuple(processor.image_mean), std=tuple(processor.image_std),
    )  # fmt: skip
    tensor = np.zeros(form.shape(num_frames), "uint16" if dtype == "bfloat16" else dtype)
    tables = HostTables()
    for time in range(form.times(num_frames)):
        place = form.place(tensor, time)
        drawn = frames[min(time, num_frames - 1)]
        run_on_host(launch(drawn.planes, form, int(place.ctypes.data), place.strides, tables))
    assert times * 2 == form.times(num_frames)
    values = torch.from_numpy(tensor)
    values = values.view(torch.bfloat16) if dtype == "bfloat16" else values
    assert torch.equal(values, expected["pixel_values_videos"].to(values.dtype))


@pytest.mark.parametrize("size", [(9, 12), (30, 8), (5, 40)], ids=str)
def test_crop_and_padding_lie_as_the_image_transforms_do(run_on_host: Run, size: tuple[int, int]) -> None:
    from gpuflow.ops.transform_exact import placed
    from gpuflow.presets.view import BLACK, centred

    drawn = draw("yuv420p", (20, 30))
    form = Form(size, canvas=(14, 13), resample="bilinear")
    whole = torch.from_numpy(converted(run_on_host, drawn, Form(size, resample="bilinear"))).permute(2, 0, 1)
    expected = placed(whole, (14, 13), centred(size, (14, 13)), BLACK).permute(1, 2, 0)
    np.testing.assert_array_equal(converted(run_on_host, drawn, form), expected)


def test_planes_that_are_too_small_for_the_picture_are_refused() -> None:
    from dataclasses import replace

    planes = draw("nv12", (8, 8)).planes
    for wrong in (replace(planes, width=9), replace(planes, height=9), replace(planes, bit_depth=10)):
        with pytest.raises(InvalidOptions, match="planes that do not hold"):
            launch(wrong, Form((8, 8)), 0, (24, 3, 1), HostTables())


def test_an_unknown_matrix_is_refused() -> None:
    with pytest.raises(InvalidOptions, match="bt2020"):
        launch(draw("nv12", (8, 8), matrix="xyz").planes, Form((8, 8)), 0, (24, 3, 1), HostTables())


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["host", "device"])
def test_on_a_gpu_it_equals_its_steps_in_numpy(where: str) -> None:
    from gpuflow.ops.picture import picture_kernel, upload

    cupy = pytest.importorskip("cupy")
    stream = cupy.cuda.Stream(non_blocking=True)
    for number, (kind, form) in enumerate(itertools.product(KINDS, FORMS)):
        drawn = draw(kind, (61, 130), rotation=90 * number % 360, seed=number)
        with stream:
            tensor = cupy.full(form.shape(3), 77, "uint16" if form.dtype == "bfloat16" else form.dtype)
            picture = upload(drawn.planes, stream) if where == "device" else drawn.planes
        picture_kernel(0).write(picture, form, form.place(tensor, 1), stream=stream)
        stream.synchronize()
        expected = np.full(tensor.shape, 77, tensor.dtype)
        form.place(expected, 1)[...] = arranged(resized(rounded_rgb(drawn), form), form)
        np.testing.assert_array_equal(tensor.get().view(np.uint8), expected.view(np.uint8))


@pytest.mark.gpu
def test_on_a_gpu_tables_of_many_sizes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuflow.ops import tables
    from gpuflow.ops.picture import PictureKernel

    cupy = pytest.importorskip("cupy")
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1 << 20)
    kernel, stream = PictureKernel(0), cupy.cuda.Stream(non_blocking=True)
    drawn = draw("nv12", (40, 4_000))
    for width in range(3_000, 3_060):
        form = Form((20, width))
        out = cupy.zeros(form.place_shape, cupy.uint8)
        kernel.write(drawn.planes, form, out, stream=stream)
        assert tables.device_tables(0).nbytes < 3 << 19
    np.testing.assert_array_equal(out.get(), resized(rounded_rgb(drawn), form))


@pytest.mark.parametrize("canvas", [(1, 1), (224, 224), (1_080, 1_920), (16_384, 16_384), (2, 16_384)], ids=str)
def test_a_block_needs_no_more_shared_memory_than_every_gpu_has(canvas: tuple[int, int]) -> None:
    drawn, tables = draw("nv12", (3, 5)), HostTables()
    planned = launch(drawn.planes, Form(canvas), 0, (3 * canvas[1], 3, 1), tables)
    assert planned.shared_bytes <= 48 << 10
    assert planned.grid[1] <= 65_535
    assert planned.block[0] * planned.block[1] <= 1_024


def _processor(family: str) -> Any:
    import transformers

    name = {"qwen2": "Qwen2VLVideoProcessor", "qwen3": "Qwen3VLVideoProcessor"}[family]
    return getattr(transformers, name)()


def _legal(drawn: Drawn) -> tuple[int, int, int]:
    return int(drawn.y[0, 0]), int(drawn.u[0, 0]), int(drawn.v[0, 0])


def _frame(values: tuple[int, int, int], pixel_format: str, size: tuple[int, int]) -> Any:
    frame = av.VideoFrame(size[1], size[0], pixel_format.replace("p10", "p10le"))
    for plane, value in zip(frame.planes, values, strict=True):
        wide = pixel_format.endswith("p10")
        count = plane.buffer_size // (2 if wide else 1)
        plane.update(np.full(count, value, "<u2" if wide else "u1").tobytes())
    return frame
