"""What the mel kernels are told of one clip: a record of ``struct Clip`` in ``kernels/mel.cuh``."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.media import ITEM_BYTES
from gpuflow.ops.mel_tables import mel_tables
from gpuflow.ops.tables import Tables
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import MelPlan, mel_plan

CLIP = np.dtype(
    [
        *((name, np.uint64) for name in ("samples", "noise", "window", "roots", "weights", "bins", "bands")),
        *((name, np.uint64) for name in ("levels", "statistics", "out")),
        *((name, np.int64) for name in ("part_stride", "time_stride", "band_stride")),
        *((name, np.int32) for name in ("count", "own", "padded", "pad_left", "reflect")),
        *((name, np.int32) for name in ("hop", "window_first", "window_length")),
        *((name, np.int32) for name in ("live", "framed", "valid", "frames", "pitch")),
        *((name, np.int32) for name in ("n_mels", "remove_dc", "magnitude", "natural", "add_floor", "clip_maximum")),
        *((name, np.int32) for name in ("stack", "part_rows", "delta_half", "zero_invalid", "number_kind", "inside_root")),
        *((name, np.int32) for name in ("first_tile", "first_chunk", "chunks", "first_finish")),
        *((name, np.float32) for name in ("sample_scale", "dither", "signal_preemphasis", "frame_preemphasis")),
        *((name, np.float32) for name in ("floor", "silence", "least", "range", "scale", "offset", "epsilon", "degrees")),
    ],
    align=True,
)  # fmt: skip

CHUNK = 4_096  # kernels/mel.cuh
_PITCH_FLOATS = 8  # of a band's row: one sector
_NUMBER_KINDS = ("float32", "float16", "bfloat16")
_NO_PARTS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class MelJob:
    """One clip, or one part of a clip that is split before its features are made.

    ``samples``: address of ``plan.samples`` float32 at ``spec.sample_rate``, where the kernel reads; ``noise``: of as many,
    normal, where ``spec.dither`` is not 0. ``out``: address of the tensor of ``plan.shape``, ``strides`` in bytes, ``dtype``
    float32, float16 or bfloat16. A clip that is split after its features are made has a first axis of parts.

    Raises:
        InvalidOptions: strides of another number of axes, no such dtype, or an address between two numbers.
    """

    samples: int
    spec: MelSpec
    plan: MelPlan
    out: int
    strides: tuple[int, ...]
    dtype: str = "float32"
    noise: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in _NUMBER_KINDS:
            raise InvalidOptions(f"features are {', '.join(_NUMBER_KINDS)} on a GPU; got {self.dtype}")
        if len(self.strides) != len(self.plan.shape):
            raise InvalidOptions(f"one stride an axis of {self.plan.shape}; got {self.strides}")
        if any(number % ITEM_BYTES[self.dtype] for number in (self.out, *self.strides)):
            raise InvalidOptions(f"{self.dtype} begins at a multiple of its size; got {self.out}, {self.strides}")
        if self.spec.dither and not self.noise and self.plan.samples:
            raise InvalidOptions(f"{self.spec.name} adds noise to its clips, which comes with the job; got none")

    @property
    def raw(self) -> bool:
        """Whether the result is the waveform itself."""
        return self.spec.kind == "raw"

    @property
    def own(self) -> int:
        """Samples that count as the clip's."""
        return max(self.plan.samples, self.spec.min_samples)

    @property
    def valid(self) -> int:
        """Frames, before stacking, that statistics are taken over and that are kept; of a waveform its samples."""
        return self.own if self.raw else mel_plan(_unstacked(self.spec), self.plan.samples).valid

    @property
    def pitch(self) -> int:
        """Floats from one band of the levels to the next."""
        return -(-self.plan.live // _PITCH_FLOATS) * _PITCH_FLOATS

    @property
    def level_floats(self) -> int:
        """Of scratch, for the levels."""
        return 0 if self.raw else self.spec.n_mels * self.pitch

    @property
    def chunks(self) -> int:
        """Of one band's statistics; 0 without."""
        return 0 if self.spec.normalize == "none" else -(-self.valid // CHUNK)

    @property
    def bands(self) -> int:
        """Rows of levels."""
        return 1 if self.raw else self.spec.n_mels

    @property
    def frames(self) -> int:
        """Frames that are written: whole stacks; of a waveform its samples."""
        stack = self.spec.stack
        return math.prod(self.plan.shape) if self.raw else self.plan.frames // stack * stack


def record(job: MelJob, tables: Tables, **places: int) -> Any:
    """A ``CLIP``; ``places``: the fields that depend on the other clips of its launch.

    Raises:
        InvalidOptions: bin statistics of another number of bands.
    """
    made = np.zeros((), CLIP)
    of_kind = _wave(job) if job.raw else _mel(job, tables)
    for name, value in (_shared(job) | of_kind | places).items():
        made[name] = value
    return made


def silence(spec: MelSpec) -> float:
    """The level of a frame without sound, before it is clamped."""
    return 0.0 if spec.kind == "raw" else _log(spec)(spec.floor)


def _shared(job: MelJob) -> dict[str, Any]:
    spec, plan = job.spec, job.plan
    return {
        "samples": job.samples, "noise": job.noise, "out": job.out, "count": plan.samples, "own": job.own,
        "padded": plan.padded, "valid": job.valid, "frames": job.frames, "chunks": job.chunks,
        "number_kind": _NUMBER_KINDS.index(job.dtype), "silence": silence(spec),
        "inside_root": spec.eps_in_sqrt, "epsilon": spec.norm_eps,
        "degrees": max(1, job.valid - (spec.normalize == "feature")),
    }  # fmt: skip


def _wave(job: MelJob) -> dict[str, Any]:
    """One row of levels: the samples as they are."""
    *rows, along = job.strides
    return {
        "levels": job.samples, "live": job.plan.samples, "framed": job.own, "n_mels": 1, "pitch": job.plan.samples,
        "stack": job.plan.shape[-1], "time_stride": rows[0] if rows else 0, "band_stride": along,
        "scale": job.spec.input_scale, "least": -np.inf,
    }  # fmt: skip


def _mel(job: MelJob, tables: Tables) -> dict[str, Any]:
    spec, plan = job.spec, job.plan
    *part, first, second = job.strides
    rows_axis = -1 if spec.layout == "MT" else -2
    centred = spec.window_at == "centre"
    return {
        "window": tables(("mel window", spec), lambda: mel_tables(spec)[0]),
        "roots": tables(("roots", spec.n_fft), lambda: roots(spec.n_fft)),
        "weights": tables(("mel weights", spec), lambda: sparse(mel_tables(spec)[1])[1]),
        "bands": tables(("mel bands", spec), lambda: sparse(mel_tables(spec)[1])[0]),
        "bins": _bins(spec, tables),
        "part_stride": part[0] if part else 0, "part_rows": plan.shape[rows_axis] if part else _NO_PARTS,
        "time_stride": second if spec.layout == "MT" else first, "band_stride": first if spec.layout == "MT" else second,
        "pad_left": spec.pad_left, "reflect": spec.pad_mode == "reflect", "hop": spec.hop_length,
        "window_first": (spec.n_fft - spec.win_length) // 2 if centred else 0, "window_length": spec.win_length,
        "live": plan.live, "framed": plan.framed, "pitch": job.pitch, "n_mels": spec.n_mels,
        "remove_dc": spec.remove_dc, "magnitude": spec.power == 1, "natural": spec.log == "ln",
        "add_floor": spec.floor_mode == "add", "clip_maximum": spec.clamp == "clip_max",
        "stack": spec.stack, "delta_half": max(0, spec.delta_window - 1) // 2, "zero_invalid": spec.zero_invalid,
        "sample_scale": spec.input_scale, "dither": spec.dither,
        "signal_preemphasis": spec.signal_preemphasis, "frame_preemphasis": spec.frame_preemphasis,
        "floor": spec.floor, "least": spec.fixed_max - spec.clamp_range if spec.clamp == "fixed" else -np.inf,
        "range": spec.clamp_range, "scale": spec.scale, "offset": spec.offset,
    }  # fmt: skip


def roots(n_fft: int) -> NDArray[np.float32]:
    """``(n_fft, 2)``: cosine and minus sine, rounded once."""
    angles = 2 * np.pi * np.arange(n_fft) / n_fft
    return np.stack([np.cos(angles), -np.sin(angles)], -1).astype(np.float32)


def sparse(filters: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """``(bands, 3)``: first bin, number of bins, where their weights begin; and the weights."""
    ends = [(np.flatnonzero(band)[[0, -1]] + (0, 1)) if band.any() else (0, 0) for band in filters]
    counts = [last - first for first, last in ends]
    starts = np.cumsum([0, *counts[:-1]])
    weights = [band[first:last] for band, (first, last) in zip(filters, ends, strict=True)]
    bands = [(first, count, start) for (first, _), count, start in zip(ends, counts, starts, strict=True)]
    return np.array(bands, np.int32), np.concatenate([*weights, np.zeros(1)]).astype(np.float32)


def _bins(spec: MelSpec, tables: Tables) -> int:
    if not (spec.bin_mean or spec.bin_std):
        return 0
    means, deviations = spec.bin_mean or (0.0,) * spec.n_mels, spec.bin_std or (1.0,) * spec.n_mels
    if len(means) != spec.n_mels or len(deviations) != spec.n_mels:
        raise InvalidOptions(f"{spec.name} has {spec.n_mels} bands; got {len(means)} means, {len(deviations)} deviations")
    return tables(("mel bins", spec), lambda: np.stack([means, deviations], -1).astype(np.float32))


def _log(spec: MelSpec) -> Any:
    return math.log if spec.log == "ln" else math.log10


@functools.lru_cache(maxsize=64)
def _unstacked(spec: MelSpec) -> MelSpec:
    return replace(spec, stack=1)


def tiles(counts: Sequence[int]) -> tuple[list[int], NDArray[np.int32]]:
    """Where the tiles of each clip begin, and which clip each tile is of."""
    first = np.cumsum([0, *counts])[:-1].tolist()
    return first, np.repeat(np.arange(len(counts), dtype=np.int32), counts)
