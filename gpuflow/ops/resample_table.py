"""soxr's own filter as a table for a GPU: found out by what soxr makes of impulses, and held to what it makes of noise.

soxr HQ is linear, and but for its first outputs it does the same every ``up`` outputs and ``down`` inputs. It works in
stages, each of which begins at time 0; what a stage's filter would give for earlier times is missing in the next, so the
first outputs are 1e-3 off the periodic filter. These outputs have rows of their own in the table, and so the table gives
what soxr gives, from the first sample to the last, but for the rounding of its float32 transforms (130 dB down).
"""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_WEIGHTS = 1 << 20  # 4 MiB: soxr itself interpolates where `up` is above 2048
MAX_TAPS = 10_240  # of which the kernel's shared memory holds as many frames
MAX_FACTOR = 64
MAX_PROBE_FRAMES = 16 << 20
MAX_CACHE_BYTES = 32 << 20
LEAST_SNR_DB = 115.0

_REACH = 104  # frames that a filter sees on either side, where it does not lower the rate: 96 to 101 are not 0
_CHUNK_FRAMES = 1 << 18
_START_IMPULSES = 64
_CHECKED_OUTPUTS = 1_024
_NEGLIGIBLE = 1e-7  # of the largest weight
_START_ERROR = 1e-6  # of the norm of a row of weights


@dataclass(frozen=True, slots=True, eq=False)
class ResampleTable:
    """``out[k] = sum(weights[t // 4, column(k), t % 4] * x[k * down // up - before + t])``, with ``column(k) = k`` for the first
    ``starts`` outputs and ``starts + k % up`` for the others. ``weights``: ``(taps // 4, starts + up, 4)`` float32, read-only."""

    up: int
    down: int
    before: int
    starts: int
    weights: NDArray[np.float32]

    @property
    def taps(self) -> int:
        """Inputs of one output, zeros among them up to a multiple of 4."""
        return 4 * len(self.weights)

    def rows(self, outputs: NDArray[np.int64]) -> NDArray[np.float32]:
        """``(len(outputs), taps)``: the weights of each output."""
        columns = np.where(outputs < self.starts, outputs, self.starts + outputs % self.up)
        return self.weights[:, columns].transpose(1, 0, 2).reshape(len(outputs), -1)


@dataclass(frozen=True, slots=True)
class NoTable:
    """Why the CPU has to resample."""

    reason: str


def resampled_count(count: int, from_hz: int, to_hz: int) -> int:
    """How many samples soxr makes of so many, to the last bit of its arithmetic."""
    return int(count / (from_hz / to_hz) + 0.5)


def frames_needed(table: ResampleTable, outputs: int) -> int:
    """How many frames the first outputs see."""
    return (outputs - 1) * table.down // table.up - table.before + table.taps if outputs else 0


def resample_table(from_hz: int, to_hz: int) -> ResampleTable | NoTable:
    """The table of a ratio; found out at its first use, in 2 to 700 ms, and kept while there is room. From any thread."""
    common = math.gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    refused = _refused(up, down)
    if refused is not None:
        return NoTable(f"{from_hz} to {to_hz} Hz is resampled on the CPU: {refused}")
    return _KEPT.table(up, down)


class _Cache:
    """The tables used last, ``MAX_CACHE_BYTES`` of them."""

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[int, int], ResampleTable | NoTable] = OrderedDict()
        self._lock, self._probing = threading.Lock(), threading.Lock()

    def table(self, up: int, down: int) -> ResampleTable | NoTable:
        found = self._find(up, down)
        if found is None:
            with self._probing:  # one at a time: a second one may want the same
                found = self._find(up, down)
                if found is None:
                    found = _checked(up, down)
                    self._keep(up, down, found)
        return found

    def _find(self, up: int, down: int) -> ResampleTable | NoTable | None:
        with self._lock:
            if (up, down) in self._tables:
                self._tables.move_to_end((up, down))
            return self._tables.get((up, down))

    def _keep(self, up: int, down: int, table: ResampleTable | NoTable) -> None:
        with self._lock:
            self._tables[up, down] = table
            while len(self._tables) > 1 and sum(map(_nbytes, self._tables.values())) > MAX_CACHE_BYTES:
                self._tables.popitem(last=False)


def _nbytes(table: ResampleTable | NoTable) -> int:
    return table.weights.nbytes if isinstance(table, ResampleTable) else 256


_KEPT = _Cache()


@functools.lru_cache(maxsize=1024)
def _refused(up: int, down: int) -> str | None:
    """By arithmetic alone: rates come from outside."""
    if max(up / down, down / up) > MAX_FACTOR:
        return f"the rate changes more than {MAX_FACTOR}-fold"
    reach = _reach(up, down)
    if 2 * reach * up > MAX_WEIGHTS:
        return f"its filter has {up} phases of {2 * reach} taps, more than {MAX_WEIGHTS} weights"
    if 2 * reach > MAX_TAPS or down * _spacing(reach, down) > MAX_PROBE_FRAMES:
        return f"its filter has {up} phases of {2 * reach} taps, {down} frames apart"
    return None


def _reach(up: int, down: int) -> int:
    return math.ceil(_REACH * max(1.0, down / up))


def _spacing(reach: int, down: int) -> int:
    """From impulse to impulse: no output sees two, and they fall on every remainder of ``down``."""
    spacing = 2 * reach + 1
    while math.gcd(spacing, down) > 1:
        spacing += 1
    return spacing


def _checked(up: int, down: int) -> ResampleTable | NoTable:
    """The table, if it does to noise what soxr does."""
    periodic, before = _trimmed(_periodic(up, down), _reach(up, down) - 1)
    starts = _starts(periodic, before, up, down)
    table = ResampleTable(up, down, before, len(starts), _packed(np.concatenate([starts, periodic])))
    snr = _snr_db(table)
    if snr < LEAST_SNR_DB:
        return NoTable(f"{down}:{up} is resampled on the CPU: soxr is not periodic there, {snr:.0f} dB")
    return table


def _periodic(up: int, down: int) -> NDArray[np.float32]:
    """``(up, 2 * reach)``: of output ``k % up``, the weight of input ``k * down // up - reach + 1 + t``."""
    reach = _reach(up, down)
    spacing, lead = _spacing(reach, down), 4 * reach
    found = _of_impulses(up, down, lead + spacing * np.arange(down), lead + spacing * down)
    outputs = np.arange(len(found))
    inputs = outputs * down // up
    nearest = np.clip((inputs - lead + spacing // 2) // spacing, 0, down - 1)
    taps = lead + spacing * nearest - inputs + reach - 1
    inside = (taps >= 0) & (taps < 2 * reach)
    weights = np.zeros((up, 2 * reach), np.float32)
    weights[outputs[inside] % up, taps[inside]] = found[inside]
    return weights


def _of_impulses(up: int, down: int, places: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """What soxr makes of a clip of zeros with ones at ``places``, which ascend."""
    import soxr

    stream, made = soxr.ResampleStream(down, up, 1, "float32", "HQ"), []
    for first in range(0, count, _CHUNK_FRAMES):
        chunk = np.zeros(min(_CHUNK_FRAMES, count - first), np.float32)
        low, high = np.searchsorted(places, (first, first + len(chunk)))
        chunk[places[low:high] - first] = 1
        made.append(stream.resample_chunk(chunk, last=first + len(chunk) == count))
    return np.concatenate(made)


def _trimmed(weights: NDArray[np.float32], before: int) -> tuple[NDArray[np.float32], int]:
    """Without the taps at the ends that are 0 but for rounding."""
    peaks = np.abs(weights).max(axis=0)
    kept = np.flatnonzero(peaks > _NEGLIGIBLE * peaks.max())
    return weights[:, kept[0] : kept[-1] + 1], before - int(kept[0])


def _starts(periodic: NDArray[np.float32], before: int, up: int, down: int) -> NDArray[np.float32]:
    """``(starts, taps)``: the weights of the first outputs, as long as they are not those of the later ones."""
    taps = periodic.shape[1]
    outputs = np.arange(-(-taps * up // down))
    seen = outputs[:, None] * down // up - before + np.arange(taps)  # the input that a tap sees
    weights: NDArray[np.float32] = periodic[outputs % up]
    error = np.zeros(len(outputs))
    negligible = _START_ERROR * float(np.linalg.norm(periodic, axis=1).max())
    for first in range(0, taps, _START_IMPULSES):
        row, tap = np.nonzero((seen >= first) & (seen < first + _START_IMPULSES))
        exact = _of_one_impulse(up, down, first, first + 2 * taps + _START_IMPULSES)[row, seen[row, tap] - first]
        difference = exact.astype(np.float64) - weights[row, tap]
        weights[row, tap] = exact
        error += np.bincount(row, difference**2, len(outputs))
        if not (np.abs(difference) > negligible).any():
            break
    off = np.flatnonzero(np.sqrt(error) > negligible)
    return weights[: off[-1] + 1 if len(off) else 0]


def _of_one_impulse(up: int, down: int, first: int, count: int) -> NDArray[np.float32]:
    """``(outputs, _START_IMPULSES)``: what soxr makes of a clip of one impulse at ``first``, of one at the next, and so on."""
    import soxr

    clips = np.zeros((count, _START_IMPULSES), np.float32)
    clips[first + np.arange(_START_IMPULSES), np.arange(_START_IMPULSES)] = 1
    found: NDArray[np.float32] = soxr.resample(clips, down, up, quality="HQ")
    return found


def _packed(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(columns, taps)`` as the kernel reads them: four taps of a column side by side, then the next column."""
    columns, taps = weights.shape
    padded = np.zeros((columns, -(-taps // 4) * 4), np.float32)
    padded[:, :taps] = weights
    packed: NDArray[np.float32] = np.ascontiguousarray(padded.reshape(columns, -1, 4).transpose(1, 0, 2))
    packed.setflags(write=False)
    return packed


def _snr_db(table: ResampleTable) -> float:
    """Of the first outputs of a clip of noise that have no rows of their own, against soxr: above 2048 phases it
    interpolates, and is not periodic."""
    import soxr

    count = table.starts + _CHECKED_OUTPUTS
    frames = frames_needed(table, count)
    noise = np.random.default_rng(0).standard_normal(frames).astype(np.float32)
    expected = soxr.resample(noise, table.down, table.up, quality="HQ")[:count].astype(np.float64)
    padded = np.concatenate([np.zeros(table.before, np.float32), noise])
    outputs = np.arange(table.starts, len(expected))
    error = 0.0
    for part in np.array_split(outputs, 16):
        seen = padded[(part * table.down // table.up)[:, None] + np.arange(table.taps)]
        error += float(((np.einsum("kt,kt->k", table.rows(part), seen, dtype=np.float64) - expected[part]) ** 2).sum())
    return 10 * math.log10(float((expected[table.starts :] ** 2).sum()) / max(error, 1e-300))
