"""From channels, rows and columns to the layout that is asked for, as views; and from levels to numbers."""

from __future__ import annotations

from typing import Any

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.presets.plan import ImagePlan


def arranged(planar: Any, plan: ImagePlan) -> tuple[Any, int]:
    """A ``(3, H, W)`` torch tensor seen in the plan's layout, and which axis the channels are. Nothing is copied.

    Patches: ``(rows / m, columns / m, m, m, 3, t, p, p)``, the picture repeated ``t`` times.
    """
    if plan.layout == "CHW":
        return planar, 0
    if plan.layout == "HWC":
        return planar.permute(1, 2, 0), 2
    side, merge = plan.patch, plan.merge
    height, width = plan.canvas
    blocks = planar.reshape(3, height // side // merge, merge, side, width // side // merge, merge, side)
    blocks = blocks.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
    return blocks.expand(-1, -1, -1, -1, -1, plan.temporal_patch, -1, -1), 4


def write_numbers(planar: Any, plan: ImagePlan, out: Any) -> None:
    """Write ``(3, H, W)`` uint8 levels to ``out``, a torch tensor of the plan's shape, in one pass.

    Normalised as Hugging Face's torchvision backend does, in float32: ``(level - 255 * mean) / (255 * std)``.
    """
    levels, channel = arranged(planar, plan)
    _write(levels, channel, plan, out.view(levels.shape))


def frame_place(out: Any, plan: ImagePlan, number: int) -> Any:
    """Where frame ``number`` of a clip lies in the pixels of its plan: a view of ``out``, ``(3, H, W)`` or, of patches,
    ``(rows / m, columns / m, m, m, 3, p, p)``."""
    if plan.grid is None:
        return out.view(plan.num_frames, 3, *plan.canvas)[number]
    (times, rows, columns), merge, side = plan.grid, plan.merge, plan.patch
    blocks = out.view(times, rows // merge, columns // merge, merge, merge, 3, plan.temporal_patch, side, side)
    return blocks[number // plan.temporal_patch, :, :, :, :, :, number % plan.temporal_patch]


def write_frame(planar: Any, plan: ImagePlan, place: Any) -> None:
    """Write a frame, ``(3, H, W)`` uint8 levels on the plan's canvas, to its ``frame_place``, normalised alike."""
    if plan.grid is None:
        _write(planar, 0, plan, place)
        return
    height, width = plan.canvas
    side, merge = plan.patch, plan.merge
    blocks = planar.reshape(3, height // side // merge, merge, side, width // side // merge, merge, side)
    _write(blocks.permute(1, 4, 2, 5, 0, 3, 6), 4, plan, place)


def _write(levels: Any, channel: int, plan: ImagePlan, out: Any) -> None:
    import torch

    if plan.mean is None or plan.std is None:
        out.copy_(levels)
        return
    shape = [3 if axis == channel else 1 for axis in range(levels.ndim)]
    mean, std = (
        (torch.tensor(values, dtype=torch.float32) * 255.0).view(shape).to(out.device)
        for values in (plan.mean, plan.std)
    )
    if out.dtype == torch.float32:
        torch.sub(levels, mean, out=out)
        out.div_(std)
    else:
        out.copy_(levels.sub(mean).div_(std))


def write_grid(plan: ImagePlan, lease: Lease, specs: tuple[TensorSpec, ...]) -> None:
    """Write what stands beside the pixels: the grid of patches."""
    import torch

    for spec in specs[1:]:
        lease.tensor(spec).copy_(torch.tensor([plan.grid], dtype=torch.int64))
