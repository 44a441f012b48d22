"""What `video/picture` must do, small and exact: every kind of plane, rotation, layout and type, tiles and stages that
do not divide anything, supports wider than a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from gpuflow.ops.form import Form
from gpuflow.ops.kernels import Launch
from gpuflow.ops.picture import launch
from gpuflow.ops.tiling import shared_bytes
from tests.kernels_host.building import HostTables
from tests.kernels_host.pictures import KINDS, Drawn, arranged, draw, resized, rounded_rgb

_HALF = ((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
_QWEN = Form(
    (12, 24), layout="patches", dtype="bfloat16", mean=_HALF[0], std=_HALF[1], patch=3, merge=2, temporal_patch=2
)
FORMS = (
    Form((9, 13), resample="bilinear"),
    Form((40, 37), layout="CHW", dtype="float16", mean=_HALF[0], std=_HALF[1]),
    _QWEN,
    Form((7, 20), canvas=(12, 11), layout="CHW", dtype="float32"),
    Form((1, 1)),
)
SIZES = ((30, 41), (1, 1), (3, 50))


def check(run: Callable[[Launch], None]) -> None:
    """Raise ``AssertionError`` unless ``run`` does what the kernel's header says."""
    for seed, (drawn, form) in enumerate(_cases()):
        expect(run, drawn, form, tile=(8, 32) if seed % 3 else (5, 3), stage=(32, 128) if seed % 2 else (4, 9))


def expect(
    run: Callable[[Launch], None],
    drawn: Drawn,
    form: Form,
    *,
    tile: tuple[int, int] | None = None,
    stage: tuple[int, int] = (32, 128),
) -> None:
    """Run one picture into a tensor of three and compare all of it."""
    tensor = np.full(form.shape(3), 77, form.dtype if form.dtype != "bfloat16" else "uint16")
    expected = tensor.copy()
    place, tables = form.place(tensor, 1), HostTables()  # which the launch has addresses of
    planned = launch(drawn.planes, form, int(place.ctypes.data), place.strides, tables)
    if tile is not None and planned.shared_bytes:
        planned = _tiled(planned, form, tile, stage)
    run(planned)
    form.place(expected, 1)[...] = arranged(resized(rounded_rgb(drawn), form), form)
    np.testing.assert_array_equal(tensor.view(np.uint8), expected.view(np.uint8), f"{drawn.planes} {form}")


def _cases() -> Iterator[tuple[Drawn, Form]]:
    for number, kind in enumerate(KINDS):
        size = SIZES[number % len(SIZES)]
        drawn = draw(
            kind, size, rotation=90 * number % 360, full=number % 2 == 0, mirrored=number % 3 == 1, seed=number
        )
        yield drawn, Form(drawn.planes.displayed_size)
        yield drawn, FORMS[number % len(FORMS)]
    for number, form in enumerate(FORMS):
        yield draw("nv12", (30, 41), rotation=90 * number % 360, mirrored=number > 2), form
        yield draw("p010", (41, 30), rotation=90 * number % 360), form


def _tiled(planned: Launch, form: Form, tile: tuple[int, int], stage: tuple[int, int]) -> Launch:
    return replace(
        planned,
        grid=(-(-form.canvas[1] // tile[1]), -(-form.canvas[0] // tile[0])),
        arguments=(*planned.arguments[:-4], *map(np.int32, (*tile, *stage))),
        shared_bytes=shared_bytes(tile, stage),
    )
