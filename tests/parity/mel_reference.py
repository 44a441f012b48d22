"""Mel features in float64, written from ``MelSpec``'s docstring and from nothing else: slow and plain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.presets.mel import MelSpec

Array = NDArray[np.float64]
_FRAMES = 7  # at once, for speed alone: their product with the filters is too small for BLAS to start threads


def reference(samples: Any, spec: MelSpec) -> Array:
    """The features of a clip, ``(n,)`` of any float type, as the spec lays them out; split ones have a first axis of parts."""
    clip = np.asarray(samples)
    if spec.max_samples is not None:
        clip = clip[: spec.max_samples]
    parts = _parts(clip, spec)
    if parts is None:
        whole = _features(clip, spec)
        return _cut(whole, spec) if spec.split == "after_mel" else whole
    made = [_features(clip[first:last], spec) for first, last in parts]
    axis = 0 if spec.layout == "TM" else 1
    longest = max(part.shape[axis] for part in made)
    return np.stack([_lengthened(part, longest, axis) for part in made])


def _parts(clip: NDArray[Any], spec: MelSpec) -> list[tuple[int, int]] | None:
    size, count = spec.split_frames * spec.hop_length, len(clip)
    if spec.split == "before_mel":
        found = [(first, min(first + size, count)) for first in range(0, max(count, 1), size)]
    elif spec.split == "quietest":
        found, first = [], 0
        while first + size < count:
            last = _quietest(clip, first + size - spec.split_search_samples, first + size, spec.split_window_samples)
            last = max(first + 1, last)
            found.append((first, last))
            first = last
        found.append((first, count))
    else:
        return None
    return found[: spec.max_splits]


def _quietest(clip: NDArray[Any], first: int, last: int, window: int) -> int:
    if last - first <= window:
        return (first + last) // 2
    starts = range(first, last - window, window)
    loudness = [math.sqrt(np.mean(clip[start : start + window].astype(np.float64) ** 2)) for start in starts]
    return starts[int(np.argmin(loudness))]


def _cut(whole: Array, spec: MelSpec) -> Array:
    axis = 0 if spec.layout == "TM" else 1
    parts = np.split(whole, whole.shape[axis] // spec.split_frames, axis=axis)
    return np.stack(parts[: spec.max_splits])


def _lengthened(part: Array, length: int, axis: int) -> Array:
    wanted = [(0, length - side if here == axis else 0) for here, side in enumerate(part.shape)]
    return np.pad(part, wanted)


def _features(clip: NDArray[Any], spec: MelSpec) -> Array:
    own = max(len(clip), spec.min_samples)
    signal = _signal(clip, own, spec)
    if spec.kind == "raw":
        return _raw(signal, own, spec)
    count = _frames(len(signal), spec)
    levels = _affine(_logs(_levels(signal, count, spec), spec), spec)
    if spec.delta_window:
        levels = np.concatenate([levels, _deltas(levels, spec.delta_window)], axis=1)
    valid = min(_valid(own, spec), count)
    if spec.normalize == "feature":
        mean = levels[:valid].mean(axis=0) if valid else 0.0
        variance = ((levels[:valid] - mean) ** 2).sum(axis=0) / (valid - 1) if valid > 1 else np.zeros(levels.shape[1])
        by = np.sqrt(variance + spec.norm_eps) if spec.eps_in_sqrt else np.sqrt(variance) + spec.norm_eps
        levels = (levels - mean) / by
    if spec.zero_invalid:
        levels[valid:] = 0
    levels = np.pad(levels, ((0, -count % spec.frame_multiple), (0, 0)))
    rows = len(levels) // spec.stack
    stacked = levels[: rows * spec.stack].reshape(rows, spec.stack * levels.shape[1])
    return stacked if spec.layout == "TM" else stacked.T


def _signal(clip: NDArray[Any], own: int, spec: MelSpec) -> Array:
    """Padded, scaled, dithered and pre-emphasised; without the frames' padding."""
    signal = np.zeros(own)
    signal[: len(clip)] = clip
    signal *= spec.input_scale
    if spec.dither:
        import torch

        generator = torch.Generator().manual_seed(own)
        signal += spec.dither * torch.randn(own, generator=generator).numpy().astype(np.float64)
    if spec.signal_preemphasis and own:
        signal = np.concatenate([signal[:1], signal[1:] - spec.signal_preemphasis * signal[:-1]])
    return np.pad(signal, (0, _padded(own, spec) - own))


def _padded(own: int, spec: MelSpec) -> int:
    if spec.pad_to == "fixed":
        return max(own, spec.pad_samples)
    if spec.pad_to == "multiple":
        return math.ceil(own / spec.pad_samples) * spec.pad_samples
    if spec.pad_to == "frames":
        frames = math.ceil((own // spec.hop_length) / spec.stack) * spec.stack
        return max(own, (frames - 1) * spec.hop_length + 1)
    return own


def _raw(signal: Array, own: int, spec: MelSpec) -> Array:
    if spec.normalize == "clip":
        mean, variance = signal[:own].mean(), signal[:own].var()
        by = math.sqrt(variance + spec.norm_eps) if spec.eps_in_sqrt else math.sqrt(variance) + spec.norm_eps
        signal = (signal - mean) / by
        signal[own:] = 0
    if not spec.frame_samples:
        return signal
    return np.pad(signal, (0, -len(signal) % spec.frame_samples)).reshape(-1, spec.frame_samples)


def _reach(spec: MelSpec) -> int:
    return spec.n_fft if spec.window_at == "centre" else spec.win_length + spec.frame_extra


def _frames(padded: int, spec: MelSpec) -> int:
    count = (padded + spec.pad_left + spec.pad_right - _reach(spec)) // spec.hop_length + 1
    count -= 1 if spec.drop_last else 0
    if spec.pad_to == "frames":
        count = min(count, math.ceil((padded // spec.hop_length) / spec.stack) * spec.stack)
    return max(count, 0)


def _levels(signal: Array, count: int, spec: MelSpec) -> Array:
    """``(count, n_mels)``, before the floor."""
    mode: Any = spec.pad_mode
    signal = np.pad(signal, (spec.pad_left, spec.pad_right), mode=mode)
    inset = (spec.n_fft - spec.win_length) // 2 if spec.window_at == "centre" else 0
    window, filters = _window(spec), _filters(spec)
    levels = np.zeros((count, spec.n_mels))
    for begin in range(0, count, _FRAMES):
        firsts = inset + spec.hop_length * np.arange(begin, min(begin + _FRAMES, count))
        frames = np.stack([signal[first : first + spec.win_length] for first in firsts])
        if not frames.any():
            continue
        if spec.remove_dc:
            frames -= frames.mean(axis=1, keepdims=True)
        if spec.frame_preemphasis:
            before = frames.copy()
            frames[:, 1:] -= spec.frame_preemphasis * before[:, :-1]
            frames[:, 0] = before[:, 0] * (1 - spec.frame_preemphasis)
        buffers = np.zeros((len(frames), spec.n_fft))
        buffers[:, inset : inset + spec.win_length] = frames * window
        levels[begin : begin + len(frames)] = np.abs(np.fft.rfft(buffers)) ** spec.power @ filters.T
    return levels


def _window(spec: MelSpec) -> Array:
    around = spec.win_length if spec.periodic else max(spec.win_length - 1, 1)
    wave = np.cos(2 * np.pi * np.arange(spec.win_length) / around)
    if spec.window == "hann":
        return np.asarray(0.5 - 0.5 * wave)
    if spec.window == "hamming":
        return np.asarray(0.54 - 0.46 * wave)
    if spec.window == "povey":
        return np.asarray((0.5 - 0.5 * wave) ** 0.85)
    return np.ones(spec.win_length)


def _mel(hz: Array, scale: str) -> Array:
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hz / 700))
    if scale == "kaldi":
        return np.asarray(1127 * np.log(1 + hz / 700))
    above = 15 + np.log(np.maximum(hz, 1000) / 1000) / math.log(6.4) * 27
    return np.where(hz < 1000, hz * 0.015, above)


def _hz(mel: Array, scale: str) -> Array:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mel / 2595) - 1))
    if scale == "kaldi":
        return np.asarray(700 * (np.exp(mel / 1127) - 1))
    return np.where(mel < 15, mel / 0.015, 1000 * np.exp((mel - 15) / 27 * math.log(6.4)))


def _filters(spec: MelSpec) -> Array:
    """``(n_mels, n_fft // 2 + 1)``."""
    ends = _mel(np.array([spec.f_min, spec.f_max]), spec.mel_scale)
    edges = np.linspace(ends[0], ends[1], spec.n_mels + 2)
    bins = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate / spec.n_fft
    if spec.triangles == "mel":
        bins = _mel(bins, spec.mel_scale)
    else:
        edges = _hz(edges, spec.mel_scale)
    filters = np.zeros((spec.n_mels, len(bins)))
    for band in range(spec.n_mels):
        low, middle, high = edges[band : band + 3]
        rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
        filters[band] = np.clip(np.minimum(rising, falling), 0, None)
        if spec.mel_norm == "slaney":
            filters[band] *= 2 / (high - low)
    return filters


def _logs(levels: Array, spec: MelSpec) -> Array:
    levels = np.maximum(levels, spec.floor) if spec.floor_mode == "max" else levels + spec.floor
    return np.asarray(np.log10(levels) if spec.log == "log10" else np.log(levels))


def _affine(logs: Array, spec: MelSpec) -> Array:
    if spec.clamp == "clip_max" and logs.size:
        logs = np.maximum(logs, logs.max() - spec.clamp_range)
    elif spec.clamp == "fixed":
        logs = np.maximum(logs, spec.fixed_max - spec.clamp_range)
    logs = logs * spec.scale + spec.offset
    if spec.bin_mean:
        logs = logs - np.array(spec.bin_mean)
    return logs / np.array(spec.bin_std) if spec.bin_std else logs


def _deltas(levels: Array, window: int) -> Array:
    """Source: torchaudio's ``compute_deltas``."""
    half = (window - 1) // 2
    padded = np.pad(levels, ((half, half), (0, 0)), mode="edge")
    count = len(levels)
    steps = [
        step * (padded[half + step : half + step + count] - padded[half - step : half - step + count])
        for step in range(1, half + 1)
    ]
    return np.asarray(sum(steps) / (2 * sum(step**2 for step in range(1, half + 1))))


def _valid(own: int, spec: MelSpec) -> int:
    """Frames that hold the clip, before stacking."""
    hop = spec.hop_length
    if spec.valid == "ceil_hop":
        return math.ceil(own / hop)
    if spec.valid == "floor_hop":
        return own // hop
    if spec.valid == "floor_hop_p1":
        return own // hop + 1
    if spec.valid == "win":
        return len(range(spec.win_length - 1, own, hop))
    return len(range(spec.win_length + spec.frame_extra - 1, own + spec.pad_left, hop))
