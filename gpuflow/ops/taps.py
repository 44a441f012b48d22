"""Coefficient tables of the antialiased resize of uint8: which samples make an output sample, with which weights.

The tables are torchvision's, so that whatever gathers by them equals its result bit for bit: ``(sum(weight * sample) +
2**(precision - 1)) >> precision``, clamped to 0..255; first along rows, then along columns, uint8 in between.
Source: ATen's UpSampleKernel.cpp, the int16 weights of its uint8 path; checked in ``tests/unit/test_taps.py``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Resample
from gpuflow.errors import InvalidOptions

MAX_SIDE = 1 << 16
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_MAX_PRECISION = 22
_MAX_WEIGHT = 1 << 15


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Output sample ``i`` is made of ``spans[i] = (first, count)``, weighed by ``weights[i, :count]``.

    ``spans`` is ``(n, 2)`` int32, neither column's sum ever falls; ``weights`` is ``(n, most)`` int16, 0 after ``count``.
    """

    spans: NDArray[np.int32]
    weights: NDArray[np.int16]
    precision: int

    def shown(self, canvas: int, source: int) -> Taps:
        """Centred on ``canvas`` output samples: cut off where there are more, black (no sample) where there are fewer.

        The smaller half of an odd remainder lies before, as in Hugging Face's ``center_crop``. ``source``: how many
        samples there are to take from.
        """
        have = len(self.spans)
        if have == canvas:
            return self
        before, cut = max(0, canvas - have) // 2, max(0, have - canvas) // 2
        kept = slice(cut, cut + min(have, canvas))
        spans = np.zeros((canvas, 2), np.int32)
        spans[before + have :, 0] = source
        weights = np.zeros((canvas, self.weights.shape[1]), np.int16)
        placed = slice(before, before + min(have, canvas))
        spans[placed], weights[placed] = self.spans[kept], self.weights[kept]
        return Taps(spans, weights, self.precision)


def has_taps(resample: Resample) -> bool:
    """Whether this interpolation is a table here; nearest and Lanczos are not."""
    return resample in _SUPPORT


@functools.lru_cache(maxsize=64)
def taps(source: int, target: int, resample: Resample) -> Taps:
    """The table from ``source`` to ``target`` samples; the same number is a plain copy.

    Raises:
        InvalidOptions: a side out of 1 .. 65536, or an interpolation that is no table.
    """
    if not (0 < source <= MAX_SIDE and 0 < target <= MAX_SIDE):
        raise InvalidOptions(f"a side lies in 1 .. {MAX_SIDE}; got {source} to {target}")
    if source == target:
        return _copy(target)
    if resample not in _SUPPORT:
        raise InvalidOptions(f"a table is made for bilinear and bicubic; got {resample!r}")
    return _antialiased(source, target, resample)


def _copy(side: int) -> Taps:
    spans = np.stack([np.arange(side), np.ones(side)], 1).astype(np.int32)
    return Taps(spans, np.full((side, 1), 1 << 14, np.int16), 14)


def _antialiased(source: int, target: int, resample: str) -> Taps:
    scale = source / target
    stretch = max(scale, 1.0)
    support = _SUPPORT[resample] * stretch
    centers = scale * (np.arange(target) + 0.5)
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centers + support + 0.5).astype(np.int64), source) - first
    offsets = np.arange(count.max())
    exact: NDArray[np.float64] = _FILTERS[resample](
        (offsets + first[:, None] - centers[:, None] + 0.5) * (1.0 / stretch)
    )
    exact[offsets >= count[:, None]] = 0.0
    exact /= np.cumsum(exact, 1)[:, -1:]  # summed one after another, as the source does, not in pairs
    precision = _precision(float(exact.max()))
    scaled = exact * (1 << precision)
    weights = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int16)
    return Taps(np.stack([first, count], 1).astype(np.int32), weights, precision)


def _precision(largest: float) -> int:
    """As many bits as the largest weight of the axis leaves room for in 16."""
    return next(
        (bits for bits in range(_MAX_PRECISION) if int(0.5 + largest * (1 << (bits + 1))) >= _MAX_WEIGHT),
        _MAX_PRECISION,
    )


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTERS: dict[str, Any] = {"bilinear": _triangle, "bicubic": _cubic}
