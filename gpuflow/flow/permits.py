"""Permits to decode: taken by coroutines and by threads, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gpuflow.workers import call_soon

POLL_SECONDS = 0.02  # how soon a thread's wait that nobody ends is looked at again


@dataclass(slots=True, eq=False)
class _Wish:
    tell: Callable[[], object]
    granted: bool = False


class Permits:
    """So many at a time; ``release`` from any thread. A wait that is given up leaves no permit behind."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._wishes: deque[_Wish] = deque()
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """How many nobody holds."""
        return self._free

    @property
    def wanted(self) -> int:
        """How many are waited for."""
        return len(self._wishes)

    def try_acquire(self) -> bool:
        """Take one if that needs no wait."""
        with self._lock:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    async def acquire(self) -> None:
        """Take one, waiting for it if need be."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not told.done():
                told.set_result(None)

        wish = self._ask(lambda: call_soon(loop, tell))
        if wish is None:
            return
        try:
            await told
        except BaseException:
            self._withdraw(wish)
            raise

    def acquire_on_thread(self, check: Callable[[], None]) -> None:
        """Take one, blocking; what ``check`` raises, called now and then, ends the wait."""
        told = threading.Event()
        wish = self._ask(told.set)
        if wish is None:
            return
        try:
            while not told.wait(POLL_SECONDS):
                check()
        except BaseException:
            self._withdraw(wish)
            raise

    def release(self) -> None:
        """Give one back, to whoever has waited the longest."""
        with self._lock:
            if not self._wishes:
                self._free += 1
                return
            wish = self._wishes.popleft()
            wish.granted = True
        wish.tell()

    def _ask(self, tell: Callable[[], object]) -> _Wish | None:
        """A place among those who wait; ``None`` where a permit was free, and is taken."""
        with self._lock:
            if self._free:
                self._free -= 1
                return None
            wish = _Wish(tell)
            self._wishes.append(wish)
            return wish

    def _withdraw(self, wish: _Wish) -> None:
        with self._lock:
            if not wish.granted:
                self._wishes.remove(wish)
                return
        self.release()
