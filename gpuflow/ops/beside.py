"""What stands beside the views of an image: small tensors, zeros where nothing lies, and the overview of Phi-4."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.arrange import numbers
from gpuflow.presets.beside import values_of
from gpuflow.presets.plan import ImagePlan


def write_beside(plan: ImagePlan, lease: Lease, specs: tuple[TensorSpec, ...]) -> None:
    """Write the small tensors to ``specs[1:]`` of the lease; blocking on the CPU, queued on torch's stream on a GPU."""
    import numpy as np
    import torch

    for beside, spec in zip(plan.beside, specs[1:], strict=True):
        values = np.broadcast_to(np.asarray(values_of(beside, plan), beside.dtype), beside.shape).copy()
        lease.tensor(spec).copy_(torch.from_numpy(values))


def zero_rest(plan: ImagePlan, pixels: Any) -> None:
    """Zero the rows of patches that no view fills."""
    if plan.layout == "patches_last" and plan.grid is not None:
        pixels.view(-1, pixels.shape[-1])[math.prod(plan.grid) :].zero_()


def write_overview(plan: ImagePlan, pixels: Any) -> None:
    """Write the first tile from the normalised canvas of the last view, rounded once where the pixels are of 16 bits.

    Source: Phi-4-multimodal's processor.
    """
    if plan.overview is None:
        return
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    view = plan.views[-1]
    height, width = view.tile or view.canvas
    tiles = pixels.view(-1, 3, height, width)
    down, across = view.tiles
    whole = tiles[view.first : view.first + view.num_tiles].view(down, across, 3, height, width)
    canvas = _widened(whole.permute(2, 0, 3, 1, 4).reshape(3, *view.canvas), plan)
    tiles[0].copy_(
        functional.resize(canvas, list(plan.overview), interpolation=InterpolationMode.BICUBIC, antialias=False)
    )


def _widened(canvas: Any, plan: ImagePlan) -> Any:
    """``(3, H, W)`` of 16 bits as the float32 that was rounded to them: each is one of 256 numbers."""
    import torch

    if plan.dtype in ("uint8", "float32"):
        return canvas
    exact = torch.from_numpy(numbers(replace(plan, pixels=(plan.pixels[0], "float32", plan.pixels[2]))))
    exact = exact.to(canvas.device)
    rounded = exact.to(canvas.dtype).float()
    return torch.stack(
        [
            row[torch.searchsorted(of, of_canvas.float().contiguous())]
            for row, of, of_canvas in zip(exact, rounded, canvas, strict=True)
        ]
    )
