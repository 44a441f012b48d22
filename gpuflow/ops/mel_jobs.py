"""Clips whose features a GPU is to make: where their samples lie, and where the features go."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpuflow.errors import InvalidOptions
from gpuflow.media import ITEM_BYTES
from gpuflow.presets.clip_plan import ClipPlan, row_axis
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import MelPlan

NUMBER_KINDS = ("float32", "float16", "bfloat16")
MAX_SAMPLES = 1 << 30  # kernels count samples and frames in 32 bits, and mirror what is as far beyond the end


@dataclass(frozen=True, slots=True)
class MelJob:
    """One clip, or one part of a clip that is split before its features are made.

    ``samples``: address of ``plan.samples`` float32 at ``spec.sample_rate``, where the kernel reads. ``out``: address of the
    tensor of ``plan.shape``, ``strides`` in bytes, ``dtype`` float32, float16 or bfloat16; with one stride more the first is
    that of parts of ``spec.split_frames``, for a clip that is split after its features are made. ``rows``: of ``out``, where
    they are more than the plan's: zeros.

    Raises:
        InvalidOptions: strides of another number of axes, no such dtype, an address between two numbers, or more than
            ``MAX_SAMPLES``.
    """

    samples: int
    spec: MelSpec
    plan: MelPlan
    out: int
    strides: tuple[int, ...]
    dtype: str = "float32"
    rows: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in NUMBER_KINDS:
            raise InvalidOptions(f"features are {', '.join(NUMBER_KINDS)} on a GPU; got {self.dtype}")
        if len(self.strides) - len(self.plan.shape) not in (0, int(self.spec.split == "after_mel")):
            raise InvalidOptions(f"one stride an axis of {self.plan.shape}; got {self.strides}")
        if any(number % ITEM_BYTES[self.dtype] for number in (self.out, *self.strides)):
            raise InvalidOptions(f"{self.dtype} begins at a multiple of its size; got {self.out}, {self.strides}")
        if max(self.own, self.plan.padded, self.frames) > MAX_SAMPLES:
            raise InvalidOptions(f"features on a GPU are of at most {MAX_SAMPLES} samples; got {self.own}")

    @property
    def raw(self) -> bool:
        """Whether the result is the waveform itself."""
        return self.spec.kind == "raw"

    @property
    def own(self) -> int:
        """Samples that count as the clip's."""
        return max(self.plan.samples, self.spec.min_samples)

    @property
    def frames(self) -> int:
        """Frames that are written: whole stacks; of a waveform its samples."""
        if self.raw:
            first, *rest = self.plan.shape
            return max(first, self.rows) * math.prod(rest)
        rows, most = self.plan.frames // self.spec.stack, self.spec.max_splits
        if self.in_parts and most is not None:
            rows = min(rows, most * self.spec.split_frames)
        return max(rows, self.rows) * self.spec.stack

    @property
    def in_parts(self) -> bool:
        """Whether ``out`` has an axis of parts."""
        return len(self.strides) > len(self.plan.shape)


def jobs_of(clip: ClipPlan, samples: int, out: int) -> list[MelJob]:
    """The jobs of a clip whose features are C-contiguous at ``out``: one, or one a part.

    ``samples``: address of all of its samples, float32 at the spec's rate.
    """
    spec, (dtype, shape) = clip.spec, clip.tensors[clip.spec.features_name]
    strides = tuple(ITEM_BYTES[dtype] * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if not clip.in_parts or spec.split == "after_mel":
        return [MelJob(samples, spec, clip.plans[0], out, strides, dtype)]
    rows = shape[1 + row_axis(spec)]
    return [
        MelJob(samples + ITEM_BYTES["float32"] * first, spec, plan, out + part * strides[0], strides[1:], dtype, rows)
        for part, (plan, (first, _)) in enumerate(zip(clip.plans, clip.parts, strict=True))
    ]
