"""Pictures on the host and on a GPU through copies, tables and the kernel to their places, the kernel on the host.

What is between them and a GPU is wiring only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.codecs.orientation import oriented
from gpuflow.ops import tables
from gpuflow.ops.views import Job, Picture
from gpuflow.ops.views_kernel import ViewsKernel, views_kernel
from gpuflow.presets.view import View
from tests.kernels_host.check_image_views import noise, plan_of, wanted
from tests.kernels_host.cupy_wiring_only import Array

SMALL = plan_of((View((9, 12), (9, 12)),), "HWC")


def _stored(kind: str) -> NDArray[np.uint8]:
    if kind == "planar":
        return np.ascontiguousarray(noise(20, 30).transpose(2, 0, 1)).transpose(1, 2, 0)
    if kind == "a part of a larger picture":
        return noise(40, 50, 4)[10:30, 5:35, :3]
    turned: NDArray[np.uint8] = oriented(noise(20, 30, 4), int(kind))
    return turned


@pytest.mark.parametrize("kind", ["1", "2", "3", "4", "5", "6", "7", "8", "planar", "a part of a larger picture"])
@pytest.mark.parametrize("where", ["host", "device"])
def test_a_picture_is_the_same_from_the_host_and_from_a_gpu_wiring_only(kind: str, where: str, cupy: Any) -> None:
    pixels = _stored(kind)
    given = pixels if where == "host" else pixels.view(Array)
    out, stream = np.zeros((9, 12, 3), np.uint8), cupy.cuda.Stream.ptds
    views_kernel(0).write([Job(Picture(given, (1, 2, 3)), SMALL, out.ctypes.data)], stream=stream)
    np.testing.assert_array_equal(out, next(wanted([(Picture(pixels, (1, 2, 3)), SMALL)])))
    assert stream.queued == (1 if where == "host" else 0)


def test_a_batch_is_one_launch_and_what_was_copied_is_waited_for_wiring_only(cupy: Any) -> None:
    stream = cupy.cuda.Stream.ptds
    pictures = [Picture(noise(20 + number, 30, seed=number)) for number in range(5)]
    outs = [np.zeros((9, 12, 3), np.uint8) for _ in pictures]
    jobs = [Job(picture, SMALL, out.ctypes.data) for picture, out in zip(pictures, outs, strict=True)]
    ViewsKernel(0).write(jobs, stream=stream)
    for out, expected in zip(outs, wanted([(picture, SMALL) for picture in pictures]), strict=True):
        np.testing.assert_array_equal(out, expected)
    assert len(cupy.launched) == 1
    assert [event.after for event in stream.recorded if event.synchronized] == [5]
    assert stream.awaited, "tables come on a stream of their own"


def test_rows_that_no_view_fills_become_zeros_wiring_only(cupy: Any) -> None:
    plan = plan_of((View((8, 12), (8, 12)),), "patches_last", "float32", patch=4)
    longer = replace(plan, pixels=("pixels", "float32", (1, 10, 48)))
    out, picture = np.full((1, 10, 48), 77, np.float32), Picture(noise(20, 30))
    ViewsKernel(0).write([Job(picture, longer, out.ctypes.data)], stream=cupy.cuda.Stream.ptds)
    np.testing.assert_array_equal(out[0, :6], next(wanted([(picture, plan)])))
    assert not out[0, 6:].any()


def test_tables_of_many_sizes_do_not_pile_up_wiring_only(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 10_000)
    kernel, out = ViewsKernel(0), np.zeros((9, 12, 3), np.uint8)
    for width in range(200, 240):
        picture = Picture(noise(9, width))
        kernel.write([Job(picture, SMALL, out.ctypes.data)], stream=cupy.cuda.Stream.ptds)
        np.testing.assert_array_equal(out, next(wanted([(picture, SMALL)])))
        assert tables.device_tables(0).nbytes < 20_000
