"""What a stream of frames holds while it works, and gives up while it waits: a decode permit, and the decode's time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuflow.errors import DeadlineExceeded
from gpuflow.flow.context import Deadline
from gpuflow.flow.permits import Permits


class WorkDeadline(Deadline):
    """A ``Deadline`` whose ``limit`` counts work alone: neither the consumer's time nor the network's. One thread works."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self._allowed_work: float | None = None
        self._done_seconds = 0.0
        self._resumed = time.monotonic()
        self._waiting = False

    def limit(self, seconds: float) -> None:
        """Work for so long; counted from the first call."""
        if self._allowed_work is None:
            self._allowed_work, self._resumed = seconds, time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What passes in here is no work."""
        self._done_seconds += time.monotonic() - self._resumed
        self._waiting = True
        try:
            yield
        finally:
            self._resumed, self._waiting = time.monotonic(), False

    def check(self) -> None:
        """See ``Deadline``; also raises when the work took too long."""
        super().check()
        if self._allowed_work is None or self._waiting:
            return
        if self._done_seconds + time.monotonic() - self._resumed > self._allowed_work:
            raise DeadlineExceeded(f"not decoded in {self._allowed_work:g} s of work")


class Turn:
    """A decode permit of the flow, held by a thread, which may give it up for a while. ``end`` it in every case."""

    def __init__(self, permits: Permits, deadline: WorkDeadline) -> None:
        self._permits = permits
        self._deadline = deadline
        self._lock = threading.Lock()
        self._held = True

    def end(self) -> None:
        """Give the permit back; harmless when repeated."""
        with self._lock:
            held, self._held = self._held, False
        if held:
            self._permits.release()

    @contextmanager
    def given_up(self, check: Callable[[], None] | None = None) -> Iterator[None]:
        """Let others work meanwhile, and wait for a permit afterwards; ``check`` may raise to end that wait.

        Raises:
            DeadlineExceeded: the time is over before there is one.
        """
        with self._deadline.waiting():
            self.end()
            yield
            self._permits.acquire_on_thread(check or self._deadline.check)
            with self._lock:
                self._held = True
