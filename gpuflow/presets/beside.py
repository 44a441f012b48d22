"""The small tensors beside an image's pixels: what they are called, their shapes, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuflow.errors import InvalidOptions
from gpuflow.presets import patches

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
