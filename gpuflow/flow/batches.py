"""Jobs of concurrent requests, done together on a device.

A batch forms while the device is busy: whatever waits when a thread becomes free is its next batch. Nobody waits for a
batch to fill.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gpuflow.errors import Closed, GpuflowError
from gpuflow.memory import Lease
from gpuflow.observe import log

_THREADS = 2  # one batch is prepared while another is at work; neither number is measured on a GPU yet
_MAX_JOBS = 64


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One item. ``leases``: blocks that it reads and writes; it keeps them while it is at work. ``error``: what it failed
    with, if it did."""

    leases: tuple[Lease, ...] = ()
    done: Future[None] = field(default_factory=Future)
    error: BaseException | None = None

    def let_go(self) -> None:
        """Give back what it holds."""
        for lease in self.leases:
            lease.release()
        self.leases = ()


_Job = TypeVar("_Job", bound=Job)


class Batches(Generic[_Job]):
    """Threads that work on what waits. ``submit`` from any thread; ``close`` it.

    Args:
        name: of the threads.
        work: does a batch, and notes in each job what it failed with; what it raises, all of them failed with.
        weight: how much of a batch a job is.
        max_weight: of the jobs of one batch, so that none waits for too much of others; a job of more goes alone.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[_Job]], None],
        *,
        weight: Callable[[_Job], int],
        max_weight: int,
    ) -> None:
        self._name = name
        self._do = work
        self._weight = weight
        self._max_weight = max_weight
        self._waiting: deque[tuple[_Job, int]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"gpuflow-{name}-{n}", daemon=True) for n in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: _Job) -> Future[None]:
        """Queue a job. The future ends when it is done, or with what it failed with; a future that is cancelled before
        its batch begins leaves the batch out.

        Raises:
            Closed: nothing is taken any more.
        """
        weight = self._weight(job)
        with self._changed:
            if self._closed:
                raise Closed("the flow is closed")
            for lease in job.leases:
                lease.retain()
            self._waiting.append((job, weight))
            self._changed.notify()
        return job.done

    def close(self) -> None:
        """Do what waits, then end the threads; harmless when repeated."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while taken := self._taken():
            batch = [job for job in taken if _begins(job)]
            try:
                self._do(batch)
            except BaseException as error:  # noqa: BLE001 - whatever it is, those that wait are told
                self._fail(batch, error)
            for job in batch:
                _end(job)

    def _taken(self) -> list[_Job]:
        """What waits, up to the size of a batch, as soon as anything does; nothing when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[_Job] = []
            room = self._max_weight
            while self._waiting and len(batch) < _MAX_JOBS:
                job, weight = self._waiting[0]
                room -= weight
                if batch and room < 0:
                    break
                self._waiting.popleft()
                batch.append(job)
            if self._waiting:
                self._changed.notify()
            return batch

    def _fail(self, batch: Sequence[_Job], error: BaseException) -> None:
        if not isinstance(error, GpuflowError):
            log.error("unexpected error in a batch of %d %s", len(batch), self._name, exc_info=error)
        for job in batch:
            job.error = job.error or error


def waited_for(future: Future[None]) -> Generator[Future[None], None, None]:
    """A step that waits for a submitted job, and raises what it failed with; abandoned, it takes the job back."""
    try:
        yield future
    finally:
        future.cancel()
    future.result()


def together(jobs: Sequence[_Job], do: Callable[[Sequence[_Job]], None]) -> None:
    """Do all of them at once; where that fails, one after another, which shows whose fault it is. Nothing is under way on
    their blocks afterwards."""
    if jobs and (error := _error_of(jobs, do)) is not None:
        for job in jobs:
            job.error = error if len(jobs) == 1 else _error_of([job], do)


def _error_of(jobs: Sequence[_Job], do: Callable[[Sequence[_Job]], None]) -> BaseException | None:
    leases = [lease for job in jobs for lease in job.leases]
    try:
        do(jobs)
        for lease in leases:
            lease.synchronize()
    except Exception as error:  # noqa: BLE001 - it is the jobs'
        for lease in leases:
            with contextlib.suppress(Exception):  # a device that is lost works on nothing
                lease.synchronize()
        return error
    return None


def _begins(job: Job) -> bool:
    """Whether anybody still wants it."""
    wanted = job.done.set_running_or_notify_cancel()
    if not wanted:
        job.let_go()
    return wanted


def _end(job: Job) -> None:
    """Blocks first: who is told may count on them."""
    job.let_go()
    if job.error is None:
        job.done.set_result(None)
    else:
        job.done.set_exception(job.error)
