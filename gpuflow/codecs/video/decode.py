"""Decode a plan: its segments over a few threads, each by one decoder; what is missing is tried again, then named."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from gpuflow.codecs.base import Capability, Deadline, FrameSink, Support, VideoInfo
from gpuflow.codecs.video.plan import DecodePlan, Segment, from_the_start
from gpuflow.errors import CorruptMedia, DeadlineExceeded

_Stream = TypeVar("_Stream")
_Stream_contra = TypeVar("_Stream_contra", contravariant=True)


class VideoDecoder(Protocol[_Stream_contra]):
    """Segments of one kind of stream to pictures; safe from any thread."""

    name: str

    @property
    def device(self) -> Literal["cpu", "cuda"]: ...

    @property
    def lanes(self) -> int | None:
        """Segments of one clip that it decodes side by side; ``None``: as many as there are threads."""
        ...

    @property
    def restart_packets(self) -> int:
        """How many packets it could decode in the time that it takes to end a segment and begin another."""
        ...

    @property
    def contended(self) -> bool:
        """Whether others wait for what it holds while it decodes."""
        ...

    def capability(self) -> Capability: ...

    def supports(self, info: VideoInfo) -> Support: ...

    def decode(
        self, stream: _Stream_contra, info: VideoInfo, segment: Segment, sink: FrameSink, deadline: Deadline
    ) -> set[int]:
        """Feed the segment's packets, give its wanted pictures to ``sink``; the numbers of those that came out.

        A surface is valid only inside ``sink.put``, which converts and turns it into its place: on a GPU it queues that
        on the surface's stream, and the decoder waits for it before it touches the surface again, and before it returns.
        """
        ...


def decode_frames(
    stream: _Stream,
    info: VideoInfo,
    plan: DecodePlan,
    sink: FrameSink,
    *,
    decoder: VideoDecoder[_Stream],
    deadline: Deadline,
    pool: Executor | None = None,
    max_packets: int | None = None,
) -> tuple[int, ...]:
    """Decode all of a plan's targets into ``sink``, segments side by side on ``pool``'s threads where there is one: for
    a decoder of so many ``lanes``, as many parts that take about the same time. When it ends, well or not, no thread
    writes to the sink any more.

    A segment whose keyframe turns out to be none is decoded again from the first packet on, unless that takes more than
    ``max_packets``.

    Returns: the displayed frames that did not come out, ascending; the clip is damaged where they are.

    Raises:
        CorruptMedia: not one came out.
        DeadlineExceeded: the time is over.
    """
    job = _Job(stream, info, sink, decoder)
    found = _run(job, _parts(plan, decoder, pool), deadline, pool)
    wanted = {index for segment in plan.segments for index in segment.targets.values()}
    whole = None if found.issuperset(wanted) else _again(plan, found)
    if whole is not None and (max_packets is None or whole.num_packets <= max_packets):
        found |= job.decode(whole, deadline)
    if wanted and not found:
        raise CorruptMedia(f"none of the {len(wanted)} wanted frames can be decoded: the clip is damaged")
    return tuple(sorted(wanted - found))


def _again(plan: DecodePlan, found: set[int]) -> Segment | None:
    """What is lacking, from the first packet on with nothing left out; ``None`` where that was tried."""
    again = [segment for segment in plan.segments if not found.issuperset(segment.targets.values())]
    again = [segment for segment in again if segment.first > 0 or segment.skipped]
    if not again:
        return None
    last = again[-1]  # its packets cover what the earlier ones lack
    lacking = {key: index for part in again for key, index in part.targets.items() if index not in found}
    return from_the_start(Segment(last.first, last.last, lacking, last.counted))


@dataclass(frozen=True, slots=True)
class _Job(Generic[_Stream]):
    """What is the same for all segments of a plan."""

    stream: _Stream
    info: VideoInfo
    sink: FrameSink
    decoder: VideoDecoder[_Stream]

    def decode(self, segment: Segment, deadline: Deadline) -> set[int]:
        return self.decoder.decode(self.stream, self.info, segment, self.sink, deadline)

    def decode_part(self, part: DecodePlan, deadline: Deadline) -> set[int]:
        return set().union(*(self.decode(segment, deadline) for segment in part.segments))

    def decode_one_of_many(self, part: DecodePlan, stopping: _Stopping) -> set[int]:
        try:
            stopping.check()
            return self.decode_part(part, stopping)
        except BaseException:
            stopping.stop()
            raise


def _parts(plan: DecodePlan, decoder: VideoDecoder[_Stream], pool: Executor | None) -> tuple[DecodePlan, ...]:
    """What is decoded by one thread after another, in parts that threads take."""
    if decoder.lanes is None:
        return tuple(DecodePlan((segment,)) for segment in plan.joined(decoder.restart_packets).segments)
    return plan.split(decoder.lanes if pool else 1, restart_packets=decoder.restart_packets)


def _run(job: _Job[_Stream], parts: tuple[DecodePlan, ...], deadline: Deadline, pool: Executor | None) -> set[int]:
    if pool is None or len(parts) == 1:
        return set().union(*(job.decode_part(part, deadline) for part in parts))
    stopping = _Stopping(deadline)
    jobs = [pool.submit(job.decode_one_of_many, part, stopping) for part in parts]
    wait(jobs)
    return set().union(*_results(jobs))


def _results(jobs: list[Future[set[int]]]) -> list[set[int]]:
    """The results, or the error that came first: the others only say that they were stopped."""
    errors = [error for job in jobs if (error := job.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
        raise error
    return [job.result() for job in jobs]


class _Stopped(DeadlineExceeded):
    """Another segment of the same clip failed."""


class _Stopping:
    """A deadline that also ends when a sibling failed."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def check(self) -> None:
        if self._stopped.is_set():
            raise _Stopped("another segment of the clip failed")
        self._deadline.check()
