"""The small tensors beside an image's pixels: what they are called, their shapes, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuflow.errors import InvalidOptions

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
}
