"""The ``dali`` engine: DALI's dynamic mode, the same calls on the CPU and on a GPU.

It resizes in float and rounds, so it differs from the ``exact`` engine by a few levels at hard edges. Sizes and places
are always ours, never DALI's modes, whose rounding puts a crop one pixel off.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpuflow.ops.arrange import write_view
from gpuflow.ops.beside import write_beside, write_overview, zero_rest
from gpuflow.ops.composite import flattened
from gpuflow.ops.work import Work
from gpuflow.presets.plan import ImagePlan
from gpuflow.presets.view import Levels, Size, View

_FILTERS = {
    "nearest": "INTERP_NN",
    "bilinear": "INTERP_LINEAR",
    "bicubic": "INTERP_CUBIC",
    "lanczos": "INTERP_LANCZOS3",
}


class DaliTransform:
    """``Transform`` on ``nvidia.dali.experimental.dynamic``, one image a call: a failing one harms no other."""

    name = "dali"

    def obstacle(self) -> str | None:
        """That DALI is not installed."""
        found = all(importlib.util.find_spec(module) is not None for module in ("nvidia", "nvidia.dali"))
        return None if found else "DALI is not installed: pip install 'gpuflow[cu13]'"

    def label(self, device: str) -> str:
        """``"dali"`` on every device."""
        return self.name

    def apply(self, works: Sequence[Work]) -> None:
        """See ``Transform``; one after another, for DALI's batches are of one plan. Four channels lie on the host."""
        for work in works:
            pixels = flattened(work.picture.pixels, work.picture.background)
            if work.lease.device == "cpu":
                _write(np.ascontiguousarray(pixels), work, nullcontext())
            else:
                _write_on_gpu(pixels, work)


def _write_on_gpu(pixels: Any, work: Work) -> None:
    import cupy
    import nvidia.dali.experimental.dynamic as ndd
    import torch

    device = torch.device(work.lease.device)
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device)
        contiguous = np.ascontiguousarray if isinstance(pixels, np.ndarray) else cupy.ascontiguousarray
        surroundings = ndd.EvalContext(device_id=device.index, cuda_stream=stream)
        try:
            _write(contiguous(pixels), work, surroundings)  # a turned or cropped picture is a view
        finally:  # also of what was queued before an error
            work.lease.record_stream(cupy.cuda.ExternalStream(stream.cuda_stream))


def _write(pixels: Any, work: Work, surroundings: AbstractContextManager[Any]) -> None:
    import nvidia.dali.experimental.dynamic as ndd

    plan, out = work.plan, work.lease.tensor(work.specs[0])
    with surroundings:
        picture = ndd.as_tensor(pixels, layout="HWC", device="cpu" if work.lease.device == "cpu" else "gpu")
        zero_rest(plan, out)
        for view in plan.views:
            write_view(_levels(picture, plan, view), plan, view, out)
        write_overview(plan, out)
    write_beside(plan, work.lease, work.specs)


def _levels(picture: Any, plan: ImagePlan, view: View) -> Any:
    """A view's canvas as a ``(3, H, W)`` uint8 torch tensor in DALI's memory."""
    import nvidia.dali.experimental.dynamic as ndd
    from nvidia.dali import types

    if view.box is not None:
        top, left, height, width = view.box
        picture = _placed(picture, (height, width), (-top, -left), view.beyond)
    for size in (*view.via, view.resized):
        picture = ndd.resize(
            picture,
            size=list(size),
            interp_type=getattr(types, _FILTERS[plan.resample]),
            antialias=plan.resample != "nearest",
            subpixel_scale=False,
        )
    return _placed(picture, view.canvas, view.offset, view.around).evaluate().torch().permute(2, 0, 1)


def _placed(picture: Any, canvas: Size, offset: Size, around: Levels) -> Any:
    """At a place of a canvas: cut off where it goes beyond it, ``around`` where it does not reach."""
    import nvidia.dali.experimental.dynamic as ndd

    return ndd.slice(
        picture,
        [-offset[0], -offset[1]],
        list(canvas),
        axes=[0, 1],
        normalized_anchor=False,
        normalized_shape=False,
        out_of_bounds_policy="pad",
        fill_values=[float(level) for level in around],
    )
