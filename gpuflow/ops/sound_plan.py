"""How a clip on the host comes to the rate that is wanted on a GPU: by which table, how much of it, or by the CPU before."""

from __future__ import annotations

from dataclasses import dataclass

from gpuflow.config import Limits
from gpuflow.ops.audio import down_mix, resample, result_count
from gpuflow.ops.pcm import StoredPcm, to_float
from gpuflow.ops.resample_table import NoTable, ResampleTable, frames_needed, resample_table


@dataclass(frozen=True, slots=True, eq=False)
class SoundPlan:
    """``outputs`` samples of ``pcm``, of the mean of its channels where it is ``mono``, at another rate by ``table``.

    ``fallback``: why the CPU has resampled already; ``None`` where a kernel does or nobody has to.
    """

    pcm: StoredPcm
    outputs: int
    table: ResampleTable | None = None
    mono: bool = True
    fallback: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result, float32."""
        return 1 if self.mono else self.pcm.channels, self.outputs

    @property
    def as_it_lies(self) -> bool:
        """Whether the samples are the result already."""
        return self.table is None and self.pcm.encoding == "f32" and self.pcm.channels == 1


def sound_plan(
    pcm: StoredPcm, to_hz: int | None, *, mono: bool = True, limits: Limits, max_outputs: int | None = None
) -> SoundPlan:
    """The plan of a clip on the host, at ``to_hz`` or its own rate; what is beyond ``max_outputs`` is cut off, and so is
    what none of the outputs sees.

    Raises:
        LimitExceeded: the result would take more than ``Limits.max_pcm_bytes``, or the rate changes too much.
        NoSuchStream: no sample is left.
    """
    rate = to_hz or pcm.sample_rate
    outputs = result_count(pcm.count, pcm.sample_rate, rate, channels=1 if mono else pcm.channels, limits=limits)
    outputs = outputs if max_outputs is None else min(outputs, max_outputs)
    if rate == pcm.sample_rate:
        return SoundPlan(pcm.head(outputs), outputs, mono=mono)
    table = resample_table(pcm.sample_rate, rate)
    if isinstance(table, NoTable):
        planar = to_float(pcm)
        resampled = resample(down_mix(planar) if mono else planar, pcm.sample_rate, rate)[:, :outputs]
        return SoundPlan(StoredPcm.of(resampled, rate), outputs, mono=mono, fallback=table.reason)
    return SoundPlan(pcm.head(frames_needed(table, outputs)), outputs, table, mono)
