"""Work in steps that gives up its thread while it waits for a device."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from gpuflow.isolation.wire import Clock

_LOOK_SECONDS = 0.1  # how late a cancellation may be seen
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Suspended(Generic[_T_co]):
    """Steps that wait for ``future``: ``resume`` them when it has ended, or ``abandon`` them."""

    steps: Generator[Future[None], None, _T_co]
    future: Future[None]

    def resume(self) -> _T_co | Suspended[_T_co]:
        """Go on, on this thread, to the end or to the next wait. Raises what the steps raise."""
        return advance(self.steps)

    def abandon(self) -> None:
        """Let go of all that they hold."""
        self.steps.close()


def advance(steps: Generator[Future[None], None, _T]) -> _T | Suspended[_T]:
    """Run steps to their end or to their next wait."""
    try:
        return Suspended(steps, next(steps))
    except StopIteration as end:
        result: _T = end.value
        return result


def finished(steps: Generator[Future[None], None, _T], deadline: Clock) -> _T:
    """Run steps to their end on this thread, waiting where they wait.

    Raises:
        DeadlineExceeded: the time is over, or nobody wants it any more.
    """
    found = advance(steps)
    while isinstance(found, Suspended):
        try:
            while not wait([found.future], min(_LOOK_SECONDS, deadline.remaining_seconds)).done:
                deadline.check()
        except BaseException:
            found.abandon()
            raise
        found = found.resume()
    return found
