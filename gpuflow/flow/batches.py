"""Images of concurrent requests, decoded in one call and transformed in one sequence of launches.

A batch forms while the device is busy: whatever waits when a thread becomes free is its next batch. Nobody waits for a
batch to fill.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from gpuflow.codecs.base import BatchDecoder, Encoded, ImageInfo
from gpuflow.codecs.orientation import oriented
from gpuflow.errors import Closed, GpuflowError
from gpuflow.flow.image import Region, cropped
from gpuflow.memory import Lease
from gpuflow.observe import Counters, log
from gpuflow.ops.transform import Transform
from gpuflow.ops.work import Work

_THREADS = 2  # one batch is decoded while another is transformed; none of these numbers is measured on a GPU yet
_MAX_IMAGES = 64
_MAX_PIXELS = 32 << 20  # so that no image waits for a second of others


@dataclass(slots=True, eq=False)
class ImageJob:
    """One image. ``pixels``: where it is decoded to, ``(H, W, 3)`` uint8 as stored; without ``data``, what was decoded
    elsewhere, as it is shown. ``region``: what is taken of it, as shown. ``finish``: what ``engine`` is to do with it as it
    is shown; without them it stays as decoded. ``leases``: blocks that the job reads and writes; it keeps them while it is
    at work."""

    info: ImageInfo
    pixels: Any
    data: bytes | None = None
    region: Region | None = None
    engine: Transform | None = None
    finish: Callable[[Any], Work] | None = None
    leases: tuple[Lease, ...] = ()
    done: Future[None] = field(default_factory=Future)
    error: BaseException | None = None


class ImageBatches:
    """A device's batches. ``submit`` from any thread; ``close`` it.

    Args:
        decoder: what decodes; asked for jobs that have ``data``.
        counters: where batches and their images are counted.
    """

    def __init__(self, decoder: BatchDecoder, counters: Counters) -> None:
        self.decoder = decoder
        self._counters = counters
        self._waiting: queue.SimpleQueue[ImageJob | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"gpuflow-images-{n}", daemon=True) for n in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: ImageJob) -> Future[None]:
        """Queue a job. The future ends when the pixels are where they belong, or with what it failed with; a future that
        is cancelled before its batch begins leaves the batch out.

        Raises:
            Closed: nothing is taken any more.
        """
        with self._lock:
            if self._closed:
                raise Closed("the flow is closed")
            for lease in job.leases:
                lease.retain()
            self._waiting.put(job)
        return job.done

    def close(self) -> None:
        """Do what waits, then end the threads; harmless when repeated."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [job for job in self._taken(first) if _begins(job)]
            try:
                self._work(batch)
            except BaseException as error:  # noqa: BLE001 - whatever it is, those that wait are told
                _fail(batch, error)
            for job in batch:
                _end(job)

    def _taken(self, first: ImageJob) -> list[ImageJob]:
        """``first`` and what waits behind it, up to the size of a batch."""
        batch, pixels = [first], first.info.width * first.info.height
        while len(batch) < _MAX_IMAGES and pixels < _MAX_PIXELS:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._waiting.put(None)
                break
            batch.append(job)
            pixels += job.info.width * job.info.height
        return batch

    def _work(self, batch: Sequence[ImageJob]) -> None:
        self._counters.add("gpuflow_image_batches_total")
        self._counters.add("gpuflow_image_batch_images_total", len(batch))
        self._decode([job for job in batch if job.data is not None])
        _transform([job for job in batch if job.engine is not None and job.error is None])

    def _decode(self, jobs: Sequence[ImageJob]) -> None:
        if not jobs:
            return
        errors = self.decoder.decode_batch([Encoded(job.data or b"", job.info, job.pixels) for job in jobs])
        for job, error in zip(jobs, errors, strict=True):
            job.error, job.pixels = error, cropped(oriented(job.pixels, job.info.orientation), job.region)


def _begins(job: ImageJob) -> bool:
    """Whether anybody still wants it."""
    wanted = job.done.set_running_or_notify_cancel()
    if not wanted:
        _let_go(job)
    return wanted


def _transform(jobs: Sequence[ImageJob]) -> None:
    """By each engine, all of its jobs together; where that fails, one after another, which shows whose it is."""
    for engine in {job.engine for job in jobs}:
        of_engine = [job for job in jobs if job.engine is engine]
        if (error := _error_of(engine, of_engine)) is not None:
            for job in of_engine:
                job.error = error if len(of_engine) == 1 else _error_of(engine, [job])


def _error_of(engine: Transform | None, jobs: Sequence[ImageJob]) -> BaseException | None:
    """What went wrong, if anything; nothing is under way on the jobs' blocks when it returns."""
    works: list[Work] = []
    try:
        works += [job.finish(job.pixels) for job in jobs if job.finish is not None]
        if engine is not None:
            engine.apply(works)
        for work in works:
            work.lease.synchronize()
    except Exception as error:  # noqa: BLE001 - it is the jobs'
        for work in works:
            with contextlib.suppress(Exception):  # a device that is lost works on nothing
                work.lease.synchronize()
        return error
    return None


def _fail(batch: Sequence[ImageJob], error: BaseException) -> None:
    if not isinstance(error, GpuflowError):
        log.error("unexpected error in a batch of %d images", len(batch), exc_info=error)
    for job in batch:
        job.error = job.error or error


def _end(job: ImageJob) -> None:
    """Blocks first: who is told may count on them."""
    _let_go(job)
    if job.error is None:
        job.done.set_result(None)
    else:
        job.done.set_exception(job.error)


def _let_go(job: ImageJob) -> None:
    job.pixels = job.finish = None
    for lease in job.leases:
        lease.release()
    job.leases = ()
