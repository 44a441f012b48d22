"""What `image/views` must do, small and exact: every layout and type, boxes beyond the image, transparency, strides of
every kind, both orders, chains of resizes; ragged jobs in one launch; tiles and stages that do not divide anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.arrange import numbers
from gpuflow.ops.composite import flattened
from gpuflow.ops.kernels import Launch
from gpuflow.ops.resize import vertical_first
from gpuflow.ops.taps import taps
from gpuflow.ops.tiling import STAGE
from gpuflow.ops.views import Job, Picture, launches
from gpuflow.presets.plan import ImagePlan
from gpuflow.presets.view import View
from tests.kernels_host.building import HostTables
from tests.kernels_host.pictures import gathered

_UNIT: dict[str, Any] = {"mean": (0.5, 0.25, 0.5), "std": (0.25, 0.5, 1.0)}
_PILLOW: dict[str, Any] = {"reference": "pillow", "passes": "vertical_first"}

Case = tuple[Picture, ImagePlan]


def check(run: Callable[[Launch], None]) -> None:
    """Raise ``AssertionError`` unless ``run`` does what the kernel's header says."""
    cases = list(_cases())
    expect(run, cases, tile=(5, 3), stage=(4, 9))
    expect(run, cases[::-1], tile=(8, 32))
    expect(run, cases[:1])


def expect(
    run: Callable[[Launch], None], cases: Sequence[Case], *, tile: tuple[int, int] | None = None, stage: Any = STAGE
) -> None:
    """Run all cases side by side and compare everything that they may write to."""
    for (_, plan), found, expected in zip(
        cases, written(run, cases, tile=tile, stage=stage), wanted(cases), strict=True
    ):
        np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8), f"{plan}")


def written(
    run: Callable[[Launch], None], cases: Sequence[Case], *, tile: tuple[int, int] | None = None, stage: Any = STAGE
) -> list[NDArray[Any]]:
    """The pixels of each case after the kernel has run; bfloat16 as its bits, 77 where it wrote nothing."""
    outs, tables, memory = [_untouched(plan) for _, plan in cases], HostTables(), HostMemory()
    jobs = [Job(picture, plan, int(out.ctypes.data)) for (picture, plan), out in zip(cases, outs, strict=True)]
    for launch in launches(jobs, tables=tables, upload=memory.upload, scratch=memory.scratch, tile=tile, stage=stage):
        run(launch)
    return outs


def wanted(cases: Sequence[Case]) -> Iterator[NDArray[Any]]:
    """What they are to be, by numpy."""
    for picture, plan in cases:
        out = _untouched(plan)
        for view in plan.views:
            _write(_canvas(flattened(picture.pixels, picture.background), plan, view), plan, view, out)
        yield out


class HostMemory:
    """What ``launches`` asks for, in host memory, kept as long as this."""

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []

    def upload(self, array: NDArray[np.uint8]) -> int:
        """A copy's address."""
        self._kept.append(array.copy())
        return int(self._kept[-1].ctypes.data)

    def scratch(self, nbytes: int) -> int:
        """Bytes that say nothing."""
        return self.upload(np.full(nbytes, 0xAA, np.uint8))


def plan_of(
    views: tuple[View, ...], layout: Any = "CHW", dtype: str = "uint8", resample: Any = "bicubic", **options: Any
) -> ImagePlan:
    """A plan by hand, of as many tiles or rows as its views need."""
    patch, times = options.get("patch", 1), options.get("temporal_patch", 1)
    height, width = views[0].tile or views[0].canvas
    rows, columns = (side // patch for side in views[0].canvas)
    shape: tuple[int, ...] = (height, width, 3)
    if layout == "CHW":
        shape = (max(view.first + view.num_tiles for view in views), 3, height, width)
    elif layout != "HWC":
        shape = (rows * columns, 3 * times * patch**2)
    grid = (1, rows, columns) if "patch" in options else None
    unit = _UNIT if dtype != "uint8" else {}
    return ImagePlan((0, 0), views, ("pixels", dtype, shape), layout, resample, grid=grid, **(unit | options))


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """All levels, side by side."""
    return np.random.default_rng((height, width, seed)).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _cases() -> Iterator[Case]:
    yield Picture(noise(30, 41)), plan_of((View((20, 13), (20, 13)),), dtype="float32")
    turned = noise(41, 30, 4)[::-1].swapaxes(0, 1)
    yield Picture(turned, (255, 100, 3)), plan_of((View((30, 41), (30, 41)),), "HWC", resample="bilinear")
    yield Picture(noise(7, 9, 4)), plan_of((View((12, 5), (12, 5)),), "HWC", resample="nearest")
    boxed = View(
        (9, 14), (8, 12), (1, -2), box=(-3, -4, 20, 30), tile=(4, 6), first=1, beyond=(9, 80, 200), around=(1, 2, 3)
    )
    overview = View((2, 4), (4, 6), (1, 1), around=(7, 8, 9))
    yield Picture(noise(13, 20)[:, ::-1]), plan_of((overview, boxed), dtype="float16")
    planar = np.ascontiguousarray(noise(11, 50).transpose(2, 0, 1)).transpose(1, 2, 0)
    patches = {"patch": 3, "merge": 2, "temporal_patch": 2}
    yield Picture(planar), plan_of((View((12, 24), (12, 24)),), "patches", "bfloat16", **patches)
    last = View((12, 22), (12, 20), (0, -1))
    yield Picture(noise(40, 17)), plan_of((last,), "patches_last", "float32", "lanczos", patch=4, **_PILLOW)
    seen_twice = View((10, 9), (11, 9), (2, 0), via=((25, 7), (6, 30)), box=(2, 2, 9, 9), around=(50, 60, 70))
    yield Picture(noise(12, 15)), plan_of((seen_twice,), "CHW", resample="bicubic", reference="pillow", passes="pillow")
    yield Picture(noise(1, 1)), plan_of((View((4, 5), (4, 5)),), dtype="float32", **_PILLOW)
    yield Picture(noise(3, 200)), plan_of((View((2, 3), (2, 3)),), resample="bilinear")
    planar = np.ascontiguousarray(noise(200, 3, 4).transpose(2, 0, 1)).transpose(1, 2, 0)
    yield Picture(planar, (0, 0, 0)), plan_of((View((1, 1), (1, 1)),), resample="bicubic", **_PILLOW)


def _untouched(plan: ImagePlan) -> NDArray[Any]:
    return np.full(plan.pixels[2], 77, plan.dtype if plan.dtype != "bfloat16" else "uint16")


def _canvas(levels: NDArray[np.uint8], plan: ImagePlan, view: View) -> NDArray[np.uint8]:
    if view.box is not None:
        top, left, height, width = view.box
        levels = _placed(levels, (height, width), (-top, -left), view.beyond)
    for size in (*view.via, view.resized):
        levels = _resized(levels, size, plan)
    return _placed(levels, view.canvas, view.offset, view.around)


def _resized(levels: NDArray[np.uint8], size: Any, plan: ImagePlan) -> NDArray[np.uint8]:
    height, width = levels.shape[:2]
    down, across = (taps(levels.shape[a], size[a], plan.resample, reference=plan.reference) for a in (0, 1))
    if plan.reference == "pillow" and vertical_first(height, width, size, plan.passes):
        return gathered(gathered(levels, down).swapaxes(0, 1), across).swapaxes(0, 1)
    return gathered(gathered(levels.swapaxes(0, 1), across).swapaxes(0, 1), down)


def _placed(levels: NDArray[np.uint8], canvas: Any, offset: Any, around: Any) -> NDArray[np.uint8]:
    out = np.empty((*canvas, 3), np.uint8)
    out[:] = around
    for row, column in np.ndindex(*canvas):
        y, x = row - offset[0], column - offset[1]
        if 0 <= y < levels.shape[0] and 0 <= x < levels.shape[1]:
            out[row, column] = levels[y, x]
    return out


def _write(levels: NDArray[np.uint8], plan: ImagePlan, view: View, out: NDArray[Any]) -> None:
    table, (height, width), (patch, merge, times) = (
        numbers(plan),
        view.canvas,
        (plan.patch, plan.merge, plan.temporal_patch),
    )
    values = levels if table is None else np.stack([table[c][levels[..., c]] for c in range(3)], -1)
    if plan.layout == "HWC":
        out[...] = values
    elif plan.layout == "CHW":
        tile_height, tile_width = view.tile or view.canvas
        tiles = values.reshape(height // tile_height, tile_height, width // tile_width, tile_width, 3)
        out[view.first : view.first + view.num_tiles] = tiles.transpose(0, 2, 4, 1, 3).reshape(-1, *out.shape[1:])
    elif plan.layout == "patches_last":
        cut = values.reshape(height // patch, patch, width // patch, patch, 3).transpose(0, 2, 1, 3, 4)
        out[...] = cut.reshape(out.shape)
    else:
        block = patch * merge
        cut = values.reshape(height // block, merge, patch, width // block, merge, patch, 3).transpose(
            0, 3, 1, 4, 6, 2, 5
        )
        out[...] = np.stack([cut] * times, -3).reshape(out.shape)
