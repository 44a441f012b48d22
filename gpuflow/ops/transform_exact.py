"""The ``exact`` engine: torchvision's antialiased resize of uint8, as Hugging Face's processors call it.

On the CPU its result equals theirs bit for bit. On a GPU torch resizes in float32, which differs by a few levels at
hard edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.arrange import write_grid, write_numbers
from gpuflow.ops.resize import resize_planar
from gpuflow.presets.plan import ImagePlan
from gpuflow.workers import calm_torch


class ExactTransform:
    """``Transform`` on torch and torchvision."""

    name = "exact"

    def obstacle(self) -> str | None:
        """None: torch is a dependency of the package."""
        return None

    def label(self, device: str) -> str:
        """``"exact"``, and what it is on a GPU."""
        return self.name if device == "cpu" else "torch-float32"

    def apply(self, pixels: Any, plan: ImagePlan, lease: Lease, specs: tuple[TensorSpec, ...]) -> None:
        """See ``Transform``."""
        if lease.device == "cpu":
            calm_torch()
            self._apply(to_planar(pixels, "cpu"), plan, lease, specs)
            return
        import cupy
        import torch

        device = torch.device(lease.device)
        with torch.cuda.device(device):
            self._apply(to_planar(pixels, lease.device), plan, lease, specs)
            lease.record_stream(cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream))

    def _apply(self, planar: Any, plan: ImagePlan, lease: Lease, specs: tuple[TensorSpec, ...]) -> None:
        resized = resize_planar(planar, plan.resized, plan.resample)
        write_numbers(crop_or_pad(resized, plan.canvas), plan, lease.tensor(specs[0]))
        write_grid(plan, lease, specs)


def to_planar(pixels: Any, device: str) -> Any:
    """``(H, W, 3)`` numpy or CuPy as a ``(3, H, W)`` torch tensor on the device; torchvision's own arrays without a copy."""
    import torch

    if not isinstance(pixels, np.ndarray):
        return torch.utils.dlpack.from_dlpack(pixels).permute(2, 0, 1)
    if any(stride < 0 for stride in pixels.strides):  # a mirrored view, which torch does not have
        pixels = np.ascontiguousarray(pixels)
    return torch.from_numpy(pixels).permute(2, 0, 1).to(device)


def crop_or_pad(planar: Any, canvas: tuple[int, int]) -> Any:
    """Centre ``(3, H, W)`` on the canvas: black around it where it is smaller, cut off where it is larger.

    Odd remainders lie as in Hugging Face's ``center_crop``: the smaller half before the image.
    """
    import torch

    height, width = planar.shape[1:]
    if (height, width) == canvas:
        return planar
    missing = [max(0, canvas[0] - height), max(0, canvas[1] - width)]
    if any(missing):
        top, left = missing[0] // 2, missing[1] // 2
        planar = torch.nn.functional.pad(planar, (left, missing[1] - left, top, missing[0] - top))
        height, width = planar.shape[1:]
    top, left = (height - canvas[0]) // 2, (width - canvas[1]) // 2
    return planar[:, top : top + canvas[0], left : left + canvas[1]]
