"""Decode a plan in the order of display, for a sink that hands pictures on while later ones are decoded.

A segment goes to the pool's threads only when the sink has room for all of its pictures: those threads are other clips'
too, and must never wait for somebody to take pictures. One that is too long for that is decoded on the calling thread,
which may wait in ``put``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from gpuflow.codecs.base import Deadline, FrameSink, VideoInfo
from gpuflow.codecs.video.arrival import Arrival
from gpuflow.codecs.video.decode import VideoDecoder
from gpuflow.codecs.video.plan import DecodePlan, Segment, from_the_start
from gpuflow.errors import DeadlineExceeded

_Stream = TypeVar("_Stream")


class OrderedSink(FrameSink, Protocol):
    """A ``FrameSink`` whose ``put`` may wait, except for pictures that it made room for."""

    def give_up(self, indices: Collection[int]) -> None:
        """These pictures do not come out: nobody need wait for them."""
        ...

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
    max_packets: int | None = None,
    arrival: Arrival | None = None,
) -> tuple[int, ...]:
    """As ``decode_frames``, with segments begun in the order of their pictures, and told of what is missing in its turn.
    When it ends, well or not, no thread writes to the sink any more. ``arrival``: of packets that still come.

    A segment whose keyframe was none is decoded again at once; all of that together takes no more than ``max_packets``.

    Returns: the displayed frames that did not come out, ascending.

    Raises:
        DeadlineExceeded: the time is over.
    """
    decoding = _Ordered(stream, info, sink, decoder, _Ending(deadline), pool, max_packets, arrival)
    segments = _by_display(plan.joined(decoder.restart_packets))
    if arrival is not None:
        arrival.expect(segments)
    try:
        return decoding.run(deque(segments))
    finally:
        decoding.stop()


def _by_display(plan: DecodePlan) -> list[Segment]:
    return sorted(plan.segments, key=lambda segment: min(segment.targets.values()))


@dataclass(slots=True)
class _Ordered(Generic[_Stream]):
    stream: _Stream
    info: VideoInfo
    sink: OrderedSink
    decoder: VideoDecoder[_Stream]
    ending: _Ending
    pool: Executor | None
    left_to_repeat: int | None
    arrival: Arrival | None
    running: deque[tuple[Segment, Future[set[int]]]] = field(default_factory=deque)

    def run(self, waiting: deque[Segment]) -> tuple[int, ...]:
        missing: set[int] = set()
        while waiting or self.running:
            self._start(waiting)
            if self.running:
                segment, job = self.running[0]
                found = job.result()
                self.running.popleft()
            else:
                segment = waiting.popleft()
                found = self._decode(segment)
            if lacking := self._lacking(segment, found):
                missing |= lacking
                self.sink.give_up(lacking)
        return tuple(sorted(missing))

    def stop(self) -> None:
        self.ending.end()
        jobs = [job for _, job in self.running]
        for job in jobs:
            job.cancel()
        wait(jobs)

    def _start(self, waiting: deque[Segment]) -> None:
        """Begin what fits. A single segment stays on this thread: nothing would run beside it."""
        lanes = self.decoder.lanes
        while self.pool is not None and waiting and (self.running or len(waiting) > 1):
            if lanes is not None and len(self.running) >= lanes:
                return
            if not self._ready(waiting[0]) or not self.sink.make_room(waiting[0].targets.values()):
                return
            segment = waiting.popleft()
            self.running.append((segment, self.pool.submit(self._decode, segment)))

    def _ready(self, segment: Segment) -> bool:
        """Whether its packets are all here, where a stream may still grow."""
        return self.arrival is None or self.arrival.ready(segment)

    def _decode(self, segment: Segment) -> set[int]:
        self.ending.check()
        if self.arrival is not None:
            segment = self.arrival.prepared(segment)
        return self.decoder.decode(self.stream, self.info, segment, self.sink, self.ending)

    def _lacking(self, segment: Segment, found: set[int]) -> set[int]:
        """What did not come out, and does not when it is decoded from the first packet on either."""
        lacking = {key: index for key, index in segment.targets.items() if index not in found}
        whole = from_the_start(replace(segment, targets=lacking))
        if lacking and (segment.first > 0 or segment.skipped) and self._may_repeat(whole.num_packets):
            found = self._decode(whole)
        return set(lacking.values()) - found

    def _may_repeat(self, num_packets: int) -> bool:
        if self.left_to_repeat is None:
            return True
        self.left_to_repeat -= num_packets
        return self.left_to_repeat >= 0


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
