"""A clip as its frames are taken from it: cut, scaled, dithered, pre-emphasised and padded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.mel_tables import reach
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import MelPlan

Samples = NDArray[np.float32]


def padded_signal(samples: Samples, spec: MelSpec, plan: MelPlan) -> Samples:
    """``(n,)`` float32: the clip with its padding at both ends, as far as the plan's live frames reach."""
    needed = (plan.live - 1) * spec.hop_length + reach(spec)
    padded = np.zeros(max(needed, 2 * spec.pad_left + 1), np.float32)
    count = min(plan.samples, len(padded) - spec.pad_left)
    body = padded[spec.pad_left : spec.pad_left + count]
    body[:] = conditioned(samples[: plan.samples], spec)[:count]
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
        samples = samples + np.float32(spec.dither) * normal_noise(len(samples))
    if not spec.signal_preemphasis or not len(samples):
        return samples
    made = samples.copy()
    made[1:] -= np.float32(spec.signal_preemphasis) * samples[:-1]
    return made


def normal_noise(count: int) -> Samples:
    """What ``dither`` scales, for a clip of so many samples."""
    import torch

    noise: Samples = torch.randn(count, generator=torch.Generator().manual_seed(count)).numpy()
    return noise


def raw_samples(samples: Samples, spec: MelSpec, plan: MelPlan) -> Samples:
    """Of the plan's shape: the samples themselves, normalised where the spec says so.

    Source: ``zero_mean_unit_var_norm`` of ``Wav2Vec2FeatureExtractor``; ``Gemma4UnifiedAudioFeatureExtractor``.
    """
    made = np.zeros(plan.frames * max(1, spec.frame_samples), np.float32)
    made[: plan.samples] = conditioned(samples[: plan.samples], spec)
    own = made[: plan.valid_frames * max(1, spec.frame_samples)]
    if spec.normalize == "clip" and len(own):
        variance = own.var(dtype=np.float64)
        by = np.sqrt(variance + spec.norm_eps) if spec.eps_in_sqrt else np.sqrt(variance) + spec.norm_eps
        own -= np.float32(own.mean(dtype=np.float64))
        own /= np.float32(by or 1)
    return made.reshape(plan.shape)


def _reflect(padded: Samples, needed: int, begin: int, end: int) -> None:
    """Mirror what lies between ``begin`` and ``end`` at both, as far as it is needed."""
    padded[:begin] = padded[begin + 1 : 2 * begin + 1][::-1]
    if needed > end:
        padded[end:needed] = padded[end - 1 - (needed - end) : end - 1][::-1]
