"""What plans make of pictures, as launches of one kernel: all views of all of them side by side.

``launches`` is all of it but the GPU: the tests run what it gives on the host. ``gpuflow/ops/views_kernel.py`` is the GPU's
part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.media import ITEM_BYTES
from gpuflow.ops.arrange import numbers
from gpuflow.ops.kernels import Launch
from gpuflow.ops.places import Places, first_place, interleaved, places
from gpuflow.ops.resize import vertical_first
from gpuflow.ops.tables import Tables
from gpuflow.ops.taps import axis_table
from gpuflow.ops.tiling import BLOCK, STAGE, arguments, num_tiles, shared_bytes, tile_for
from gpuflow.presets.plan import ImagePlan
from gpuflow.presets.view import BLACK, Levels, Size, View

_JOB = np.dtype(
    [
        *((name, np.uint64) for name in ("source", "out", "numbers")),
        *((name, np.uint64) for name in ("row_offsets", "column_offsets", "row_table", "column_table")),
        *((name, np.int64) for name in ("row_stride", "column_stride", "channel_stride", "plane", "repeat")),
        *((name, np.int32) for name in ("source_rows", "source_columns", "top", "left", "rows", "columns")),
        *((name, np.int32) for name in ("inside_top", "inside_left", "inside_bottom", "inside_right")),
        *((name, np.uint32) for name in ("background", "beyond", "around")),
        *((name, np.int32) for name in ("transparent", "number_bytes", "repeats", "turned", "first_tile")),
    ],
    align=True,
)
"""``struct Job`` of ``kernels/image/views.cu``."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """``pixels``: ``(H, W, 3)`` or ``(H, W, 4)`` uint8, numpy or CuPy, as it is to be shown, with any strides: a turned or
    planar picture is a view. ``background``: what four channels lie over; ``None`` shows the hidden colours.

    Raises:
        InvalidOptions: an array of another shape or type.
    """

    pixels: Any
    background: Levels | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] not in (3, 4) or 0 in shape or dtype != np.uint8:
            raise InvalidOptions(f"a picture is (H, W, 3) or (H, W, 4) of uint8; got {shape} of {dtype}")

    @property
    def on_host(self) -> bool:
        """Whether a GPU would have to be given a copy."""
        return not hasattr(self.pixels, "__cuda_array_interface__")

    @property
    def address(self) -> int:
        """Of the first pixel that is shown, top left."""
        return int(self.pixels.ctypes.data if self.on_host else self.pixels.data.ptr)


@dataclass(frozen=True, slots=True)
class Job:
    """A picture, its plan, and the address of the plan's pixels: C-contiguous, where the kernel can write."""

    picture: Picture
    plan: ImagePlan
    out: int


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """Where a picture lies in memory; strides of rows, columns and channels in bytes."""

    address: int
    strides: tuple[int, ...]
    size: Size
    background: Levels | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Resize:
    """One resize and where its result goes: a record of the kernel's table."""

    source: _Source
    box: tuple[int, int, int, int]
    view: View  # whose resized, canvas, offset, beyond and around are this resize's own
    plan: ImagePlan
    out: int
    numbers: int
    number_bytes: int
    places: Places

    @property
    def turned(self) -> bool:
        """Whether the kernel's rows are the picture's columns, because rows are made first. torchvision never does."""
        by_pillow = self.plan.reference == "pillow" or self.plan.resample == "lanczos"
        return by_pillow and vertical_first(*self.box[2:], self.view.resized, self.plan.passes)

    @property
    def canvas(self) -> Size:
        """As the kernel sees it."""
        height, width = self.view.canvas
        return (width, height) if self.turned else (height, width)


def launches(
    jobs: Sequence[Job],
    *,
    tables: Tables,
    upload: Callable[[NDArray[np.uint8]], int],
    scratch: Callable[[int], int],
    tile: Size | None = None,
    stage: Size = STAGE,
) -> list[Launch]:
    """The launches that write every view of every job, to be run in this order.

    ``upload``: bytes to the address where the kernel reads them; ``scratch``: the address of so many that it may write
    to. Both last until the launches have run. ``tile``: rows and columns that a block makes; ``None`` looks at all jobs.

    Raises:
        InvalidOptions: a side that no table has, or pixels that begin between two numbers.
    """
    chains = [list(_chain(job, view, tables, scratch)) for job in jobs for view in job.plan.views]
    rounds = itertools.zip_longest(*chains)
    made = []
    for together in rounds:
        resizes = [resize for resize in together if resize is not None]
        made.append(_launch(resizes, tables, upload, tile or tile_for([resize.canvas for resize in resizes]), stage))
    return made


def unfilled(job: Job) -> tuple[int, int]:
    """Address and size of the bytes of the pixels that no view fills, which are to be zeros."""
    plan, item = job.plan, ITEM_BYTES[job.plan.dtype]
    if plan.layout != "patches_last" or plan.grid is None:
        return job.out, 0
    *_, row_size = shape = plan.pixels[2]
    filled = math.prod(plan.grid) * row_size
    return job.out + filled * item, (math.prod(shape) - filled) * item


def _chain(job: Job, view: View, tables: Tables, scratch: Callable[[int], int]) -> Iterator[_Resize]:
    """The resizes that a view goes through, one after another."""
    plan, picture, pixels = job.plan, job.picture, job.picture.pixels
    background = picture.background if pixels.shape[2] == 4 else None
    source = _Source(picture.address, pixels.strides, pixels.shape[:2], background)
    box = view.box or (0, 0, *source.size)
    for size in view.via:
        out = scratch(3 * math.prod(size))
        passage = View(size, size, beyond=view.beyond)
        yield _Resize(source, box, passage, plan, out, 0, 1, interleaved(size))
        source, box = _Source(out, (3 * size[1], 3, 1), size), (0, 0, *size)
    item = ITEM_BYTES[plan.dtype]
    if job.out % item:
        raise InvalidOptions(f"pixels of {plan.dtype} begin at a multiple of {item} bytes; got {job.out}")
    key = ("levels", plan.dtype, plan.normalization, plan.mean, plan.std)
    values = tables(key, lambda: numbers(plan)) if item > 1 else 0
    out = job.out + item * first_place(plan, view)
    yield _Resize(source, box, replace(view, via=()), plan, out, values, item, places(plan, view))


def _launch(
    resizes: Sequence[_Resize], tables: Tables, upload: Callable[[NDArray[np.uint8]], int], tile: Size, stage: Size
) -> Launch:
    tiles = [num_tiles(resize.canvas, tile) for resize in resizes]
    first = itertools.accumulate(tiles, initial=0)
    records = np.array([_record(resize, tables, at) for resize, at in zip(resizes, first, strict=False)], _JOB)
    job_of = np.repeat(np.arange(len(resizes), dtype=np.int32), tiles)
    address = upload(np.concatenate([records.view(np.uint8), job_of.view(np.uint8)]))
    given: tuple[np.generic, ...] = (
        np.uint64(address), np.uint64(address + records.nbytes), np.int32(len(job_of)), *arguments(tile, stage),
    )  # fmt: skip
    return Launch("image/views", (), (len(job_of), 1), BLOCK, given, shared_bytes(tile, stage))


def _record(resize: _Resize, tables: Tables, first_tile: int) -> tuple[int, ...]:
    """In the order of ``_JOB``: of every pair the rows' first, the columns' where it is turned."""
    source, view, places = resize.source, resize.view, resize.places

    def pair(of_rows: int, of_columns: int) -> tuple[int, int]:
        return (of_columns, of_rows) if resize.turned else (of_rows, of_columns)

    inside = [_inside(view.offset[axis], view.resized[axis], view.canvas[axis]) for axis in (0, 1)]
    return (
        source.address, resize.out, resize.numbers,
        *pair(tables(("rows", *places.key), lambda: places.rows), tables(("columns", *places.key), lambda: places.columns)),
        *pair(_axis(0, resize, tables), _axis(1, resize, tables)),
        *pair(*source.strides[:2]), source.strides[2], places.channel, places.repeat,
        *pair(*source.size), *pair(*resize.box[:2]), *pair(*view.canvas),
        *pair(inside[0][0], inside[1][0]), *pair(inside[0][1], inside[1][1]),
        _packed(source.background or BLACK), _packed(view.beyond), _packed(view.around),
        source.background is not None, resize.number_bytes, places.repeats, resize.turned, first_tile,
    )  # fmt: skip


def _axis(axis: int, resize: _Resize, tables: Tables) -> int:
    view, plan = resize.view, resize.plan
    sides = (resize.box[2 + axis], view.resized[axis])
    canvas, offset = view.canvas[axis], view.offset[axis]
    return tables(
        ("axis", *sides, plan.resample, plan.reference, canvas, offset),
        lambda: axis_table(*sides, plan.resample, canvas=canvas, offset=offset, reference=plan.reference),
    )


def _inside(offset: int, resized: int, canvas: int) -> tuple[int, int]:
    """From where to where on the canvas the image reaches."""
    return max(0, offset), min(canvas, offset + resized)


def _packed(levels: Levels) -> int:
    """As the kernel has a colour: red in the lowest byte."""
    return levels[0] | levels[1] << 8 | levels[2] << 16
