"""From channels, rows and columns to the layout that is asked for, as views; and from levels to numbers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpuflow.ops.frames import bfloat16_bits
from gpuflow.presets.plan import ImagePlan
from gpuflow.presets.view import View


def arranged(planar: Any, plan: ImagePlan) -> Any:
    """A ``(3, H, W)`` torch tensor seen in the plan's layout. Nothing is copied.

    ``"patches"``: ``(rows / m, columns / m, m, m, 3, p, p)``; ``"patches_last"``: ``(rows, columns, p, p, 3)``.
    """
    if plan.layout == "CHW":
        return planar
    if plan.layout == "HWC":
        return planar.permute(1, 2, 0)
    side, merge = plan.patch, plan.merge
    height, width = planar.shape[1:]
    if plan.layout == "patches_last":
        return planar.reshape(3, height // side, side, width // side, side).permute(1, 3, 2, 4, 0)
    blocks = planar.reshape(3, height // side // merge, merge, side, width // side // merge, merge, side)
    return blocks.permute(1, 4, 2, 5, 0, 3, 6)


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
    places = view_places(pixels, plan, view)
    if plan.layout == "CHW" and not view.tile:
        _write(planar, plan, places[0])
        return
    values = planar if plan.dtype == "uint8" else _normalise(planar, plan)  # once, whatever the places are
    levels = _in_tiles(values, view) if view.tile else arranged(values, plan)
    if plan.layout == "patches":  # all repeats at once: 1.0 ms where one after another takes 1.2 (504x364, one core)
        (_, rows, columns), merge, side = plan.grid or (1, 0, 0), plan.merge, plan.patch
        blocks = pixels.view(rows // merge, columns // merge, merge, merge, 3, plan.temporal_patch, side, side)
        blocks.copy_(levels.unsqueeze(5).expand_as(blocks))
        return
    for place in places:
        place.copy_(levels)


def _in_tiles(planar: Any, view: View) -> Any:
    """``(rows, columns, 3, H, W)``."""
    (down, across), (height, width) = view.tiles, view.tile or view.canvas
    return planar.reshape(3, down, height, across, width).permute(1, 3, 0, 2, 4)


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
    if plan.layout == "CHW":
        _write(planar, plan, place)
    else:
        place.copy_(arranged(planar if plan.dtype == "uint8" else _normalise(planar, plan), plan))


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


def _write(planar: Any, plan: ImagePlan, out: Any) -> None:
    import torch

    if plan.dtype == "uint8":
        out.copy_(planar)
    elif out.dtype == torch.float32:
        _normalise(planar, plan, out)
    else:
        out.copy_(_normalise(planar, plan))


def _normalise(planar: Any, plan: ImagePlan, out: Any = None) -> Any:
    """``(3, H, W)`` float32 of uint8 levels, as Hugging Face's torchvision backend computes it.

    Copied first: torch subtracts in one type in 0.21 ms what it takes 0.27 for in two (336x336, one core)."""
    import torch

    values = torch.empty(planar.shape, dtype=torch.float32, device=planar.device) if out is None else out
    if plan.normalization in ("bfloat16", "two_steps"):
        return values.copy_(_looked_up(planar, plan))
    values.copy_(planar)
    if plan.normalization == "scale":
        return values.mul_(1 / 255)
    return values.sub_(_in_levels(plan.mean, values.device)).div_(_in_levels(plan.std, values.device))


@functools.lru_cache(maxsize=64)
def _in_levels(values: Any, device: Any) -> Any:
    import torch

    return (torch.tensor(values, dtype=torch.float32) * 255.0).view(3, 1, 1).to(device)


def _looked_up(planar: Any, plan: ImagePlan) -> Any:
    import torch

    table = torch.from_numpy(_normalised(plan.normalization, plan.mean, plan.std)).to(planar.device)
    return torch.stack([table[channel][planar[channel].int()] for channel in range(3)])
