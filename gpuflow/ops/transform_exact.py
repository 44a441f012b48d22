"""The ``exact`` engine: the antialiased resize of uint8 of the library that the plan refers to, on a GPU by its tables.

Its result equals Hugging Face's processors bit for bit. That the GPU's kernel equals the CPU's route is shown by running it
on the host (``tests/kernels_host/test_views.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuflow.ops.arrange import write_view
from gpuflow.ops.beside import write_beside, write_overview, zero_rest
from gpuflow.ops.composite import flattened
from gpuflow.ops.resize import resize_planar
from gpuflow.ops.views import Job
from gpuflow.ops.views_kernel import views_kernel
from gpuflow.ops.work import Work
from gpuflow.presets.plan import ImagePlan
from gpuflow.presets.view import Levels, Size, View
from gpuflow.workers import calm_torch


class ExactTransform:
    """``Transform`` on torch, torchvision and Pillow; on a GPU by one kernel."""

    name = "exact"

    def obstacle(self) -> str | None:
        """None: torch is a dependency of the package."""
        return None

    def label(self, device: str) -> str:
        """``"exact"`` on every device."""
        return self.name

    def apply(self, works: Sequence[Work]) -> None:
        """See ``Transform``; on a GPU in one sequence of launches."""
        if works and works[0].lease.device != "cpu":
            _apply_on_gpu(works)
            return
        calm_torch()
        for work in works:
            _apply(work)


def _apply(work: Work) -> None:
    plan = work.plan
    planar = to_planar(flattened(work.picture.pixels, work.picture.background), "cpu")
    out = work.lease.tensor(work.specs[0])
    zero_rest(plan, out)
    passed: dict[Any, Any] = {}
    for view in plan.views:
        write_view(seen(planar, plan, view, passed), plan, view, out)
    write_overview(plan, out)
    write_beside(plan, work.lease, work.specs)


def _apply_on_gpu(works: Sequence[Work]) -> None:
    """Queued on torch's current stream, behind what CuPy's current one holds, and noted on the leases."""
    import cupy
    import torch

    device = torch.device(works[0].lease.device)
    with torch.cuda.device(device):
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream)
        stream.wait_event(cupy.cuda.get_current_stream().record())  # where the pictures come from
        jobs = [Job(work.picture, work.plan, work.lease.address + work.specs[0].offset) for work in works]
        try:
            views_kernel(device.index).write(jobs, stream=stream)
            for work in works:
                if work.plan.overview is not None:
                    write_overview(work.plan, work.lease.tensor(work.specs[0]))
                write_beside(work.plan, work.lease, work.specs)
        finally:  # also of what was queued before an error
            for work in works:
                work.lease.record_stream(stream)


def seen(planar: Any, plan: ImagePlan, view: View, passed: dict[Any, Any] | None = None) -> Any:
    """A view's canvas, ``(3, H, W)`` uint8, of the image ``(3, height, width)``. ``passed``: what views of the same image
    have already been resized to on their way."""
    passed = {} if passed is None else passed
    if view.box is not None:
        planar = _boxed(planar, view)
    way: tuple[Any, ...] = (view.box,)
    for size in (*view.via, view.resized):
        way = (*way, size)
        if way not in passed:
            passed[way] = resize_planar(planar, size, plan.resample, reference=plan.reference, passes=plan.passes)
        planar = passed[way]
    return placed(planar, view.canvas, view.offset, view.around)


def placed(planar: Any, canvas: Size, offset: Size, around: Levels) -> Any:
    """``(3, H, W)`` at a place of a canvas: cut off where it goes beyond it, ``around`` where it does not reach."""
    import torch

    size = tuple(planar.shape[1:])
    if (size, offset) == (canvas, (0, 0)):
        return planar
    first = [max(0, -at) for at in offset]  # of the image
    place = [max(0, at) for at in offset]  # on the canvas
    count = [max(0, min(s - f, c - p)) for s, f, c, p in zip(size, first, canvas, place, strict=True)]
    kept = planar[:, first[0] : first[0] + count[0], first[1] : first[1] + count[1]]
    if tuple(count) == canvas:
        return kept
    out = torch.empty((3, *canvas), dtype=planar.dtype, device=planar.device)
    for channel, level in enumerate(around):
        out[channel] = level
    out[:, place[0] : place[0] + count[0], place[1] : place[1] + count[1]] = kept
    return out


def to_planar(pixels: Any, device: str) -> Any:
    """``(H, W, 3)`` numpy or CuPy as a ``(3, H, W)`` torch tensor on the device; torchvision's own arrays without a copy."""
    import torch

    if not isinstance(pixels, np.ndarray):
        return torch.utils.dlpack.from_dlpack(pixels).permute(2, 0, 1)
    if any(stride < 0 for stride in pixels.strides):  # a mirrored view, which torch does not have
        pixels = np.ascontiguousarray(pixels)
    return torch.from_numpy(pixels).permute(2, 0, 1).to(device)


def _boxed(planar: Any, view: View) -> Any:
    assert view.box is not None
    top, left, height, width = view.box
    return placed(planar, (height, width), (-top, -left), view.beyond)
