"""The ``dali`` engine: DALI's dynamic mode, the same calls on the CPU and on a GPU.

It resizes in float and rounds, so it differs from the ``exact`` engine by a few levels at hard edges. Sizes are always
ours, never DALI's modes; crops are truncated, never rounded, for its default puts a crop one pixel off.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.arrange import arranged, write_grid
from gpuflow.presets.plan import ImagePlan

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

    def apply(self, pixels: Any, plan: ImagePlan, lease: Lease, specs: tuple[TensorSpec, ...]) -> None:
        """See ``Transform``."""
        if isinstance(pixels, np.ndarray):
            pixels = np.ascontiguousarray(pixels)
        if lease.device == "cpu":
            self._apply(pixels, plan, lease, specs, nullcontext())
            return
        import cupy
        import nvidia.dali.experimental.dynamic as ndd
        import torch

        device = torch.device(lease.device)
        with torch.cuda.device(device):
            stream = torch.cuda.current_stream(device)
            self._apply(pixels, plan, lease, specs, ndd.EvalContext(device_id=device.index, cuda_stream=stream))
            lease.record_stream(cupy.cuda.ExternalStream(stream.cuda_stream))

    def _apply(
        self,
        pixels: Any,
        plan: ImagePlan,
        lease: Lease,
        specs: tuple[TensorSpec, ...],
        surroundings: AbstractContextManager[Any],
    ) -> None:
        with surroundings:
            planar = _planar_numbers(pixels, plan, "cpu" if lease.device == "cpu" else "gpu")
            numbers, _ = arranged(planar, plan)
            lease.tensor(specs[0]).view(numbers.shape).copy_(numbers)
        write_grid(plan, lease, specs)


def _planar_numbers(pixels: Any, plan: ImagePlan, device: str) -> Any:
    """``(3, H, W)`` of the canvas as a torch tensor in DALI's memory: uint8 levels, or float32 where normalised."""
    import nvidia.dali.experimental.dynamic as ndd
    from nvidia.dali import types

    picture = ndd.as_tensor(pixels, layout="HWC", device=device)
    if tuple(pixels.shape[:2]) != plan.resized:
        picture = ndd.resize(
            picture,
            size=list(plan.resized),
            interp_type=getattr(types, _FILTERS[plan.resample]),
            antialias=plan.resample != "nearest",
            subpixel_scale=False,
        )
    mean, std = _statistics(plan)
    cropped = ndd.crop_mirror_normalize(
        picture,
        crop=list(plan.canvas),
        mean=mean,
        std=std,
        dtype=types.UINT8 if plan.mean is None else types.FLOAT,
        output_layout="CHW",
        rounding="truncate",
        out_of_bounds_policy="pad",
        fill_values=[-m / s for m, s in zip(mean, std, strict=True)],  # black, in the units of the result
    )
    return cropped.evaluate().torch()


def _statistics(plan: ImagePlan) -> tuple[list[float], list[float]]:
    """Mean and standard deviation in levels."""
    if plan.mean is None or plan.std is None:
        return [0.0] * 3, [1.0] * 3
    return [255.0 * value for value in plan.mean], [255.0 * value for value in plan.std]
