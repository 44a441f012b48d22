"""Images of concurrent requests, decoded in one call and transformed in one sequence of launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpuflow.codecs.base import BatchDecoder, Encoded, ImageInfo
from gpuflow.codecs.orientation import oriented
from gpuflow.flow.batches import Batches, Job, together
from gpuflow.flow.image import Region, cropped
from gpuflow.observe import Counters
from gpuflow.ops.transform import Transform
from gpuflow.ops.work import Work

_MAX_PIXELS = 32 << 20  # so that no image waits for a second of others; not measured on a GPU yet


@dataclass(slots=True, eq=False)
class ImageJob(Job):
    """One image. ``pixels``: where it is decoded to, ``(H, W, 3)`` uint8 as stored; without ``data``, what was decoded
    elsewhere, as it is shown. ``region``: what is taken of it, as shown. ``finish``: what ``engine`` is to do with it as it
    is shown; without them it stays as decoded."""

    info: ImageInfo
    pixels: Any
    data: bytes | None = None
    region: Region | None = None
    engine: Transform | None = None
    finish: Callable[[Any], Work] | None = None

    def let_go(self) -> None:
        """See ``Job``."""
        self.pixels = self.finish = None
        Job.let_go(self)


class ImageBatches:
    """A device's batches of images. ``submit`` from any thread; ``close`` it.

    Args:
        decoder: what decodes; asked for jobs that have ``data``.
        counters: where batches and their images are counted.
    """

    def __init__(self, decoder: BatchDecoder, counters: Counters) -> None:
        self.decoder = decoder
        self._counters = counters
        self._batches: Batches[ImageJob] = Batches(
            "images", self._work, weight=lambda job: job.info.width * job.info.height, max_weight=_MAX_PIXELS
        )

    def submit(self, job: ImageJob) -> Future[None]:
        """See ``Batches``."""
        return self._batches.submit(job)

    def close(self) -> None:
        """See ``Batches``."""
        self._batches.close()

    def _work(self, batch: Sequence[ImageJob]) -> None:
        self._counters.add("gpuflow_image_batches_total")
        self._counters.add("gpuflow_image_batch_images_total", len(batch))
        self._decode([job for job in batch if job.data is not None])
        whole = [job for job in batch if job.error is None]
        for engine in {job.engine for job in whole if job.engine is not None}:
            together([job for job in whole if job.engine is engine], partial(_transform, engine))

    def _decode(self, jobs: Sequence[ImageJob]) -> None:
        if not jobs:
            return
        errors = self.decoder.decode_batch([Encoded(job.data or b"", job.info, job.pixels) for job in jobs])
        for job, error in zip(jobs, errors, strict=True):
            job.error, job.pixels = error, cropped(oriented(job.pixels, job.info.orientation), job.region)


def _transform(engine: Transform, jobs: Sequence[ImageJob]) -> None:
    engine.apply([job.finish(job.pixels) for job in jobs if job.finish is not None])
