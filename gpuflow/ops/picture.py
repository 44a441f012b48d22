"""A decoded picture into its place of a tensor, by one kernel: colour, rotation, resize, normalisation, layout.

``launch`` is all of it but the GPU: the tests run what it gives on the host. ``PictureKernel`` is the GPU's part.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpuflow.config import Resample
from gpuflow.errors import InvalidOptions
from gpuflow.memory import Lease
from gpuflow.ops.color import yuv_to_rgb
from gpuflow.ops.form import Form, offsets
from gpuflow.ops.kernels import Launch
from gpuflow.ops.taps import Taps, has_taps, taps
from gpuflow.planes import Plane, Planes

Tables = Callable[[Hashable, Callable[[], Any]], int]
"""``(key, make)`` to the address of the array that ``make`` returns, where the kernel can read it."""

BLOCK = (32, 8)
STAGE = (32, 128)
"""Rows and columns of source that lie in shared memory at a time; 45.3 KB with the largest tile."""
_TILE_COLUMNS = 32
_TILE_ROWS = (32, 16, 8)
_ENOUGH_BLOCKS = 256  # two for each multiprocessor of a large GPU; smaller tiles read more margin. Not measured
_MAX_GRID_ROWS = 65_535
_MAX_TABLE_BYTES = 64 << 20
_PITCH_BYTES = 256


def can_resize(resample: Resample) -> bool:
    """Whether the kernel has this interpolation."""
    return has_taps(resample)


def launch(picture: Planes, form: Form, address: int, strides: tuple[int, ...], tables: Tables) -> Launch:
    """The launch that writes ``picture`` to the place of that address and strides in bytes (``Form.place``).

    Raises:
        InvalidOptions: no such matrix or interpolation, planes too small for the picture.
    """
    _check(picture)
    rows, columns, plane = offsets(form, strides)
    numbers = tables(("numbers", form), form.numbers) if form.number_bytes > 1 else 0
    destination = (
        np.uint64(address), np.uint64(numbers), np.int32(form.number_bytes),
        np.uint64(tables(("rows", form, strides), lambda: rows)),
        np.uint64(tables(("columns", form, strides), lambda: columns)),
        np.int64(plane), np.int32(len(rows)), np.int32(len(columns)),
    )  # fmt: skip
    sample = ("SAMPLE", "unsigned short" if picture.sample_bytes == 2 else "unsigned char")
    if form.size == form.canvas == picture.displayed_size:
        grid = (-(-len(columns) // BLOCK[0]), min(-(-len(rows) // BLOCK[1]), _MAX_GRID_ROWS))
        return Launch("video/picture", (sample, ("RESIZE", "0")), grid, BLOCK, (*_source(picture), *destination))
    tile = _tile(form.canvas)
    grid = (-(-len(columns) // tile[1]), min(-(-len(rows) // tile[0]), _MAX_GRID_ROWS))
    resize = (*_axis(0, picture, form, tables), *_axis(1, picture, form, tables), *map(np.int32, (*tile, *STAGE)))
    arguments = (*_source(picture), *destination, *resize)
    return Launch("video/picture", (sample, ("RESIZE", "1")), grid, BLOCK, arguments, shared_bytes(tile))


def shared_bytes(tile: tuple[int, int], stage: tuple[int, int] = STAGE) -> int:
    """What a block needs; see the kernel's header."""
    return 4 * (stage[0] * ((stage[1] | 1) + (tile[1] | 1)) + 3 * tile[1] * (stage[0] + tile[0]))


class PictureKernel:
    """The kernel on one GPU, with its tables there. Safe from any thread; ``picture_kernel`` keeps one a GPU."""

    def __init__(self, device_index: int) -> None:
        import cupy

        self._device = cupy.cuda.Device(device_index)
        self._tables: dict[Hashable, Any] = {}
        self.table_bytes = 0
        self._lock = threading.Lock()

    def write(self, picture: Planes, form: Form, out: Any, *, stream: Any) -> None:
        """Queue the conversion of one picture, on the host or on this GPU, into its place on a CuPy ``stream``.

        ``out``: the place, a CuPy view (``Form.place``). A picture on the host is copied first, from where it may be
        changed once this returns; one on the GPU must stay as it is until the stream is done with it.

        Raises:
            InvalidOptions: see ``launch``; or ``out`` has another shape or type.
            BackendUnavailable: the kernel cannot be compiled here.
        """
        if out.shape != form.place_shape or out.itemsize != form.number_bytes:
            raise InvalidOptions(
                f"the place of a picture is {form.place_shape} of {form.dtype}; got {out.shape}, {out.dtype}"
            )
        with self._device, stream:
            here = upload(picture, stream) if picture.on_host else picture
            with self._lock:
                self._make_room()
                launch(here, form, int(out.data.ptr), out.strides, self._table).queue()
            if picture.on_host:
                stream.synchronize()  # what was uploaded may be used again

    def _table(self, key: Hashable, make: Callable[[], Any]) -> int:
        import cupy

        if key not in self._tables:
            self._tables[key] = cupy.asarray(make())
            self.table_bytes += self._tables[key].nbytes
            cupy.cuda.get_current_stream().synchronize()  # kernels on other streams read it from now on
        return int(self._tables[key].data.ptr)

    def _make_room(self) -> None:
        """Before a launch has addresses of tables, and with nothing queued that reads them: sizes come from outside."""
        if self.table_bytes > _MAX_TABLE_BYTES:
            self._device.synchronize()
            self._tables.clear()
            self.table_bytes = 0


def place_picture(picture: Planes, form: Form, numbers: Sequence[int], tensor: Any, lease: Lease) -> None:
    """Write a picture to its places ``numbers`` in a CuPy tensor of ``form``: on CuPy's current stream, or, from the
    host, on this thread's own, which is noted on the lease.

    Raises:
        BackendUnavailable: the kernel cannot be compiled here.
    """
    import cupy

    first, *repeats = (form.place(tensor, number) for number in numbers)
    with tensor.device:
        stream = cupy.cuda.Stream.ptds if picture.on_host else cupy.cuda.get_current_stream()
        with stream:
            picture_kernel(tensor.device.id).write(picture, form, first, stream=stream)
            for repeat in repeats:
                repeat[...] = first
            if picture.on_host:
                lease.record_stream(stream)


@functools.cache
def picture_kernel(device_index: int) -> PictureKernel:
    """The one of that GPU."""
    return PictureKernel(device_index)


def upload(picture: Planes, stream: Any) -> Planes:
    """Queue a copy of a picture on the host to CuPy's current device: its samples alone, row by row.

    CUDA has read pageable memory when this returns. The copy's memory is its ``owner``.
    """
    import cupy

    _check(picture)
    pitches = [-(-row_bytes // _PITCH_BYTES) * _PITCH_BYTES for _, row_bytes in picture.needed]
    sizes = [pitch * rows for pitch, (rows, _) in zip(pitches, picture.needed, strict=True)]
    memory = cupy.empty(sum(sizes), cupy.uint8)
    planes, address = [], int(memory.data.ptr)
    for plane, pitch, size, (rows, row_bytes) in zip(picture.planes, pitches, sizes, picture.needed, strict=True):
        cupy.cuda.runtime.memcpy2DAsync(
            address,
            pitch,
            plane.address,
            plane.pitch,
            row_bytes,
            rows,
            cupy.cuda.runtime.memcpyHostToDevice,
            stream.ptr,
        )
        planes.append(Plane(address, pitch, rows, row_bytes))
        address += size
    return replace(picture, planes=tuple(planes), on_host=False, owner=memory)


def _source(picture: Planes) -> tuple[np.generic, ...]:
    """The kernel's first arguments: where the samples lie and what they mean."""
    luma, *chroma = picture.planes
    blue, red = (chroma or [luma])[0], (chroma or [luma])[-1]
    step = len(chroma) and 3 - len(chroma)
    second = picture.sample_bytes if step == 2 else 0  # NV12: V lies behind U
    matrix = yuv_to_rgb(
        picture.matrix, full_range=picture.full_range, bit_depth=picture.bit_depth, colored=bool(chroma)
    )
    shifts = picture.chroma_shift if chroma else (0, 0)
    return (
        np.uint64(luma.address), np.uint64(blue.address), np.uint64(red.address + second),
        np.int64(luma.pitch), np.int64(blue.pitch if chroma else 0), np.int32(picture.width), np.int32(picture.height),
        np.int32(step), *map(np.int32, shifts), np.int32(picture.shift), np.int32(picture.mirrored), np.int32(picture.rotation // 90 % 4),
        *matrix.ravel(),
    )  # fmt: skip


def _axis(axis: int, picture: Planes, form: Form, tables: Tables) -> tuple[np.generic, ...]:
    source, target, canvas = picture.displayed_size[axis], form.size[axis], form.canvas[axis]
    table: Taps = taps(source, target, form.resample)
    key = (source, target, form.resample, canvas)
    spans = tables(("spans", *key), lambda: table.shown(canvas, source).spans)
    weights = tables(("weights", *key), lambda: table.shown(canvas, source).weights)
    return np.uint64(spans), np.uint64(weights), np.int32(table.weights.shape[1]), np.int32(table.precision)


def _tile(canvas: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the result that a block makes: the largest that gives a large GPU enough blocks."""
    across = -(-canvas[1] // _TILE_COLUMNS)
    rows = next((rows for rows in _TILE_ROWS if -(-canvas[0] // rows) * across >= _ENOUGH_BLOCKS), _TILE_ROWS[-1])
    return rows, _TILE_COLUMNS


def _check(picture: Planes) -> None:
    """What the kernel reads lies in the planes."""
    known = 1 <= len(picture.planes) <= 3 and min(picture.width, picture.height) > 0 and picture.rotation % 90 == 0
    pitches = {plane.pitch for plane in picture.planes[1:]}
    lie = zip(picture.planes, picture.needed, strict=True)
    fits = all(p.rows >= rows and min(p.row_bytes, p.pitch) >= row_bytes for p, (rows, row_bytes) in lie)
    even = not any((p.address | p.pitch) % picture.sample_bytes for p in picture.planes)
    if not (known and fits and even and len(pitches) < 2):
        raise InvalidOptions(f"planes that do not hold {picture.width}x{picture.height}: {picture}")
