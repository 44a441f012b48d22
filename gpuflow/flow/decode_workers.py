"""The threads that decode: as many as there are permits, given up while a device has the work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager

from gpuflow.errors import DeadlineExceeded, GpuflowError, Overloaded
from gpuflow.flow.context import Deadline
from gpuflow.flow.permits import Permits
from gpuflow.flow.suspended import Suspended
from gpuflow.media import Media
from gpuflow.workers import ended, result_of, worker_pool

_GRACE_SECONDS = 0.25  # for the worker's own error, which says more, to come first
Found = Media | Suspended[Media]
Run = Callable[[Callable[[], Found]], Found]
"""Calls what it is given, on a worker thread, inside whatever the flow wants around it."""


class DecodeWorkers:
    """``number`` threads. A result that nobody waits for any more is released."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.permits = Permits(number)
        self._pool = worker_pool(number, "gpuflow-decode")

    async def acquire(self, deadline: Deadline) -> None:
        """Take a permit.

        Raises:
            Overloaded: there is none before the deadline.
        """
        if self.permits.try_acquire():
            return
        try:
            async with asyncio.timeout(deadline.remaining_seconds):
                await self.permits.acquire()
        except TimeoutError as error:
            raise Overloaded("no decode worker became free in time") from error

    async def work(self, begin: Callable[[], Found], run: Run, deadline: Deadline) -> Media:
        """Do a load's work to its end. The first permit is acquired here, and each is given back when its step ends.

        Raises:
            DeadlineExceeded: the time is over, whatever the thread does.
            GpuflowError: what the work raises.
        """
        await self.acquire(deadline)
        found = await self._ended(self._submit(begin, run), deadline)
        while isinstance(found, Suspended):
            await self._device(found, deadline)
            found = await self._ended(self._submit(found.resume, run), deadline)
        return found

    def work_here(
        self, begin: Callable[[], Found], run: Run, deadline: Deadline, *, itself: bool = False
    ) -> Media | None:
        """``work`` for a thread that waits, of loads that need no device; ``None`` where no permit is free at once.

        ``itself``: that thread does the work, which nothing ends before its time then; a change of threads there and back
        takes 0.1 ms, and more where all cores work.
        """
        if not self.permits.try_acquire():
            return None
        if itself:
            try:
                found = run(begin)
            finally:
                self.permits.release()
        else:
            future = self._submit(begin, run)
            with _wanted(future, deadline):
                found = future.result(deadline.remaining_seconds + _GRACE_SECONDS)
        if isinstance(found, Suspended):
            raise TypeError("work in steps is for an event loop")
        return found

    async def drain(self) -> None:
        """Wait until no thread is at work, for good, and end them."""
        for _ in range(self.number):
            await self.permits.acquire()
        self._pool.shutdown()

    def _submit(self, work: Callable[[], Found], run: Run) -> Future[Found]:
        future = self._pool.submit(run, work)
        future.add_done_callback(lambda _: self.permits.release())
        return future

    async def _ended(self, future: Future[Found], deadline: Deadline) -> Found:
        with _wanted(future, deadline):
            async with asyncio.timeout(deadline.remaining_seconds + _GRACE_SECONDS):
                return await result_of(future)

    async def _device(self, suspended: Suspended[Media], deadline: Deadline) -> None:
        """Wait for the device, and for a permit to go on."""
        try:
            with _in_time():
                async with asyncio.timeout(deadline.remaining_seconds):
                    await ended(suspended.future)
            await self.acquire(deadline)
        except BaseException:
            await asyncio.to_thread(suspended.abandon)
            raise


@contextmanager
def _wanted(future: Future[Found], deadline: Deadline) -> Iterator[None]:
    """Who waits for ``future``: when the wait ends by an error, what comes of it is released."""
    try:
        with _in_time():
            yield
    except BaseException:
        deadline.cancel()
        future.add_done_callback(_release)
        raise


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        if isinstance(error, GpuflowError):
            raise
        raise DeadlineExceeded("not decoded in time") from error


def _release(future: Future[Found]) -> None:
    with contextlib.suppress(CancelledError):
        if future.exception() is not None:
            return
        found = future.result()
        if isinstance(found, Suspended):
            found.abandon()
        else:
            found.release()
