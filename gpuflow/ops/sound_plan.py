"""How a clip comes to the rate that is wanted on a GPU: by which table, how much of it, or by the CPU before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from gpuflow.config import Limits
from gpuflow.ops.audio import down_mix, resample, result_count
from gpuflow.ops.pcm import PcmSamples, to_float
from gpuflow.ops.resample_table import NoTable, ResampleTable, frames_needed, resample_table

USUAL_RATES_HZ = frozenset(
    {8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000}
)
"""Between these a GPU resamples: 54 ratios, whose tables take 28 MB and 2 to 700 ms of the CPU once each. A file names any
rate that it likes, and each new ratio would cost as much, for others too."""


@dataclass(frozen=True, slots=True, eq=False)
class SoundPlan:
    """``outputs`` samples of ``pcm``, of the mean of its channels where it is ``mono``, at another rate by ``table``.

    ``fallback``: why the CPU has resampled already; ``None`` where a kernel does or nobody has to.
    """

    pcm: PcmSamples
    outputs: int
    table: ResampleTable | None = None
    mono: bool = True
    fallback: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result, float32."""
        return 1 if self.mono else self.pcm.channels, self.outputs

    def with_samples(self, samples: Any) -> Self:
        """The same of a copy of the samples, say on a GPU."""
        return replace(self, pcm=replace(self.pcm, samples=samples))

    @property
    def as_it_lies(self) -> bool:
        """Whether the samples are the result already."""
        return self.table is None and self.pcm.encoding == "f32" and self.pcm.channels == 1


def sound_plan(
    pcm: PcmSamples,
    to_hz: int | None,
    *,
    mono: bool = True,
    limits: Limits,
    max_outputs: int | None = None,
    on_host: bool = False,
) -> SoundPlan:
    """The plan of a clip, at ``to_hz`` or its own rate: between ``USUAL_RATES_HZ`` by a table, else by the CPU at once, and
    ``on_host`` always so. What is beyond ``max_outputs`` is cut off, and so is what none of the outputs sees. Floats are
    believed to be numbers: ``require_numbers`` looks.

    Raises:
        LimitExceeded: the result would take more than ``Limits.max_pcm_bytes``, or the rate changes too much.
        NoSuchStream: no sample is left.
    """
    rate = to_hz or pcm.sample_rate
    outputs = result_count(pcm.count, pcm.sample_rate, rate, channels=1 if mono else pcm.channels, limits=limits)
    outputs = outputs if max_outputs is None else min(outputs, max_outputs)
    if rate == pcm.sample_rate:
        return SoundPlan(pcm.head(outputs), outputs, mono=mono)
    table = None if on_host else _table(pcm.sample_rate, rate)
    if not isinstance(table, ResampleTable):
        planar = to_float(pcm)
        resampled = resample(down_mix(planar) if mono else planar, pcm.sample_rate, rate)[:, :outputs]
        return SoundPlan(PcmSamples.of(resampled, rate), outputs, mono=mono, fallback=table.reason if table else None)
    return SoundPlan(pcm.head(frames_needed(table, outputs)), outputs, table, mono)


def _table(from_hz: int, to_hz: int) -> ResampleTable | NoTable:
    unusual = [rate for rate in (from_hz, to_hz) if rate not in USUAL_RATES_HZ]
    if unusual:
        return NoTable(f"{from_hz} to {to_hz} Hz is resampled on the CPU: {unusual[0]} Hz is no usual rate")
    return resample_table(from_hz, to_hz)
