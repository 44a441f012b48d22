"""A decoded picture into its place of a tensor, by one kernel: colour, rotation, resize, normalisation, layout.

``launch`` is all of it but the GPU: the tests run what it gives on the host. ``PictureKernel`` is the GPU's part.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpuflow.errors import InvalidOptions
from gpuflow.memory import Lease
from gpuflow.ops.color import yuv_to_rgb
from gpuflow.ops.form import Form, offsets
from gpuflow.ops.kernels import Launch
from gpuflow.ops.tables import Tables, device_tables
from gpuflow.ops.taps import axis_table
from gpuflow.ops.tiling import BLOCK, arguments, shared_bytes, tile_for
from gpuflow.planes import Plane, Planes
from gpuflow.presets.view import centred

_MAX_GRID_ROWS = 65_535
_PITCH_BYTES = 256


def launch(picture: Planes, form: Form, address: int, strides: tuple[int, ...], tables: Tables) -> Launch:
    """The launch that writes ``picture`` to the place of that address and strides in bytes (``Form.place``).

    Raises:
        InvalidOptions: no such matrix, a side that no table has, planes too small for the picture.
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
    tile = tile_for([form.canvas])
    grid = (-(-len(columns) // tile[1]), min(-(-len(rows) // tile[0]), _MAX_GRID_ROWS))
    axes = [np.uint64(_axis(axis, picture, form, tables)) for axis in (0, 1)]
    given: tuple[np.generic, ...] = (*_source(picture), *destination, *axes, *arguments(tile))
    return Launch("video/picture", (sample, ("RESIZE", "1")), grid, BLOCK, given, shared_bytes(tile))


class PictureKernel:
    """The kernel on one GPU, with its tables there. Safe from any thread; ``picture_kernel`` keeps one a GPU."""

    def __init__(self, device_index: int) -> None:
        import cupy

        self._device = cupy.cuda.Device(device_index)
        self._tables = device_tables(device_index)

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
            address, strides = int(out.data.ptr), out.strides
            self._tables.queue(lambda tables: [launch(here, form, address, strides, tables)], stream=stream)
            if picture.on_host:
                stream.synchronize()  # what was uploaded may be used again


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
            try:
                picture_kernel(tensor.device.id).write(picture, form, first, stream=stream)
                for repeat in repeats:
                    repeat[...] = first
            finally:  # also of what was queued before an error
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


def _axis(axis: int, picture: Planes, form: Form, tables: Tables) -> int:
    source, target, canvas = picture.displayed_size[axis], form.size[axis], form.canvas[axis]
    offset = centred(form.size, form.canvas)[axis]
    return tables(
        ("axis", source, target, form.resample, "torchvision", canvas, offset),
        lambda: axis_table(source, target, form.resample, canvas=canvas, offset=offset),
    )


def _check(picture: Planes) -> None:
    """What the kernel reads lies in the planes."""
    known = 1 <= len(picture.planes) <= 3 and min(picture.width, picture.height) > 0 and picture.rotation % 90 == 0
    pitches = {plane.pitch for plane in picture.planes[1:]}
    lie = zip(picture.planes, picture.needed, strict=True)
    fits = all(p.rows >= rows and min(p.row_bytes, p.pitch) >= row_bytes for p, (rows, row_bytes) in lie)
    even = not any((p.address | p.pitch) % picture.sample_bytes for p in picture.planes)
    if not (known and fits and even and len(pitches) < 2):
        raise InvalidOptions(f"planes that do not hold {picture.width}x{picture.height}: {picture}")
