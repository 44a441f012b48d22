"""Many loads at once, never more than so many ahead of their consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from gpuflow.errors import GpuflowError
from gpuflow.media import Media, Outcome, Source

Load = Callable[[object], Awaitable[Media]]


async def stream_outcomes(
    load: Load, sources: Iterable[object] | AsyncIterable[object], *, max_in_flight: int, ordered: bool
) -> AsyncIterator[Outcome]:
    """Yield an outcome a source. What was finished and not taken when the consumer leaves is released."""
    state = _Stream(load, _asynchronous(sources), max_in_flight, ordered)
    try:
        while (task := await state.next_done()) is not None:
            outcome = state.take(task)
            yield outcome
    finally:
        await state.abandon()


@dataclass
class _Stream:
    load: Load
    sources: AsyncIterator[object]
    max_in_flight: int
    ordered: bool
    tasks: dict[asyncio.Task[Outcome], int] = field(default_factory=dict)
    pull: asyncio.Task[Any] | None = None
    started: int = 0
    exhausted: bool = False

    async def next_done(self) -> asyncio.Task[Outcome] | None:
        """Wait for the next outcome to hand out, taking sources meanwhile; ``None`` after the last."""
        while True:
            self._start_pull()
            ready = self._ready()
            if ready is not None:
                return ready
            waiting: set[asyncio.Task[Any]] = {task for task in self.tasks if not task.done()}
            if self.pull is not None:
                waiting.add(self.pull)
            if not waiting:
                return None
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            self._finish_pull()

    def take(self, task: asyncio.Task[Outcome]) -> Outcome:
        """Hand an outcome over to the consumer, who releases it from now on."""
        del self.tasks[task]
        return task.result()

    async def abandon(self) -> None:
        """Cancel what runs and release what was not taken."""
        tasks: list[asyncio.Task[Any]] = [*self.tasks, *([self.pull] if self.pull else [])]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Outcome) and result.media is not None:
                result.media.release()
        if hasattr(self.sources, "aclose"):
            await self.sources.aclose()

    def _ready(self) -> asyncio.Task[Outcome] | None:
        candidates = list(self.tasks)[:1] if self.ordered else self.tasks
        return next((task for task in candidates if task.done()), None)

    def _start_pull(self) -> None:
        if self.pull is None and not self.exhausted and len(self.tasks) < self.max_in_flight:
            self.pull = asyncio.ensure_future(anext(self.sources, _END))

    def _finish_pull(self) -> None:
        if self.pull is None or not self.pull.done():
            return
        source, self.pull = self.pull.result(), None
        if source is _END:
            self.exhausted = True
            return
        self.tasks[asyncio.ensure_future(self._outcome(self.started, source))] = self.started
        self.started += 1

    async def _outcome(self, index: int, source: object) -> Outcome:
        try:
            origin = Source.of(source, position=index)
        except GpuflowError as error:
            return Outcome(index, None, error=error)
        try:
            return Outcome(index, origin, media=await self.load(origin))
        except GpuflowError as error:
            return Outcome(index, origin, error=error)


_END = object()


async def _asynchronous(sources: Iterable[object] | AsyncIterable[object]) -> AsyncIterator[object]:
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield source
    else:
        for source in sources:
            yield source
