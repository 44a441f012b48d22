"""Decode a plan in the order of display, for a sink that hands pictures on while later ones are decoded.

A segment goes to the pool's threads only when the sink has room for all of its pictures: those threads are other clips'
too, and must never wait for somebody to take pictures. One that is too long for that is decoded on the calling thread,
which may wait in ``put``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from gpuflow.codecs.base import Deadline, FrameSink, VideoInfo
from gpuflow.codecs.video.decode import VideoDecoder
from gpuflow.codecs.video.plan import DecodePlan, Segment, from_the_start
from gpuflow.errors import CorruptMedia, DeadlineExceeded

_Stream = TypeVar("_Stream")


class OrderedSink(FrameSink, Protocol):
    """A ``FrameSink`` whose ``put`` may wait, except for pictures that it made room for."""

    def make_room(self, indices: Collection[int]) -> bool:
        """Whether all of these pictures can now be put without waiting."""
        ...


def decode_in_order(
    stream: _Stream,
    info: VideoInfo,
    plan: DecodePlan,
    sink: OrderedSink,
    *,
    decoder: VideoDecoder[_Stream],
    deadline: Deadline,
    pool: Executor | None = None,
) -> None:
    """As ``decode_frames``, with segments begun in the order of their pictures. When it ends, well or not, no thread
    writes to the sink any more.

    Raises:
        CorruptMedia: wanted pictures do not come out; those before them were put.
        DeadlineExceeded: the time is over.
    """
    decoding = _Ordered(stream, info, sink, decoder, _Ending(deadline), pool, deque(_by_display(plan)), deque())
    try:
        decoding.run()
    finally:
        decoding.stop()


def _by_display(plan: DecodePlan) -> list[Segment]:
    return sorted(plan.segments, key=lambda segment: min(segment.targets.values()))


@dataclass(frozen=True, slots=True)
class _Ordered(Generic[_Stream]):
    stream: _Stream
    info: VideoInfo
    sink: OrderedSink
    decoder: VideoDecoder[_Stream]
    ending: _Ending
    pool: Executor | None
    waiting: deque[Segment]
    running: deque[tuple[Segment, Future[set[int]]]]

    def run(self) -> None:
        while self.waiting or self.running:
            self._start()
            if self.running:
                segment, job = self.running.popleft()
                found = job.result()
            else:
                segment = self.waiting.popleft()
                found = self._decode(segment)
            if not found.issuperset(segment.targets.values()):
                self._decode_again(segment, found)

    def stop(self) -> None:
        self.ending.end()
        jobs = [job for _, job in self.running]
        for job in jobs:
            job.cancel()
        wait(jobs)

    def _start(self) -> None:
        """Begin what fits. A single segment stays on this thread: nothing would run beside it."""
        while self.pool is not None and self.waiting and (self.running or len(self.waiting) > 1):
            if not self._ready(self.waiting[0]) or not self.sink.make_room(self.waiting[0].targets.values()):
                return
            segment = self.waiting.popleft()
            self.running.append((segment, self.pool.submit(self._decode, segment)))

    def _ready(self, segment: Segment) -> bool:
        """Whether its packets are all here, where a stream may still grow."""
        ready: Any = getattr(self.stream, "ready", None)
        return ready is None or bool(ready(segment.first, segment.last))

    def _decode(self, segment: Segment) -> set[int]:
        self.ending.check()
        return self.decoder.decode(self.stream, self.info, segment, self.sink, self.ending)

    def _decode_again(self, segment: Segment, found: set[int]) -> None:
        """A keyframe was none: this segment and all that follow once more, from the first packet on."""
        left = [(segment, found), *((later, job.result()) for later, job in self.running)]
        self.running.clear()
        lacking = {key: index for part, had in left for key, index in part.targets.items() if index not in had}
        if segment.first > 0:
            later = {key: index for part in self.waiting for key, index in part.targets.items()}
            last = max(part.last for part in (*(part for part, _ in left), *self.waiting))
            self.waiting.clear()
            wanted = lacking | later
            whole = from_the_start(replace(segment, last=last, targets=wanted))
            came = self._decode(whole)
            lacking = {key: index for key, index in wanted.items() if index not in came}
        if lacking:
            raise CorruptMedia(f"{len(lacking)} wanted frames cannot be decoded: the clip is damaged")


class _Ending:
    """A deadline that also ends when the whole does."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._ended = False

    def end(self) -> None:
        self._ended = True

    def check(self) -> None:
        if self._ended:
            raise DeadlineExceeded("the rest of the clip is not wanted any more")
        self._deadline.check()
