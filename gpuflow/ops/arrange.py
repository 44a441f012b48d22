"""From channels, rows and columns to the layout that is asked for, as views; and from levels to numbers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpuflow.ops.frames import bfloat16_bits
from gpuflow.presets.plan import ImagePlan
from gpuflow.presets.view import View


def arranged(planar: Any, plan: ImagePlan) -> tuple[Any, int]:
    """A ``(3, H, W)`` torch tensor seen in the plan's layout, and which axis the channels are. Nothing is copied.

    ``"patches"``: ``(rows / m, columns / m, m, m, 3, p, p)``; ``"patches_last"``: ``(rows, columns, p, p, 3)``.
    """
    if plan.layout == "CHW":
        return planar, 0
    if plan.layout == "HWC":
        return planar.permute(1, 2, 0), 2
    side, merge = plan.patch, plan.merge
    height, width = planar.shape[1:]
    if plan.layout == "patches_last":
        return planar.reshape(3, height // side, side, width // side, side).permute(1, 3, 2, 4, 0), 4
    blocks = planar.reshape(3, height // side // merge, merge, side, width // side // merge, merge, side)
    return blocks.permute(1, 4, 2, 5, 0, 3, 6), 4


def view_places(pixels: Any, plan: ImagePlan, view: View) -> list[Any]:
    """Where a view's levels lie in the pixels, a torch tensor of the plan's shape: one place for each repeat in time, of
    the shape that ``arranged`` gives, or ``(rows, columns, 3, H, W)`` of tiles."""
    if plan.layout == "HWC":
        return [pixels]
    if plan.layout == "CHW":
        height, width = view.tile or view.canvas
        tiles = pixels.view(-1, 3, height, width)[view.first : view.first + view.num_tiles]
        return [tiles.view(*view.tiles, 3, height, width) if view.tile else tiles[0]]
    if plan.layout == "patches_last":
        rows, columns = (side // plan.patch for side in view.canvas)
        rows_of_patches = pixels.view(-1, pixels.shape[-1])[: rows * columns]
        return [rows_of_patches.view(rows, columns, plan.patch, plan.patch, 3)]
    return [frame_place(pixels, plan, number) for number in range(plan.temporal_patch)]


def write_view(planar: Any, plan: ImagePlan, view: View, pixels: Any) -> None:
    """Write a view's canvas, ``(3, H, W)`` uint8 levels, to its places in the pixels, normalised."""
    first, *repeats = view_places(pixels, plan, view)
    if view.tile:
        down, across = view.tiles
        levels = planar.reshape(3, down, view.tile[0], across, view.tile[1]).permute(1, 3, 0, 2, 4)
        _write(levels, 2, plan, first)
    else:
        _write(*arranged(planar, plan), plan, first)
    for repeat in repeats:
        repeat.copy_(first)


def frame_place(out: Any, plan: ImagePlan, number: int) -> Any:
    """Where frame ``number`` of a clip lies in the pixels of its plan: a view of ``out``, ``(3, H, W)`` or, of patches,
    ``(rows / m, columns / m, m, m, 3, p, p)``."""
    if plan.grid is None:
        return out.view(plan.num_frames, 3, *plan.views[0].canvas)[number]
    (times, rows, columns), merge, side = plan.grid, plan.merge, plan.patch
    blocks = out.view(times, rows // merge, columns // merge, merge, merge, 3, plan.temporal_patch, side, side)
    return blocks[number // plan.temporal_patch, :, :, :, :, :, number % plan.temporal_patch]


def write_frame(planar: Any, plan: ImagePlan, place: Any) -> None:
    """Write a frame, ``(3, H, W)`` uint8 levels on the plan's canvas, to its ``frame_place``, normalised alike."""
    _write(*arranged(planar, plan), plan, place)


def numbers(plan: ImagePlan) -> Any:
    """``(3, 256)`` in the type of the pixels, bfloat16 as its bits: what each level of each channel becomes; ``None``
    where levels stay as they are. Computed as Hugging Face's processors do, rounded to nearest at the end."""
    if plan.dtype == "uint8":
        return None
    return _numbers(plan.dtype, plan.normalization, plan.mean, plan.std)


@functools.lru_cache(maxsize=64)
def _numbers(dtype: str, normalization: str, mean: Any, std: Any) -> Any:
    values = _normalised(normalization, mean, std)
    if dtype == "bfloat16":
        return bfloat16_bits(values)
    with np.errstate(over="ignore"):  # a level that float16 does not reach is infinite, as in torch
        return values.astype(dtype)


def _normalised(normalization: str, mean: Any, std: Any) -> Any:
    levels = np.broadcast_to(np.arange(256, dtype=np.float32), (3, 256))
    if normalization == "scale":
        return levels * np.float32(1 / 255)
    if normalization == "bfloat16":
        return _in_bfloat16(levels, mean, std)
    if normalization == "two_steps":
        rescaled = (levels.astype(np.float64) * (1 / 255)).astype(np.float32)
        at, by = (np.array(part, np.float32)[:, None] for part in (mean, std))
        return (rescaled - at) / by
    scaled = (np.array(part, np.float32)[:, None] * np.float32(255) for part in (mean, std))
    return np.ascontiguousarray((levels - next(scaled)) / next(scaled))


def _in_bfloat16(levels: Any, mean: Any, std: Any) -> Any:
    """Source: Llama 4's processor, every step of which rounds to bfloat16."""
    import torch

    values = torch.from_numpy(np.array(levels)).to(torch.bfloat16) * (1 / 255)
    at, by = (torch.tensor(part, dtype=torch.bfloat16)[:, None] for part in (mean, std))
    return ((values - at) / by).float().numpy()


def _write(levels: Any, channel: int, plan: ImagePlan, out: Any) -> None:
    import torch

    if plan.dtype == "uint8":
        out.copy_(levels)
        return
    shape = [3 if axis == channel else 1 for axis in range(levels.ndim)]
    if plan.normalization != "fused":
        _look_up(levels, channel, plan, out)
        return
    mean, std = (
        (torch.tensor(values, dtype=torch.float32) * 255.0).view(shape).to(out.device)
        for values in (plan.mean, plan.std)
    )
    if out.dtype == torch.float32:
        torch.sub(levels, mean, out=out)
        out.div_(std)
    else:
        out.copy_(levels.sub(mean).div_(std))


def _look_up(levels: Any, channel: int, plan: ImagePlan, out: Any) -> None:
    import torch

    table = torch.from_numpy(_normalised(plan.normalization, plan.mean, plan.std)).to(out.device, out.dtype)
    for one in range(3):
        out.select(channel, one).copy_(table[one][levels.select(channel, one).long()])
