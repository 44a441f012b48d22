"""The small tensors beside an image's pixels: what they are called, their shapes, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuflow.errors import InvalidOptions
from gpuflow.presets import patches
from gpuflow.presets.tile_tokens import attention_mask

if TYPE_CHECKING:
    from gpuflow.presets.plan import ImagePlan


@dataclass(frozen=True, slots=True)
class Beside:
    """A small tensor; ``kind`` is the key of what is in it."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]


def beside_of(kinds: tuple[str, ...], plan: ImagePlan) -> tuple[Beside, ...]:
    """What these kinds are for a plan.

    Raises:
        InvalidOptions: no such kind.
    """
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise InvalidOptions(f"beside the pixels there are {', '.join(_KINDS)}; got {unknown[0]!r}")
    return tuple(_KINDS[kind][0](plan) for kind in kinds)


def values_of(beside: Beside, plan: ImagePlan) -> Any:
    """What is in it: anything that numpy makes an array of ``beside.shape`` of."""
    return _KINDS[beside.kind][1](plan)


_KINDS: dict[str, tuple[Callable[[ImagePlan], Beside], Callable[[ImagePlan], Any]]] = {
    "grid": (lambda plan: Beside("image_grid_thw", "grid", "int64", (1, 3)), lambda plan: [plan.grid]),
    "image_size": (lambda plan: Beside("image_sizes", "image_size", "int64", (1, 2)), lambda plan: [plan.size]),
    "canvas_size": (
        lambda plan: Beside("image_sizes", "canvas_size", "int64", (1, 2)),
        lambda plan: [plan.views[-1].canvas],
    ),
    "num_images": (lambda plan: Beside("batch_num_images", "num_images", "int64", (1,)), lambda plan: [1]),
    "num_patches": (lambda plan: Beside("num_patches", "num_patches", "int64", (1,)), lambda plan: [plan.num_tiles]),
    "aspect_ratios": (
        lambda plan: Beside("aspect_ratios", "aspect_ratios", "int64", (1, 2)),
        lambda plan: [plan.views[0].tiles],
    ),
    "num_img_tokens": (
        lambda plan: Beside("num_img_tokens", "num_img_tokens", "int64", (1,)),
        lambda plan: [plan.num_tokens],
    ),
    "attention_mask": (
        lambda plan: Beside(
            "image_attention_mask",
            "attention_mask",
            "float32",
            (1, plan.num_tiles, *(side // plan.patch for side in plan.pixels[2][-2:])),
        ),
        attention_mask,
    ),
    "pixel_mask": (
        lambda plan: Beside("pixel_attention_mask", "pixel_mask", "int64", (1, plan.num_tiles, *plan.pixels[2][-2:])),
        lambda plan: 1,
    ),
    "num_crops": (lambda plan: Beside("num_crops", "num_crops", "int64", (1,)), lambda plan: [plan.num_tiles - 1]),
    "patch_mask": (lambda plan: _of_patches("pixel_attention_mask", "patch_mask", "int32", plan), patches.mask),
    "patch_places": (lambda plan: _of_patches("image_position_ids", "patch_places", "int64", plan, 2), patches.places),
    "patch_shape": (lambda plan: Beside("spatial_shapes", "patch_shape", "int64", (1, 2)), patches.shape),
    "resized_size": (lambda plan: Beside("image_sizes", "resized_size", "int64", (1, 2)), patches.canvas),
    "soft_tokens": (lambda plan: Beside("num_soft_tokens_per_image", "soft_tokens", "int64", (1,)), patches.merged),
}


def _of_patches(name: str, kind: str, dtype: str, plan: ImagePlan, *each: int) -> Beside:
    """Something of every row of ``patches_last``, those that nothing fills included."""
    return Beside(name, kind, dtype, (1, plan.pixels[2][1], *each))
