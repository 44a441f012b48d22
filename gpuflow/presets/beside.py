"""The small tensors beside an image's pixels: their shapes, and what is in them; ``kinds.py`` has their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuflow.presets import patches
from gpuflow.presets.kinds import KINDS
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
    """What these kinds are for a plan."""
    return tuple(Beside(KINDS[kind].name, kind, KINDS[kind].dtype, _CONTENTS[kind][0](plan)) for kind in kinds)


def values_of(beside: Beside, plan: ImagePlan) -> Any:
    """What is in it: anything that numpy makes an array of ``beside.shape`` of."""
    return _CONTENTS[beside.kind][1](plan)


def _one(plan: ImagePlan) -> tuple[int, ...]:
    return (1,)


def _two(plan: ImagePlan) -> tuple[int, ...]:
    return (1, 2)


def _three(plan: ImagePlan) -> tuple[int, ...]:
    return (1, 3)


def _rows(plan: ImagePlan) -> tuple[int, ...]:
    """Every row of ``patches_last``, those that nothing fills included."""
    return (1, plan.pixels[2][1])


def _places(plan: ImagePlan) -> tuple[int, ...]:
    return (*_rows(plan), 2)


def _tiles(plan: ImagePlan) -> tuple[int, ...]:
    return (1, plan.num_tiles, *plan.pixels[2][-2:])


def _tile_patches(plan: ImagePlan) -> tuple[int, ...]:
    return (1, plan.num_tiles, *(side // plan.patch for side in plan.pixels[2][-2:]))


_CONTENTS: dict[str, tuple[Callable[[ImagePlan], tuple[int, ...]], Callable[[ImagePlan], Any]]] = {
    "grid": (_three, lambda plan: [plan.grid]),
    "image_size": (_two, lambda plan: [plan.size]),
    "canvas_size": (_two, lambda plan: [plan.views[-1].canvas]),
    "num_images": (_one, lambda plan: [1]),
    "num_patches": (_one, lambda plan: [plan.num_tiles]),
    "aspect_ratios": (_two, lambda plan: [plan.views[0].tiles]),
    "num_img_tokens": (_one, lambda plan: [plan.num_tokens]),
    "attention_mask": (_tile_patches, attention_mask),
    "pixel_mask": (_tiles, lambda plan: 1),
    "num_crops": (_one, lambda plan: [plan.num_tiles - 1]),
    "patch_mask": (_rows, patches.mask),
    "patch_places": (_places, patches.places),
    "patch_shape": (_two, patches.shape),
    "resized_size": (_two, patches.canvas),
    "soft_tokens": (_one, patches.merged),
}
