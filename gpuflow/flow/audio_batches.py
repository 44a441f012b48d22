"""Sounds of concurrent requests, resampled and turned into features in one sequence of launches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from gpuflow.flow.batches import Batches, Job
from gpuflow.observe import Counters
from gpuflow.ops.audio_gpu import Placing

_MAX_BYTES = 256 << 20  # of samples, so that none waits for a second of others; not measured on a GPU yet

Place = Callable[[Sequence[Placing]], None]


@dataclass(slots=True, eq=False)
class SoundJob(Job):
    """One sound on its way into its block."""

    placing: Placing

    @property
    def weight(self) -> int:
        """Bytes of samples."""
        return self.placing.sound.pcm.nbytes


class AudioBatches:
    """A device's batches of sounds. ``submit`` from any thread; ``close`` it.

    Args:
        place: writes sounds into their blocks (``place_on_gpu``).
        counters: where batches and their sounds are counted.
    """

    def __init__(self, place: Place, counters: Counters) -> None:
        self._place = place
        self._counters = counters
        self._batches: Batches[SoundJob] = Batches("sounds", self._work, max_weight=_MAX_BYTES)

    def submit(self, job: SoundJob) -> Future[None]:
        """See ``Batches``. The job's block holds the result when the future ends."""
        return self._batches.submit(job)

    def close(self) -> None:
        """See ``Batches``."""
        self._batches.close()

    def _work(self, batch: Sequence[SoundJob]) -> None:
        """All together; where that fails, one after another, which shows whose it is."""
        self._counters.add("gpuflow_audio_batches_total")
        self._counters.add("gpuflow_audio_batch_sounds_total", len(batch))
        if batch and (error := self._error_of(batch)) is not None:
            for job in batch:
                job.error = error if len(batch) == 1 else self._error_of([job])

    def _error_of(self, jobs: Sequence[SoundJob]) -> BaseException | None:
        """What went wrong, if anything; nothing is under way on the jobs' blocks when it returns."""
        try:
            self._place([job.placing for job in jobs])
            for job in jobs:
                job.placing.lease.synchronize()
        except Exception as error:  # noqa: BLE001 - it is the jobs'
            for job in jobs:
                with contextlib.suppress(Exception):  # a device that is lost works on nothing
                    job.placing.lease.synchronize()
            return error
        return None
