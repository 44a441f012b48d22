"""A clip in chunks: a thread decodes ahead, never more than so many chunks, and the consumer takes them in order."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, Future

from gpuflow.errors import DeadlineExceeded, GpuflowError
from gpuflow.flow.permits import POLL_SECONDS, Permits
from gpuflow.flow.turns import Turn, WorkDeadline
from gpuflow.media import FrameChunk
from gpuflow.workers import call_soon

_GRACE_SECONDS = 0.25  # for the thread's own error, which says more, to come first
Work = Callable[["Delivery", Turn], None]


async def stream_chunks(
    work: Work, *, pool: Executor, permits: Permits, deadline: WorkDeadline, ahead: int
) -> AsyncGenerator[FrameChunk, None]:
    """Yield what ``work`` delivers, on a thread of ``pool``, which holds one of ``permits``: it was acquired already.
    What was delivered and not taken when the consumer leaves is released, and the work is told to end."""
    delivery, turn = Delivery(ahead), Turn(permits, deadline)
    future = pool.submit(work, delivery, turn)
    future.add_done_callback(lambda _: turn.end())
    future.add_done_callback(delivery.finish)
    try:
        while (chunk := await delivery.take(deadline)) is not None:
            yield chunk
    finally:
        deadline.cancel()
        delivery.close()


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Delivery:
    """Chunks on their way from the decoding thread to a consumer on an event loop, in order.

    ``ahead``: the chunks that may be there, complete or not, beyond those that were taken.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._arrived = asyncio.Event()
        self._ready: deque[FrameChunk] = deque()
        self._offered = self._taken = 0
        self._work: Future[None] | None = None
        self._closed = False

    def has_room(self, number: int) -> bool:
        """Whether chunk ``number`` may be begun now. It may also where the consumer has nothing to take: it would wait
        for ever for an earlier one whose pictures come late."""
        with self._changed:
            return number < self._taken + self._ahead

    def must_wait(self, number: int) -> bool:
        """Whether chunk ``number`` has to wait for the consumer to take one."""
        with self._changed:
            return number >= self._taken + self._ahead and self._offered > self._taken

    def pause(self) -> None:
        """Wait a little for the consumer."""
        with self._changed:
            self._changed.wait(POLL_SECONDS)

    def offer(self, chunk: FrameChunk) -> None:
        """The next chunk; the consumer's from now on."""
        with self._changed:
            closed = self._closed
            if not closed:
                self._ready.append(chunk)
                self._offered += 1
        if closed:
            chunk.release()
        call_soon(self._loop, self._arrived.set)

    def finish(self, work: Future[None]) -> None:
        """No chunk comes any more."""
        self._work = work
        call_soon(self._loop, self._arrived.set)

    async def take(self, deadline: WorkDeadline) -> FrameChunk | None:
        """The next chunk; ``None`` after the last.

        Raises:
            GpuflowError: what ended the work.
        """
        while True:
            self._arrived.clear()
            ended = self._work  # looked at before the chunks: what came before the end is not lost
            with self._changed:
                if self._ready:
                    self._taken += 1
                    self._changed.notify_all()
                    return self._ready.popleft()
            if ended is not None:
                return ended.result()
            await self._wait(deadline)

    def close(self) -> None:
        """Release what nobody takes."""
        with self._changed:
            self._closed = True
            left, self._ready = self._ready, deque()
            self._changed.notify_all()
        for chunk in left:
            chunk.release()

    async def _wait(self, deadline: WorkDeadline) -> None:
        try:
            async with asyncio.timeout(deadline.remaining_seconds + _GRACE_SECONDS):
                await self._arrived.wait()
        except TimeoutError as error:
            if isinstance(error, GpuflowError):
                raise
            raise DeadlineExceeded("the next frames were not decoded in time") from error
