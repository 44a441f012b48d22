"""Frames of a clip into the tensors of a video preset, as transformers' video processors make them.

One frame at a time, as it is decoded: there is never a stack of resized frames. On the CPU the result equals theirs bit
for bit; on a GPU torch resizes in float32, as for images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.arrange import frame_place, write_frame
from gpuflow.ops.transform_exact import seen, to_planar
from gpuflow.presets.plan import ImagePlan
from gpuflow.workers import calm_torch


def label(device: str) -> str:
    """What runs on that device, for the result's ``backend``."""
    return "exact" if device == "cpu" else "torch-float32"


def place_frame(rgb: Any, places: Sequence[int], plan: ImagePlan, lease: Lease, spec: TensorSpec) -> None:
    """Resize, crop or pad, normalise and lay out one ``(H, W, 3)`` uint8 frame, numpy or CuPy, at its places among the
    plan's frames. On a GPU the work is queued on CuPy's current stream and noted on the lease."""
    with _surroundings(lease, rgb):
        planar = to_planar(rgb, lease.device)
        planar = seen(planar, plan, plan.views[0])
        out = lease.tensor(spec)
        first, *repeats = (frame_place(out, plan, place) for place in places)
        write_frame(planar, plan, first)
        for place in repeats:
            place.copy_(first)


def write_beside(plan: ImagePlan, lease: Lease, specs: Sequence[TensorSpec], *, grid_seconds: float) -> None:
    """Write what stands beside the pixels: the grid of patches, its seconds, the mask."""
    import torch

    with _surroundings(lease, None):
        for spec in specs:
            out = lease.tensor(spec)
            if spec.name == "video_grid_thw":
                out.copy_(torch.tensor([plan.grid], dtype=torch.int64))
            else:
                out.fill_(grid_seconds if spec.name == "second_per_grid_ts" else 1)


@contextmanager
def _surroundings(lease: Lease, rgb: Any) -> Iterator[None]:
    if lease.device == "cpu":
        calm_torch()
        yield
        return
    import cupy
    import torch

    device = torch.device(lease.device)
    with torch.cuda.device(device):
        stream: Any = torch.cuda.current_stream(device)
        if rgb is not None and not isinstance(rgb, np.ndarray):
            stream = torch.cuda.ExternalStream(cupy.cuda.get_current_stream().ptr)  # type: ignore[no-untyped-call]
        try:
            with torch.cuda.stream(stream):
                yield
        finally:  # also of what was queued before an error
            lease.record_stream(cupy.cuda.ExternalStream(stream.cuda_stream))
