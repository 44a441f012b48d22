"""Mel levels of padded samples on the CPU: frames, window, spectrum, power and filters, block by block in the cache.

30 s of sound and 128 bands take 2.3 ms on one thread of a two-core machine, where numpy's transform alone takes 2.4: MKL's,
which torch brings, takes 0.7; the filters 0.3, as sums of weighted rows (``embedding_bag``), a matrix product 0.9. It keeps
to the calling thread: a team of two gained nothing there, and on a busy machine took ten times as long. Where a spec is of
float64, every step is, from a frame's samples on.

No frame's bits depend on another's: every step works on a frame alone, in an order that its length gives. (A product of
matrices does not: one row goes through another kernel than two.)
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.mel_tables import inset, mel_tables
from gpuflow.presets.mel import MelSpec
from gpuflow.workers import calm_torch

if TYPE_CHECKING:
    import torch

BLOCK_FRAMES = 640
"""What a block works on takes 4 MB. Each of its calls gives up the interpreter's lock: two threads side by side take 1.9 ms
a clip of 30 s, by blocks of 160 frames 2.8; one thread alone 3.3 and 3.1."""
_LANES = 16  # columns come in multiples of it: fbgemm keeps a kernel for each number of columns


def mel_power(padded: NDArray[np.float32], spec: MelSpec, *, first: int, count: int, out: NDArray[Any]) -> None:
    """Write the mel levels of frames ``first .. first + count``, before the floor and the logarithm.

    Args:
        padded: ``(n,)`` float32, contiguous: the clip with its padding at both ends; frame ``f`` begins at ``f *
            spec.hop_length``.
        out: ``(n_mels, count)`` of any strides, of the spec's precision. A frame's bits are the same whatever
            ``first`` and ``count`` are.
    """
    import torch

    if not count:
        return
    samples = torch.from_numpy(np.require(padded, requirements="W"))  # torch warns of what is read-only
    with _one_thread():
        block = _Block(spec, min(count, BLOCK_FRAMES))
        for begin in range(0, count, BLOCK_FRAMES):
            frames = min(BLOCK_FRAMES, count - begin)
            out[:, begin : begin + frames] = block.levels(samples, first + begin, frames)


class _Tables(NamedTuple):
    """The window; the bins that each band sums, band after band, their weights, and where each band begins."""

    window: torch.Tensor
    bins: torch.Tensor
    begins: torch.Tensor
    weights: torch.Tensor


class _Block:
    """What so many frames are computed in; kept from block to block, so that it stays in the cache."""

    def __init__(self, spec: MelSpec, frames: int) -> None:
        import torch

        bins = spec.n_fft // 2 + 1
        self._spec, self._tables = spec, _tables(spec)
        self._windowed = torch.zeros((frames, spec.n_fft), dtype=self._tables.window.dtype)
        self._power, self._square = (np.empty((frames, bins), spec.precision) for _ in range(2))
        self._turned = np.zeros((bins, -(-frames // _LANES) * _LANES), spec.precision)

    def levels(self, samples: torch.Tensor, first: int, frames: int) -> NDArray[Any]:
        """``(n_mels, frames)`` of the frames from ``first`` on."""
        import torch

        self._window(samples, first, frames)
        self._turned[:, :frames].T[...] = self._power_of(torch.fft.rfft(self._windowed[:frames]).numpy())
        _, bins, begins, weights = self._tables
        turned = torch.from_numpy(self._turned)
        sums, *_ = torch.embedding_bag(turned, bins, begins, mode=0, per_sample_weights=weights)
        found: NDArray[Any] = sums.numpy()[:, :frames]
        return found

    def _window(self, samples: torch.Tensor, first: int, frames: int) -> None:
        """The frames' samples times the window, between zeros."""
        import torch

        spec, left = self._spec, inset(self._spec)
        taken = samples.as_strided((frames, spec.win_length), (spec.hop_length, 1), first * spec.hop_length + left)
        if spec.remove_dc or spec.frame_preemphasis:
            taken = torch.from_numpy(_conditioned(taken.numpy(), spec))
        torch.mul(taken, self._tables.window, out=self._windowed[:frames, left : left + spec.win_length])

    def _power_of(self, spectrum: NDArray[Any]) -> NDArray[Any]:
        """``(frames, bins)``: magnitudes to the spec's power."""
        power, square = self._power[: len(spectrum)], self._square[: len(spectrum)]
        np.square(spectrum.real, out=power)
        np.square(spectrum.imag, out=square)
        np.add(power, square, out=power)
        return np.sqrt(power, out=power) if self._spec.power == 1 else power


def _conditioned(samples: NDArray[np.float32], spec: MelSpec) -> NDArray[Any]:
    """Frames without their means, pre-emphasised. By numpy: torch may fuse a product and a sum, in some lanes only."""
    frames: NDArray[Any] = samples.astype(spec.precision, copy=False)
    if spec.remove_dc:
        frames = frames - frames.mean(axis=1, keepdims=True)
    if not spec.frame_preemphasis:
        return frames
    made = np.empty(frames.shape, frames.dtype)
    np.multiply(frames[:, :-1], spec.frame_preemphasis, out=made[:, 1:])
    np.subtract(frames[:, 1:], made[:, 1:], out=made[:, 1:])
    np.multiply(frames[:, 0], 1 - spec.frame_preemphasis, out=made[:, 0])
    return made


@functools.lru_cache(maxsize=32)
def _tables(spec: MelSpec) -> _Tables:
    import torch

    window, filters = mel_tables(spec)
    bands, bins = np.nonzero(filters)
    begins = np.searchsorted(bands, np.arange(len(filters)))
    return _Tables(*(torch.from_numpy(np.array(each)) for each in (window, bins, begins, filters[bands, bins])))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch's work is done by this thread alone: on a decode worker from now on, elsewhere for the time being."""
    import torch

    calm_torch()
    usual = torch.get_num_threads()
    if usual == 1:
        yield
        return
    torch.set_num_threads(1)  # 0.15 us
    try:
        yield
    finally:
        torch.set_num_threads(usual)
