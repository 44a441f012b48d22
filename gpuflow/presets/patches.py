"""What the small tensors beside the patches of one image hold; in ``patches_last`` rows may follow that nothing fills."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gpuflow.presets.plan import ImagePlan


def shape(plan: ImagePlan) -> list[tuple[int, int]]:
    """Patches down and across."""
    _, rows, columns = _grid(plan)
    return [(rows, columns)]


def canvas(plan: ImagePlan) -> list[tuple[int, int]]:
    """Height and width of the image as it is seen."""
    return [plan.views[0].canvas]


def merged(plan: ImagePlan) -> list[int]:
    """How many squares of ``merge * merge`` patches there are."""
    return [math.prod(_grid(plan)) // plan.merge**2]


def mask(plan: ImagePlan) -> NDArray[Any]:
    """``(1, rows)``: 1 where there is a patch."""
    return (np.arange(plan.pixels[2][1]) < math.prod(_grid(plan)))[None]


def places(plan: ImagePlan) -> NDArray[Any]:
    """``(1, rows, 2)``: across and down, -1 where there is no patch."""
    _, down, across = _grid(plan)
    found = np.full((1, plan.pixels[2][1], 2), -1)
    found[0, : down * across, 0] = np.tile(np.arange(across), down)
    found[0, : down * across, 1] = np.repeat(np.arange(down), across)
    return found


def _grid(plan: ImagePlan) -> tuple[int, int, int]:
    assert plan.grid is not None
    return plan.grid
