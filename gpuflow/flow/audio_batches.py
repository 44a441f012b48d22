"""Sounds of concurrent requests, resampled and turned into features in one sequence of launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from gpuflow.flow.batches import Batches, Job, together
from gpuflow.observe import Counters
from gpuflow.ops.audio_gpu import Placing

MAX_BATCH_BYTES = 256 << 20  # each of two batches at once; also, none waits for a second of others. Not measured yet

Place = Callable[[Sequence[Placing]], None]


@dataclass(slots=True, eq=False)
class SoundJob(Job):
    """One sound on its way into its block."""

    placing: Placing


class AudioBatches:
    """A device's batches of sounds. ``submit`` from any thread; ``close`` it.

    A batch takes at most ``MAX_BATCH_BYTES`` of the GPU's memory beside its blocks. A sound that takes more goes alone;
    ``Limits.max_pcm_bytes`` bounds what it has of samples as they are stored, as float32, and of noise, and its levels are
    at most ``4 * n_mels / hop_length`` bytes a sample: for the built-in specs together four times that, 1 GiB by default,
    where parts do not overlap.

    Args:
        place: writes sounds into their blocks (``place_on_gpu``).
        counters: where batches and their sounds are counted.
    """

    def __init__(self, place: Place, counters: Counters) -> None:
        self._place = place
        self._counters = counters
        self._batches: Batches[SoundJob] = Batches(
            "sounds", self._work, weight=lambda job: job.placing.gpu_bytes, max_weight=MAX_BATCH_BYTES
        )

    def submit(self, job: SoundJob) -> Future[None]:
        """See ``Batches``. The job's block holds the result when the future ends."""
        return self._batches.submit(job)

    def close(self) -> None:
        """See ``Batches``."""
        self._batches.close()

    def _work(self, batch: Sequence[SoundJob]) -> None:
        self._counters.add("gpuflow_audio_batches_total")
        self._counters.add("gpuflow_audio_batch_sounds_total", len(batch))
        together(batch, lambda jobs: self._place([job.placing for job in jobs]))
