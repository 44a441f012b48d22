"""What the mel kernels are told of each clip: a record of ``struct Clip`` in ``kernels/mel.cuh``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.mel_finish import silent_level
from gpuflow.ops.mel_jobs import NUMBER_KINDS, MelJob
from gpuflow.ops.mel_tables import inset, mel_tables
from gpuflow.ops.tables import Tables
from gpuflow.presets.mel import MelSpec

CLIP = np.dtype(
    [
        *((name, np.uint64) for name in ("samples", "noise", "bins", "window", "roots", "weights", "bands")),
        *((name, np.uint64) for name in ("levels", "statistics", "out")),
        *((name, np.int64) for name in ("part_stride", "time_stride", "band_stride")),
        ("frame_preemphasis", np.float64),
        *((name, np.int32) for name in ("count", "own", "padded", "pad_left", "reflect")),
        *((name, np.int32) for name in ("hop", "window_first", "window_length")),
        *((name, np.int32) for name in ("live", "framed", "valid", "frames", "pitch")),
        *((name, np.int32) for name in ("n_mels", "remove_dc", "magnitude", "natural", "add_floor", "clip_maximum")),
        *((name, np.int32) for name in ("stack", "part_rows", "delta_half", "zero_invalid", "number_kind", "inside_root")),
        *((name, np.int32) for name in ("first_tile", "first_chunk", "chunks", "first_finish")),
        *((name, np.float32) for name in ("sample_scale", "dither", "signal_preemphasis", "floor")),
        *((name, np.float32) for name in ("silence", "least", "range", "scale", "offset", "epsilon", "degrees")),
    ],
    align=True,
)  # fmt: skip

CHUNK = 4_096  # kernels/mel.cuh
_PITCH_FLOATS = 8  # of a band's row: one sector
_ENDLESS = 2**31 - 1


def records(jobs: Sequence[MelJob], tables: Tables) -> NDArray[Any]:
    """A ``CLIP`` a job; without the fields that depend on the others, and, but for waveforms, without ``levels``."""
    made = np.zeros(len(jobs), CLIP)
    alike: dict[tuple[int, str, bool], list[int]] = {}
    for index, job in enumerate(jobs):
        alike.setdefault((id(job.spec), job.dtype, job.in_parts), []).append(index)
    for indices in alike.values():  # a batch has few specs, and filling a record field by field takes 40 us
        job = jobs[indices[0]]
        one = np.zeros((), CLIP)
        for name, value in (_of_spec(job) | ({} if job.raw else _of_mel(job, tables))).items():
            one[name] = value
        made[indices] = one
        rows = [_of_wave(jobs[index]) if job.raw else _of_clip(jobs[index]) for index in indices]
        for name, column in zip(_OF_CLIP, zip(*rows, strict=True), strict=True):
            made[name][indices] = column
    return made


def roots(n_fft: int, precision: str) -> NDArray[Any]:
    """``(n_fft, 2)``: cosine and minus sine, rounded once."""
    angles = 2 * np.pi * np.arange(n_fft) / n_fft
    return np.stack([np.cos(angles), -np.sin(angles)], -1).astype(precision)


def sparse(filters: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """``(bands, 3)``: first bin, number of bins, where their weights begin; and the weights."""
    ends = [(np.flatnonzero(band)[[0, -1]] + (0, 1)) if band.any() else (0, 0) for band in filters]
    counts = [last - first for first, last in ends]
    starts = np.cumsum([0, *counts[:-1]])
    weights = [band[first:last] for band, (first, last) in zip(filters, ends, strict=True)]
    bands = [(first, count, start) for (first, _), count, start in zip(ends, counts, starts, strict=True)]
    return np.array(bands, np.int32), np.concatenate([*weights, np.zeros(1, filters.dtype)])


_OF_CLIP = (
    "samples", "out", "part_stride", "time_stride", "band_stride", "count", "own", "padded", "live", "framed",
    "valid", "frames", "pitch", "chunks", "degrees", "levels", "stack",
)  # fmt: skip


def mel_bytes(job: MelJob) -> int:
    """What it takes of the GPU's memory beside its samples and its features: levels, statistics, noise."""
    of = dict(zip(_OF_CLIP, _of_wave(job) if job.raw else _of_clip(job), strict=True))
    levels = 0 if job.raw else 4 * job.spec.n_mels * of["pitch"]
    statistics = 12 * of["chunks"] * (1 if job.raw else job.spec.n_mels)
    return levels + statistics + (4 * job.own if job.spec.dither else 0)


def _of_clip(job: MelJob) -> tuple[int, ...]:
    """In the order of ``_OF_CLIP``."""
    spec, plan, valid = job.spec, job.plan, job.plan.valid_frames
    *part, rows, columns = job.strides
    time, band = (columns, rows) if spec.layout == "MT" else (rows, columns)
    pitch = -(-plan.live // _PITCH_FLOATS) * _PITCH_FLOATS
    chunks, degrees = (-(-valid // CHUNK), max(1, valid - 1)) if spec.normalize == "feature" else (0, 1)
    return (
        job.samples, job.out, part[0] if part else 0, time, band, plan.samples, job.own, plan.padded, plan.live,
        plan.framed, valid, job.frames, pitch, chunks, degrees, 0, spec.stack,
    )  # fmt: skip


def _of_wave(job: MelJob) -> tuple[int, ...]:
    """The same: one row of levels, the samples as they are."""
    plan, own = job.plan, job.own
    *rows, along = job.strides
    chunks = -(-own // CHUNK) if job.spec.normalize == "clip" else 0
    return (
        job.samples, job.out, 0, rows[0] if rows else 0, along, plan.samples, own, plan.padded, plan.samples,
        own, own, job.frames, plan.samples, chunks, max(1, own), job.samples, plan.shape[-1] if rows else _ENDLESS,
    )  # fmt: skip


def _of_spec(job: MelJob) -> dict[str, Any]:
    spec = job.spec
    return {
        "n_mels": 1, "scale": spec.input_scale, "least": -np.inf, "silence": 0 if job.raw else silent_level(spec),
        "number_kind": NUMBER_KINDS.index(job.dtype), "inside_root": spec.eps_in_sqrt, "epsilon": spec.norm_eps,
    }  # fmt: skip


def _of_mel(job: MelJob, tables: Tables) -> dict[str, Any]:
    spec = job.spec
    return {
        "window": tables(("mel window", spec), lambda: mel_tables(spec)[0]),
        "roots": tables(("roots", spec.n_fft, spec.precision), lambda: roots(spec.n_fft, spec.precision)),
        "weights": tables(("mel weights", spec), lambda: sparse(mel_tables(spec)[1])[1]),
        "bands": tables(("mel bands", spec), lambda: sparse(mel_tables(spec)[1])[0]),
        "bins": _bins(spec, tables), "n_mels": spec.n_mels, "part_rows": spec.split_frames if job.in_parts else _ENDLESS,
        "pad_left": spec.pad_left, "reflect": spec.pad_mode == "reflect", "hop": spec.hop_length,
        "window_first": inset(spec), "window_length": spec.win_length,
        "remove_dc": spec.remove_dc, "magnitude": spec.power == 1, "natural": spec.log == "ln",
        "add_floor": spec.floor_mode == "add", "clip_maximum": spec.clamp == "clip_max",
        "delta_half": max(0, spec.delta_window - 1) // 2, "zero_invalid": spec.zero_invalid,
        "sample_scale": spec.input_scale, "dither": spec.dither,
        "signal_preemphasis": spec.signal_preemphasis, "frame_preemphasis": spec.frame_preemphasis,
        "floor": spec.floor, "least": spec.fixed_max - spec.clamp_range if spec.clamp == "fixed" else -np.inf,
        "range": spec.clamp_range, "scale": spec.scale, "offset": spec.offset,
    }  # fmt: skip


def _bins(spec: MelSpec, tables: Tables) -> int:
    if not (spec.bin_mean or spec.bin_std):
        return 0
    means, deviations = spec.bin_mean or (0.0,) * spec.n_mels, spec.bin_std or (1.0,) * spec.n_mels
    return tables(("mel bins", spec), lambda: np.stack([means, deviations], -1).astype(np.float32))
