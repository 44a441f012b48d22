"""Antialiased resize of uint8: torchvision's, which Hugging Face's processors use, or Pillow's."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuflow.config import Resample
from gpuflow.presets.image import Passes, Reference
from gpuflow.workers import calm_torch


def resize_rgb(frame: Any, size: tuple[int, int], resample: Resample) -> Any:
    """``(H, W, 3)`` uint8 to ``(*size, 3)`` uint8: numpy stays numpy, CuPy stays CuPy on its current stream."""
    if frame.shape[:2] == size:
        return frame
    import torch

    if isinstance(frame, np.ndarray):
        calm_torch()
        return resize_planar(torch.from_numpy(frame).permute(2, 0, 1), size, resample).permute(1, 2, 0).numpy()
    import cupy

    stream = torch.cuda.ExternalStream(cupy.cuda.get_current_stream().ptr)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        planar = torch.utils.dlpack.from_dlpack(frame).permute(2, 0, 1)
        return cupy.from_dlpack(resize_planar(planar, size, resample).permute(1, 2, 0))


def resize_planar(
    planar: Any,
    size: tuple[int, int],
    resample: Resample,
    *,
    reference: Reference = "torchvision",
    passes: Passes = "horizontal_first",
) -> Any:
    """``(3, H, W)`` uint8 torch tensor to ``(3, *size)``, on its device; what torchvision lacks by Pillow, on the host."""
    if tuple(planar.shape[1:]) == size:
        return planar
    if reference == "pillow" or resample == "lanczos":
        return _by_pillow(planar, size, resample, passes)
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    mode = {
        "nearest": InterpolationMode.NEAREST_EXACT,
        "bilinear": InterpolationMode.BILINEAR,
        "bicubic": InterpolationMode.BICUBIC,
    }[resample]
    # As it lies: interleaved, as decoders write, it is resized in 2.9 ms where planar takes 4.7 and 1.1 to get there
    # (1920x1080 to 336, two cores); the result is the same
    return functional.resize(planar, list(size), interpolation=mode, antialias=True)


def vertical_first(height: int, width: int, size: tuple[int, int], passes: Passes) -> bool:
    """Whether rows are made before columns. Pillow's rule is that of Pillow 13, found by its results: 5,895 random sizes
    of 2 to 600 pixels; before it, columns were always first."""
    if passes != "pillow":
        return passes == "vertical_first"
    return height - size[0] > max(0, 2 * (width - size[1]))


def _by_pillow(planar: Any, size: tuple[int, int], resample: Resample, passes: Passes) -> Any:
    """One pass at a time, so that every release of Pillow gives the same."""
    import torch
    from PIL import Image

    height, width = planar.shape[1:]
    picture = Image.fromarray(planar.permute(1, 2, 0).contiguous().cpu().numpy())
    steps = (
        ((width, size[0]), (size[1], size[0]))
        if vertical_first(height, width, size, passes)
        else ((size[1], height), (size[1], size[0]))
    )
    for step in steps:
        picture = picture.resize(step, getattr(Image.Resampling, resample.upper()))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(planar.device)
