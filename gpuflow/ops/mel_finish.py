"""From mel levels to features: logarithm, clamp, scale, deltas, normalisation, and the place of each frame in the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.frames import bfloat16_bits
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import MelPlan

Levels = NDArray[np.float32]


def to_logs(levels: Levels, spec: MelSpec) -> None:
    """Floor and logarithm, in place; ``(n_mels, frames)``."""
    floor = np.float32(spec.floor)
    if spec.floor_mode == "max":
        np.maximum(levels, floor, out=levels)
    else:
        levels += floor
    (np.log10 if spec.log == "log10" else np.log)(levels, out=levels)


def to_scale(levels: Levels, spec: MelSpec, loudest: float) -> None:
    """Clamp, scale, offset and the bands' statistics, in place. ``loudest``: the clip's, for ``clamp="clip_max"``."""
    if spec.clamp != "none":
        top = loudest if spec.clamp == "clip_max" else spec.fixed_max
        np.maximum(levels, np.float32(top) - np.float32(spec.clamp_range), out=levels)
    if spec.scale != 1:
        levels *= np.float32(spec.scale)
    if spec.offset:
        levels += np.float32(spec.offset)
    if spec.bin_mean:
        levels -= np.array(spec.bin_mean, np.float32)[:, None]
    if spec.bin_std:
        levels /= np.array(spec.bin_std, np.float32)[:, None]


def silence(spec: MelSpec, loudest: float | None = None) -> Levels:
    """``(n_mels, 1)``: a frame of padding, in a clip whose loudest level this is; ``None``: in one of nothing else."""
    levels = np.zeros((spec.n_mels, 1), np.float32)
    to_logs(levels, spec)
    to_scale(levels, spec, float(levels[0, 0]) if loudest is None else loudest)
    return levels


def deltas(levels: Levels, window: int) -> Levels:
    """How each band rises, by regression over so many frames; the end frames are repeated.

    Source: torchaudio's ``compute_deltas``.
    """
    half, count = window // 2, levels.shape[1]
    padded = np.pad(levels, ((0, 0), (half, half)), mode="edge")
    made = np.zeros_like(levels)
    for step in range(1, half + 1):
        after, before = (padded[:, half + shift : half + shift + count] for shift in (step, -step))
        made += np.float32(step) * (after - before)
    made /= np.float32(2 * sum(step * step for step in range(1, half + 1)))
    return made


def normalise(levels: Levels, spec: MelSpec, valid: int) -> None:
    """Minus each band's mean, by its deviation over the valid frames, in place; one frame deviates by nothing."""
    own = levels[:, :valid]
    mean = own.mean(axis=1, dtype=np.float64, keepdims=True) if valid else np.zeros((1, 1))
    variance = own.var(axis=1, dtype=np.float64, ddof=1, keepdims=True) if valid > 1 else np.zeros((1, 1))
    by = np.sqrt(variance + spec.norm_eps) if spec.eps_in_sqrt else np.sqrt(variance) + spec.norm_eps
    levels -= mean.astype(np.float32)
    levels /= np.where(by == 0, 1, by).astype(np.float32)


def cast(values: Levels, dtype: str) -> Any:
    """As ``dtype``; bfloat16 as its bits in uint16, as a lease shows it."""
    return bfloat16_bits(np.ascontiguousarray(values)) if dtype == "bfloat16" else values.astype(dtype, copy=False)


def by_frame(out: Any, spec: MelSpec) -> Any:
    """The result of a spec that does not stack as ``(bands, frames)``, a view."""
    return out if spec.layout == "MT" else out.T


def store_stacked(levels: Levels, spec: MelSpec, plan: MelPlan, out: Any, dtype: str) -> None:
    """Write all frames, ``(bands, framed)``, zero frames behind them, stacked."""
    rows = plan.frames // spec.stack
    whole = np.zeros((rows * spec.stack, len(levels)), np.float32)
    count = min(len(whole), plan.framed)
    whole[:count] = levels[:, :count].T
    stacked = whole.reshape(rows, -1)
    out[...] = cast(stacked if spec.layout == "TM" else stacked.T, dtype)
