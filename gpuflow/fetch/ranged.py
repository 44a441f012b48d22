"""A body of which only the wanted parts are fetched, from a server that serves parts of a version that it names."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import blake3

from gpuflow.fetch.growing import GrowingBody
from gpuflow.fetch.ranges import Part
from gpuflow.media import Blob
from gpuflow.workers import call_soon


class RangedBody(GrowingBody):
    """A ``GrowingBody`` until its first part has come; from then on, where the rest can be had in parts, any bytes can be
    waited for. Each part is asked for at most once, so that there are never more requests, and never more bytes, than
    all of it takes.

    Made on the event loop that fetches. ``fetched_bytes``: how many came.
    """

    def __init__(self, hold: Callable[[int], None] | None = None) -> None:
        super().__init__(hold)
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()  # is wanted
        self._in_parts = False
        self._parts: tuple[Part, ...] = ()
        self._here: dict[int, bytes] = {}
        self._queue: deque[int] = deque()
        self._asked: set[int] = set()
        self.fetched_bytes = 0

    @property
    def in_parts(self) -> bool:
        """See ``GrowingBody``."""
        return self._in_parts

    def begin(self, announced: int | None, *, in_parts: bool) -> None:
        """See ``GrowingBody``."""
        self.announced, self._in_parts = announced, in_parts

    def finish(self, declared_type: str | None = None) -> None:
        """See ``GrowingBody``. Parts come in any order: they are hashed when all are wanted."""
        self._declared_type = declared_type
        if not self._parts:
            super().finish(declared_type)

    def begin_parts(self, first: Part, rest: list[Part]) -> None:
        """The first part is here, and these are left."""
        with self._changed:
            self._parts = (first, *rest)
            self._here[0], self._data = bytes(self._data), bytearray()
            self._asked.add(0)
            self._changed.notify_all()

    def add(self, chunk: bytes) -> None:
        """See ``GrowingBody``."""
        super().add(chunk)
        self.fetched_bytes += len(chunk)

    def put(self, part: Part, data: bytes) -> None:
        """One of the parts."""
        if self._hold is not None:
            self._hold(len(data))
        self.fetched_bytes += len(data)
        with self._changed:
            self._here[self._number(part.first)] = data
            self._changed.notify_all()

    async def next_wanted(self) -> Part | None:
        """The part to fetch next, once one is wanted; ``None`` when all were."""
        while len(self._asked) < len(self._parts):
            self._more.clear()
            with self._changed:
                while self._queue:
                    number = self._queue.popleft()
                    if number not in self._asked:
                        self._asked.add(number)
                        return self._parts[number]
            await self._more.wait()
        return None

    def expect(self, extents: Iterable[tuple[int, int]]) -> None:
        """These bytes will be waited for, in this order."""
        with self._changed:
            if self._parts:
                self._queue.extend(number for first, end in extents for number in self._numbers(first, end))
        call_soon(self._loop, self._more.set)

    def has(self, first: int, end: int) -> bool:
        """See ``GrowingBody``."""
        with self._changed:
            return self._has(first, end)

    def read(self, first: int, end: int) -> bytes:
        """See ``GrowingBody``."""
        with self._changed:
            if not self._parts:
                return super().read(first, end)
            end = min(end, self._parts[0].total)
            numbers = self._numbers(first, end)
            start = self._parts[numbers[0]].first if numbers else first
            joined = self._here[numbers[0]] if len(numbers) == 1 else b"".join(self._here[number] for number in numbers)
            return joined[first - start : end - start]

    def wait_for_all(self, check: Callable[[], None]) -> Blob:
        """See ``GrowingBody``."""
        if not self._parts:
            self.wait(0, 1, check)  # whether there are parts shows when the first is here
        if not self._parts:
            return super().wait_for_all(check)
        total = self._parts[0].total
        self.wait(0, total, check)
        data = self.read(0, total)
        return Blob(data, blake3.blake3(data).hexdigest(), self._declared_type)

    def _number(self, at: int) -> int:
        return at // self._parts[0].nbytes

    def _numbers(self, first: int, end: int) -> range:
        end = min(end, self._parts[0].total)
        return range(self._number(first), self._number(end - 1) + 1) if first < end else range(0)

    def _has(self, first: int, end: int) -> bool:
        if not self._parts:
            return super()._has(first, end)
        return end <= self._parts[0].total and all(number in self._here for number in self._numbers(first, end))

    def _settled(self, first: int, end: int) -> bool:
        if not self._parts:
            return super()._settled(first, end)
        missing = [number for number in self._numbers(first, end) if number not in self._here]
        if wanted := [number for number in missing if number not in self._asked]:
            self._queue.extendleft(reversed(wanted))  # before what is only expected
            call_soon(self._loop, self._more.set)
        return self._error is not None or not missing
