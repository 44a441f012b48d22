"""Resize one RGB frame, antialiased: torchvision's uint8 resize, which Hugging Face's processors use."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuflow.config import Resample
from gpuflow.workers import calm_torch


def resize_rgb(frame: Any, size: tuple[int, int], resample: Resample) -> Any:
    """``(H, W, 3)`` uint8 to ``(*size, 3)`` uint8: numpy stays numpy, CuPy stays CuPy on its current stream.

    Lanczos, which torchvision does not have for tensors, is Pillow's, on the host.
    """
    if frame.shape[:2] == size:
        return frame
    if resample == "lanczos":
        return _by_pillow(frame, size)
    if isinstance(frame, np.ndarray):
        import torch

        calm_torch()
        return _by_torchvision(torch.from_numpy(frame), size, resample).numpy()
    import cupy
    import torch

    stream = torch.cuda.ExternalStream(cupy.cuda.get_current_stream().ptr)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        return cupy.from_dlpack(_by_torchvision(torch.utils.dlpack.from_dlpack(frame), size, resample))


def _by_torchvision(frame: Any, size: tuple[int, int], resample: Resample) -> Any:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    modes = {
        "nearest": InterpolationMode.NEAREST_EXACT,
        "bilinear": InterpolationMode.BILINEAR,
        "bicubic": InterpolationMode.BICUBIC,
    }
    planar = frame.permute(2, 0, 1).contiguous()
    return functional.resize(planar, list(size), modes[resample], antialias=True).permute(1, 2, 0).contiguous()


def _by_pillow(frame: Any, size: tuple[int, int]) -> Any:
    from PIL import Image

    on_host = frame if isinstance(frame, np.ndarray) else frame.get()
    resized = np.array(Image.fromarray(on_host).resize((size[1], size[0]), Image.Resampling.LANCZOS))
    if isinstance(frame, np.ndarray):
        return resized
    import cupy

    return cupy.asarray(resized)
