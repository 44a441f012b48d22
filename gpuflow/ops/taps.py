"""Coefficient tables of the resize of uint8: which samples make an output sample, with which weights.

Whatever gathers by them equals the library that they refer to bit for bit: ``(sum(weight * sample) + 2**(precision - 1))
>> precision``, clamped to 0..255; along one axis, then along the other, uint8 in between.
Sources: ATen's UpSampleKernel.cpp, the int16 weights of its uint8 path, and UpSampleNearest; Pillow's Resample.c, of 22
bits, and its Geometry.c for nearest. Checked in ``tests/unit/test_taps.py``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Resample
from gpuflow.errors import InvalidOptions
from gpuflow.presets.image import Reference

MAX_SIDE = 1 << 16
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
_MAX_PRECISION = 22
_MAX_WEIGHT = 1 << 15  # torchvision's have 16 bits
_ONE_BITS = 14


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Output sample ``i`` is made of ``spans[i] = (first, count)``, weighed by ``weights[i, :count]``.

    ``spans`` is ``(n, 2)`` int32, neither column's sum ever falls; ``weights`` is ``(n, most)`` int32, 0 after ``count``.
    """

    spans: NDArray[np.int32]
    weights: NDArray[np.int32]
    precision: int

    def placed(self, canvas: int, offset: int, source: int) -> Taps:
        """At ``offset`` of ``canvas`` output samples: cut off where it goes beyond them, no samples where it does not
        reach. ``source``: how many samples there are to take from."""
        have = len(self.spans)
        if (canvas, offset) == (have, 0):
            return self
        before, cut = max(0, offset), max(0, -offset)
        count = max(0, min(have - cut, canvas - before))
        spans = np.zeros((canvas, 2), np.int32)
        spans[before + count :, 0] = source
        weights = np.zeros((canvas, self.weights.shape[1]), np.int32)
        placed, kept = slice(before, before + count), slice(cut, cut + count)
        spans[placed], weights[placed] = self.spans[kept], self.weights[kept]
        return Taps(spans, weights, self.precision)

    def packed(self) -> NDArray[np.int32]:
        """As kernels read it: the numbers of one sample, the precision, then of each sample first, count and weights."""
        samples = np.concatenate([self.spans, self.weights], 1)
        return np.concatenate([np.array([samples.shape[1], self.precision], np.int32), samples.ravel()])


@functools.lru_cache(maxsize=64)
def taps(source: int, target: int, resample: Resample, *, reference: Reference = "torchvision") -> Taps:
    """The table from ``source`` to ``target`` samples; the same number is a plain copy. Lanczos is always Pillow's.

    Raises:
        InvalidOptions: a side out of 1 .. 65536.
    """
    if not (0 < source <= MAX_SIDE and 0 < target <= MAX_SIDE):
        raise InvalidOptions(f"a side lies in 1 .. {MAX_SIDE}; got {source} to {target}")
    if source == target:
        return _picked(np.arange(target))
    if resample == "nearest":
        return _picked(_NEAREST[reference](source, target))
    return _antialiased(source, target, resample, "pillow" if resample == "lanczos" else reference)


def axis_table(
    source: int, target: int, resample: Resample, *, canvas: int, offset: int, reference: Reference = "torchvision"
) -> NDArray[np.int32]:
    """What a kernel needs to resize along one axis and to place the result on a canvas. Raises as ``taps``."""
    return taps(source, target, resample, reference=reference).placed(canvas, offset, source).packed()


def _picked(samples: NDArray[np.integer[Any]]) -> Taps:
    """One sample each, as it is."""
    spans = np.stack([samples, np.ones_like(samples)], 1).astype(np.int32)
    return Taps(spans, np.full((len(samples), 1), 1 << _ONE_BITS, np.int32), _ONE_BITS)


def _nearest_in_torchvision(source: int, target: int) -> NDArray[np.integer[Any]]:
    centers = np.arange(target, dtype=np.float32) + np.float32(0.5)  # it computes in float32
    return np.minimum((centers * (np.float32(source) / np.float32(target))).astype(np.int64), source - 1)


def _nearest_in_pillow(source: int, target: int) -> NDArray[np.integer[Any]]:
    scale = source / target
    steps = np.full(target, scale)
    steps[0] = scale * 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), source - 1)  # it adds step after step


def _antialiased(source: int, target: int, resample: str, reference: Reference) -> Taps:
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
    exact /= np.cumsum(exact, 1)[:, -1:]  # summed one after another, as the sources do, not in pairs
    precision = _MAX_PRECISION if reference == "pillow" else _precision(float(exact.max()))
    scaled = exact * (1 << precision)
    weights = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)
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


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3.0), 0.0)


def _sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    angles = np.where(x == 0.0, 1.0, x * np.pi)
    return np.where(x == 0.0, 1.0, np.sin(angles) / angles)


_FILTERS: dict[str, Any] = {"bilinear": _triangle, "bicubic": _cubic, "lanczos": _lanczos}
_NEAREST: dict[str, Any] = {"torchvision": _nearest_in_torchvision, "pillow": _nearest_in_pillow}
