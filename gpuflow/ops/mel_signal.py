"""A clip as its frames are taken from it: cut, scaled, dithered, pre-emphasised and padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.mel_tables import reach
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import MelPlan

Samples = NDArray[np.float32]
Check = Callable[[], None]
"""Raises where the work is to end before its time."""

_STRETCH_SAMPLES = 1 << 22  # between two checks: 20 ms of work


def stretches(count: int, most: int, check: Check) -> Iterator[slice]:
    """So many things in runs, a check before each."""
    for first in range(0, count, most):
        check()
        yield slice(first, min(first + most, count))


def padded_signal(samples: Samples, spec: MelSpec, plan: MelPlan, check: Check) -> Samples:
    """``(n,)`` float32: the clip with its padding at both ends, as far as the plan's live frames reach."""
    needed = (plan.live - 1) * spec.hop_length + reach(spec)
    padded = np.zeros(max(needed, 2 * spec.pad_left + 1), np.float32)
    count = min(plan.samples, len(padded) - spec.pad_left)
    body = padded[spec.pad_left : spec.pad_left + count]
    if spec.dither:  # which is the whole clip's
        body[:] = conditioned(samples[: plan.samples], spec)[:count]
    for some in stretches(0 if spec.dither else count, _STRETCH_SAMPLES, check):
        before = min(1, some.start)
        body[some] = conditioned(samples[some.start - before : some.stop], spec)[before:]
    if spec.pad_mode == "reflect":
        _reflect(padded, needed, spec.pad_left, spec.pad_left + plan.padded)
    return padded[:needed]


def conditioned(samples: Samples, spec: MelSpec) -> Samples:
    """Scaled, dithered and pre-emphasised, the first sample as it is; nothing is copied where nothing is done.

    Source of the dither: ``CohereAsrFeatureExtractor``, torch's generator on the CPU.
    """
    if spec.input_scale != 1:
        samples = samples * np.float32(spec.input_scale)
    if spec.dither:
        samples = samples + np.float32(spec.dither) * noise(len(samples))
    if not spec.signal_preemphasis or not len(samples):
        return samples
    made = samples.copy()
    made[1:] -= np.float32(spec.signal_preemphasis) * samples[:-1]
    return made


def raw_samples(samples: Samples, spec: MelSpec, plan: MelPlan, check: Check) -> Samples:
    """Of the plan's shape: the samples themselves, normalised where the spec says so.

    Source: ``zero_mean_unit_var_norm`` of ``Wav2Vec2FeatureExtractor``; ``Gemma4UnifiedAudioFeatureExtractor``.
    """
    made = np.zeros(plan.frames * max(1, spec.frame_samples), np.float32)
    made[: plan.samples] = conditioned(samples[: plan.samples], spec)
    own = made[: plan.valid_frames * max(1, spec.frame_samples)]
    if spec.normalize == "clip" and len(own):
        _normalise(own, spec, check)
    return made.reshape(plan.shape)


def _normalise(own: Samples, spec: MelSpec, check: Check) -> None:
    """Minus the mean, by the root of the variance, in place."""
    mean = sum(part.sum(dtype=np.float64) for part in _parts(own, check)) / len(own)
    variance = sum(np.square(part - mean).sum() for part in _parts(own, check)) / len(own)
    by = np.sqrt(variance + spec.norm_eps) if spec.eps_in_sqrt else np.sqrt(variance) + spec.norm_eps
    for part in _parts(own, check):
        part -= np.float32(mean)
        part /= np.float32(by or 1)


def _parts(own: Samples, check: Check) -> Iterator[Samples]:
    return (own[some] for some in stretches(len(own), _STRETCH_SAMPLES, check))


def noise(count: int) -> Samples:
    """What ``MelSpec.dither`` scales, of a clip of so many samples."""
    import torch

    made: Samples = torch.randn(count, generator=torch.Generator().manual_seed(count)).numpy()
    return made


def _reflect(padded: Samples, needed: int, begin: int, end: int) -> None:
    """Mirror what lies between ``begin`` and ``end`` at both, as far as it is needed."""
    padded[:begin] = padded[begin + 1 : 2 * begin + 1][::-1]
    if needed > end:
        padded[end:needed] = padded[end - 1 - (needed - end) : end - 1][::-1]
