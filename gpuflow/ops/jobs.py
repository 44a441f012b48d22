"""What is to become of one decoded image; and many of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.composite import flatten_alpha
from gpuflow.ops.transform import Transform
from gpuflow.presets.plan import ImagePlan


@dataclass(frozen=True, slots=True, eq=False)
class TransformJob:
    """``pixels``: ``(H, W, 3)`` or ``(H, W, 4)`` uint8 as shown, numpy or CuPy, of any strides; they become ``plan``'s
    tensors at ``specs`` of ``lease``."""

    engine: Transform
    plan: ImagePlan
    lease: Lease
    specs: tuple[TensorSpec, ...]
    pixels: Any = None
    alpha: Literal["composite", "drop"] = "composite"
    background: tuple[int, int, int] = (255, 255, 255)


def transform_one(job: TransformJob) -> None:
    """Do one; on a GPU it is queued and noted on the lease."""
    flat = flatten_alpha(job.pixels, alpha=job.alpha, background=job.background)
    job.engine.apply(flat, job.plan, job.lease, job.specs)


def transform_many(jobs: Sequence[TransformJob]) -> None:
    """Do them together where their engine can; all are of one device."""
    for job in jobs:
        transform_one(job)
