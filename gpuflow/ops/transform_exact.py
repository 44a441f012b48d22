"""The ``exact`` engine on the CPU: the antialiased resize of uint8 of the library that the plan refers to.

Its result equals Hugging Face's processors bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.arrange import write_view
from gpuflow.ops.beside import write_beside, write_overview, zero_rest
from gpuflow.ops.resize import resize_planar
from gpuflow.presets.plan import ImagePlan
from gpuflow.presets.view import Levels, Size, View
from gpuflow.workers import calm_torch


class ExactTransform:
    """``Transform`` on torch and torchvision."""

    name = "exact"

    def obstacle(self) -> str | None:
        """None: torch is a dependency of the package."""
        return None

    def label(self, device: str) -> str:
        """``"exact"``, and what it is on a GPU."""
        return self.name if device == "cpu" else "torch-float32"

    def apply(self, pixels: Any, plan: ImagePlan, lease: Lease, specs: tuple[TensorSpec, ...]) -> None:
        """See ``Transform``."""
        if lease.device == "cpu":
            calm_torch()
            self._apply(to_planar(pixels, "cpu"), plan, lease, specs)
            return
        import cupy
        import torch

        device = torch.device(lease.device)
        with torch.cuda.device(device):
            self._apply(to_planar(pixels, lease.device), plan, lease, specs)
            lease.record_stream(cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream))

    def _apply(self, planar: Any, plan: ImagePlan, lease: Lease, specs: tuple[TensorSpec, ...]) -> None:
        out = lease.tensor(specs[0])
        zero_rest(plan, out)
        passed: dict[Any, Any] = {}
        for view in plan.views:
            write_view(seen(planar, plan, view, passed), plan, view, out)
        write_overview(plan, out)
        write_beside(plan, lease, specs)


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
