"""A pool of decoder sessions of one GPU: so many at once, in the order asked for; a failed one is never seen again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gpuflow.codecs.base import Deadline, VideoInfo
from gpuflow.errors import BackendUnavailable, GpuflowError
from gpuflow.observe import log

_POLL_SECONDS = 0.05  # how often a waiter looks at its deadline
_CLASSES = (
    640,
    1_280,
    1_920,
)  # sides of the squares that sessions are made for: sizes below share them, turned ones too


@dataclass(frozen=True, slots=True)
class Shape:
    """What a session is made for, or used for. Codec, chroma and depth of a session never change."""

    codec: str
    chroma: str
    bit_depth: int
    width: int
    height: int

    @classmethod
    def of(cls, info: VideoInfo) -> Shape:
        """A clip's."""
        return cls(info.codec, info.chroma, info.bit_depth, info.width, info.height)

    def holds(self, other: Shape) -> bool:
        """Whether a session that was made for this can decode ``other``."""
        kind = (self.codec, self.chroma, self.bit_depth) == (other.codec, other.chroma, other.bit_depth)
        return kind and other.width <= self.width and other.height <= self.height

    def roomy(self, allowed: Callable[[Shape], bool]) -> Shape:
        """The square to make a session for, where one holds this shape and is ``allowed``; otherwise this shape."""
        for side in _CLASSES:
            square = Shape(self.codec, self.chroma, self.bit_depth, side, side)
            if square.holds(self):
                return square if allowed(square) else self
        return self


class Session(Protocol):
    """A decoder that takes one segment after another."""

    made_for: Shape
    shape: Shape

    def adopt(self, shape: Shape) -> None:
        """Take another size from now on, not larger than ``made_for``."""
        ...

    def close(self) -> None:
        """Give it back, drained."""
        ...

    def abandon(self) -> None:
        """Give it back in whatever state; never raises."""
        ...


_Session = TypeVar("_Session", bound=Session)


class SessionPool(Generic[_Session]):
    """At most ``limit()`` sessions, in use and idle together, for each holds device memory.

    ``make`` is called outside of the lock, one call at a time: nothing says that the library may make two at once.
    """

    def __init__(self, make: Callable[[Shape], _Session], *, limit: Callable[[], int], reuse: bool = True) -> None:
        self._make = make
        self._limit = limit
        self._reuse = reuse
        self._changed = threading.Condition()
        self._making = threading.Lock()
        self._queue: list[object] = []  # those who wait, first come first
        self._idle: list[_Session] = []  # the one used last is the last
        self._busy = 0

    @property
    def num_idle(self) -> int:
        """Sessions that wait for a segment."""
        return len(self._idle)

    @property
    def num_busy(self) -> int:
        """Sessions that decode, or are being made."""
        return self._busy

    @property
    def contended(self) -> bool:
        """Whether somebody waits for a session that another uses."""
        return bool(self._queue) and self._busy >= max(1, self._limit())

    @contextmanager
    def session(self, shape: Shape, deadline: Deadline, *, fresh: bool = False) -> Iterator[_Session]:
        """A session for this shape, kept afterwards unless something was raised; ``fresh``: one that nobody used.

        Raises:
            BackendUnavailable: the driver makes none, also after the idle ones were closed.
            GpuflowError: as ``deadline``; or the context is lost.
        """
        session = self._acquire(shape, deadline, fresh)
        try:
            yield session
        except BaseException:
            session.abandon()
            self._give_back(None)
            raise
        if not self._reuse:
            self._closing([session])
        self._give_back(session if self._reuse else None)

    def close_idle(self) -> int:
        """Close what nobody uses, at the end or where device memory is short; how many there were."""
        with self._changed:
            idle, self._idle = self._idle, []
        self._closing(idle)
        return len(idle)

    def _acquire(self, shape: Shape, deadline: Deadline, fresh: bool) -> _Session:
        limit = max(1, self._limit())
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or self._busy >= limit:
                    self._changed.wait(_POLL_SECONDS)
                    deadline.check()
                found = None if fresh else self._take(shape)
                evicted = []
                while found is None and self._busy + len(self._idle) >= limit:
                    evicted.append(self._idle.pop(0))
                self._busy += 1
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            self._closing(evicted)
            return self._made(shape) if found is None else self._adopted(found, shape)
        except BaseException:
            self._give_back(None)
            raise

    def _take(self, shape: Shape) -> _Session | None:
        """Of the idle ones that hold it: of this very size, else the smallest."""
        holding = [session for session in self._idle if session.made_for.holds(shape)]
        if not holding:
            return None
        best = min(holding, key=lambda session: (session.shape != shape, session.made_for.width))
        self._idle.remove(best)
        return best

    def _adopted(self, session: _Session, shape: Shape) -> _Session:
        if session.shape == shape:
            return session
        try:
            session.adopt(shape)
        except Exception:  # noqa: BLE001 - whatever it is: this session is not used any more
            log.warning("a decoder session does not change to another size: a new one is made", exc_info=True)
            session.abandon()
            return self._made(shape)
        except BaseException:
            session.abandon()
            raise
        return session

    def _made(self, shape: Shape) -> _Session:
        """A new one; where that fails, the idle ones are closed for their memory, and it is tried once more."""
        with self._making:
            try:
                return self._make(shape)
            except GpuflowError:
                raise
            except Exception as error:
                if not self.close_idle():
                    raise BackendUnavailable(f"no decoder session for {shape.codec} can be made") from error
            try:
                return self._make(shape)
            except GpuflowError:
                raise
            except Exception as error:
                raise BackendUnavailable(f"no decoder session for {shape.codec} can be made") from error

    def _give_back(self, session: _Session | None) -> None:
        with self._changed:
            self._busy -= 1
            if session is not None:
                self._idle.append(session)
            self._changed.notify_all()

    def _closing(self, sessions: list[_Session]) -> None:
        """Close sessions that are nobody's any more; one that does not close is let go."""
        for session in sessions:
            try:
                session.close()
            except Exception:  # noqa: BLE001 - the library raises several unrelated types
                log.warning("an idle decoder session did not close", exc_info=True)
                session.abandon()
