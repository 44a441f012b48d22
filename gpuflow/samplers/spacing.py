"""Evenly spaced numbers as numpy, torch and Rust space and round them, to the last bit and without them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

_LANES = 8  # of torch's kernel, with AVX-512 too; it takes two registers a step


def linspace(start: float, stop: float, count: int) -> list[float]:
    """``numpy.linspace``, both ends included."""
    if count == 1:
        return [float(start)]
    step = (stop - start) / (count - 1)
    if step == 0:
        return [float(start)] * (count - 1) + [float(stop)]
    return [index * step + start for index in range(count - 1)] + [float(stop)]


def truncated(start: int, stop: int, count: int) -> list[int]:
    """``numpy.linspace(..., dtype=int)``, which rounds down."""
    return [math.floor(value) for value in linspace(start, stop, count)]


def rounded(start: int, stop: int, count: int) -> list[int]:
    """``numpy.linspace(...).round().astype(int)``: half to even."""
    return [round(value) for value in linspace(start, stop, count)]


def rounded_away(total: int, count: int) -> list[int]:
    """``count`` positions from 0 to ``total - 1``, as Rust's ``f64::round`` has them: half away from zero."""
    return [_half_up(index * (total - 1) / (count - 1)) for index in range(count)]


def arange_float32(start: float, stop: float, step: float) -> list[int]:
    """``torch.arange(start, stop, step).int()`` of floats on the CPU: float32, so that long clips are not spaced exactly.

    The kernel writes sixteen values at a time; their first is rounded to float32 before the others are counted from it.
    Source: torch 2.11, compared in the tests.
    """
    count = math.ceil((stop - start) / step)
    whole = count - count % (2 * _LANES)
    values = []
    for index in range(count):
        if index < whole:
            lane = index % _LANES
            values.append(_float32(_float32(start + step * (index - lane)) + lane * step))
        else:
            values.append(_float32(start + step * index))
    return [int(value) for value in values]


def float32(value: float) -> float:
    """The nearest float32."""
    return _float32(value)


def unique(values: Iterable[int]) -> list[int]:
    """Without repeats, each at its first place."""
    return list(dict.fromkeys(values))


def paired(values: list[int]) -> list[int]:
    """An even number of them: the last one twice where they are odd, as models that see frames in pairs want."""
    return values + values[-1:] if len(values) % 2 else values


def floor_to(value: float, factor: int) -> int:
    """The largest multiple of ``factor`` that is not above ``value``."""
    return math.floor(value / factor) * factor


def _half_up(value: float) -> int:
    below = math.floor(value)
    return below + (value - below >= 0.5)


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
