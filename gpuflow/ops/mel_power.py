"""Mel levels of padded samples on the CPU: frames, window, spectrum, power and filters, block by block in the cache."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.mel_tables import inset, mel_tables
from gpuflow.presets.mel import MelSpec

BLOCK_FRAMES = 256  # spectrum and power of a block (1 MiB) stay in the cache


def mel_power(padded: NDArray[np.float32], spec: MelSpec, *, first: int, count: int, out: NDArray[np.float32]) -> None:
    """Write the mel levels of frames ``first .. first + count``, before the floor and the logarithm.

    Args:
        padded: ``(n,)`` float32, contiguous: the clip with its padding at both ends; frame ``f`` begins at ``f *
            spec.hop_length``.
        out: ``(n_mels, count)`` float32 of any strides. A frame's bits are the same whatever ``first`` and ``count`` are.
    """
    window = mel_tables(spec)[0]
    samples = padded[inset(spec) :]
    step = samples.strides[0]
    frames = np.lib.stride_tricks.as_strided(
        samples[first * spec.hop_length :], (count, spec.win_length), (spec.hop_length * step, step), writeable=False
    )
    for begin in range(0, count, BLOCK_FRAMES):
        block = _conditioned(frames[begin : begin + BLOCK_FRAMES], spec) * window
        spectrum = np.fft.rfft(block, spec.n_fft)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        levels = np.sqrt(power) if spec.power == 1 else power
        out[:, begin : begin + len(block)] = _filtered(levels, spec)


def _conditioned(frames: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """Without their means, and pre-emphasised."""
    if spec.remove_dc:
        frames = frames - frames.mean(axis=1, keepdims=True)
    if not spec.frame_preemphasis:
        return frames
    made = frames.copy()
    made[:, 1:] -= np.float32(spec.frame_preemphasis) * frames[:, :-1]
    made[:, 0] *= np.float32(1 - spec.frame_preemphasis)
    return made


def _filtered(power: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """``filters @ power.T`` tap by tap: a triangle has few taps. 1.3 ms for 3,000 frames where BLAS takes 1.0 alone and
    30 beside other workers, because OpenBLAS's threads spin for a core that they do not get."""
    bins = np.ascontiguousarray(power.T)
    mel = np.zeros((spec.n_mels, len(power)), np.float32)
    taps, order = _taps(spec)
    for rows, weights in taps:
        mel[: len(rows)] += bins[rows] * weights
    return mel[order]


@functools.lru_cache(maxsize=16)
def _taps(spec: MelSpec) -> tuple[list[tuple[NDArray[np.intp], NDArray[np.float32]]], NDArray[np.intp]]:
    """The filters' first taps, second taps, ...: bins and weights of the bands that have one, the widest bands first;
    and where each band lies in that order."""
    _, filters = mel_tables(spec)
    bins = [np.flatnonzero(band) for band in filters]
    widest = np.argsort([-len(band) for band in bins], kind="stable")
    taps = []
    for tap in range(len(bins[widest[0]])):
        bands = [band for band in widest if len(bins[band]) > tap]
        rows = np.array([bins[band][tap] for band in bands])
        taps.append((rows, filters[bands, rows][:, None]))
    return taps, np.argsort(widest)
