"""From mel levels to features: logarithm, clamp, scale, deltas, normalisation, and the place of each frame in the result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.frames import bfloat16_bits
from gpuflow.presets.mel import MelSpec

Levels = NDArray[Any]
"""Of the spec's precision."""


def silent_level(spec: MelSpec) -> float:
    """The logarithm of nothing but the floor."""
    return math.log10(spec.floor) if spec.log == "log10" else math.log(spec.floor)


def to_logs(levels: Levels, spec: MelSpec) -> None:
    """Floor and logarithm, in place; ``(n_mels, frames)``."""
    if spec.floor_mode == "max":
        np.maximum(levels, spec.floor, out=levels)
    else:
        levels += spec.floor
    (np.log10 if spec.log == "log10" else np.log)(levels, out=levels)


def to_scale(levels: Levels, spec: MelSpec, loudest: float) -> None:
    """Clamp, scale, offset and the bands' statistics, in place. ``loudest``: the clip's, for ``clamp="clip_max"``.

    Nothing is under the floor's logarithm: numpy's of 1e-10 in float32 is -10.000001, torch's is -10.
    """
    number, least = levels.dtype.type, levels.dtype.type(silent_level(spec))
    if spec.clamp != "none":
        top = np.maximum(number(loudest), least) if spec.clamp == "clip_max" else number(spec.fixed_max)
        least = np.maximum(least, top - number(spec.clamp_range))
    np.maximum(levels, least, out=levels)
    if spec.scale != 1:
        levels *= spec.scale
    if spec.offset:
        levels += spec.offset
    if spec.bin_mean:
        levels -= np.array(spec.bin_mean, levels.dtype)[:, None]
    if spec.bin_std:
        levels /= np.array(spec.bin_std, levels.dtype)[:, None]


def silence(spec: MelSpec, loudest: float | None = None) -> Levels:
    """``(n_mels, 1)``: a frame of padding, in a clip whose loudest level this is; ``None``: in one of nothing else."""
    levels = np.zeros((spec.n_mels, 1), spec.precision)
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
        made += step * (after - before)
    made /= 2 * sum(step * step for step in range(1, half + 1))
    return made


def normalise(levels: Levels, spec: MelSpec, valid: int) -> None:
    """Minus each band's mean, by its deviation over the valid frames, in place; one frame deviates by nothing."""
    own = levels[:, :valid]
    mean = own.mean(axis=1, dtype=np.float64, keepdims=True) if valid else np.zeros((1, 1))
    variance = own.var(axis=1, dtype=np.float64, ddof=1, keepdims=True) if valid > 1 else np.zeros((1, 1))
    by = np.sqrt(variance + spec.norm_eps) if spec.eps_in_sqrt else np.sqrt(variance) + spec.norm_eps
    levels -= mean.astype(levels.dtype)
    levels /= np.where(by == 0, 1, by).astype(levels.dtype)


def cast(values: Levels, dtype: str) -> Any:
    """As float32, and that as ``dtype``; bfloat16 as its bits in uint16, as a lease shows it."""
    values = values.astype(np.float32, copy=False)
    return bfloat16_bits(np.ascontiguousarray(values)) if dtype == "bfloat16" else values.astype(dtype, copy=False)


def by_frame(out: Any, spec: MelSpec) -> Any:
    """The result of a spec that does not stack as ``(bands, frames)``, a view."""
    return out if spec.layout == "MT" else out.T


def stacked(levels: Levels, spec: MelSpec, *, rows: int) -> Levels:
    """Frames, ``(bands, frames)``, zero frames behind them, as so many rows of stacks: as the spec lays them out."""
    whole = np.zeros((rows * spec.stack, len(levels)), levels.dtype)
    count = min(len(whole), levels.shape[1])
    whole[:count] = levels[:, :count].T
    made = whole.reshape(rows, -1)
    return made if spec.layout == "TM" else made.T
