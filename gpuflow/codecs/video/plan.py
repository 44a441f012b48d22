"""From wanted frames to the packets that must be decoded. Pure: no library, no bytes.

A clip is a row of packets in decoding order. What is displayed is the shown packets sorted by presentation time. To
get one picture, decoding starts at the nearest keyframe that lies before it both in the file and on screen (a picture
that is stored after a keyframe and displayed before it needs the previous one) and goes on to the picture's packet.
Restarting at a keyframe never decodes more than going on, so each keyframe's targets are a segment of their own; where
a decoder has to be drained and filled again for that, ``joined`` weighs the one against the other.

Where the times cannot be trusted to name pictures (missing, repeated, not rising from keyframe to keyframe) the plan
is sequential: everything from the first packet on is decoded and pictures are counted as they come out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from gpuflow.codecs.video.references import Role, unneeded


class PacketRow(NamedTuple):
    """One packet as the container describes it, times in units of the stream's time base. ``shown`` is false for what
    an edit list cuts away and for pictures that are only reference."""

    pts: int | None
    key: bool
    shown: bool = True
    duration: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """Packets ``first`` .. ``last`` to feed in this order, without those in ``skipped`` (ascending), then flush.
    ``targets``: what to keep, by the picture's pts (by its number among all pictures that come out, when ``counted``)
    to the displayed frame's number."""

    first: int
    last: int
    targets: Mapping[int, int]
    counted: bool = False
    skipped: tuple[int, ...] = ()

    @property
    def num_packets(self) -> int:
        """Packets to decode."""
        return self.last - self.first + 1 - len(self.skipped)

    def positions(self) -> Iterator[int]:
        """The packets to feed."""
        return fed(self.first, self.last, self.skipped)


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Segments that do not overlap, in file order: they may be decoded in any order, by any number of decoders."""

    segments: tuple[Segment, ...]

    @property
    def num_packets(self) -> int:
        """Packets to decode in all segments."""
        return sum(segment.num_packets for segment in self.segments)

    def joined(self, restart_packets: int) -> DecodePlan:
        """The plan for one decoder that could decode so many packets in the time that a restart takes it: segments are
        one where the packets between them are fewer."""
        segments: list[Segment] = []
        for segment in self.segments:
            if segments and _between(segments[-1], segment) < restart_packets:
                segments.append(_one(segments.pop(), segment))
            else:
                segments.append(segment)
        return DecodePlan(tuple(segments))

    def split(self, parts: int, *, restart_packets: int = 0) -> tuple[DecodePlan, ...]:
        """Plans for at most ``parts`` decoders side by side, each ``joined`` as one decoder does it, such that the one
        with the most to do has as little as neighbouring segments allow."""
        low, high = 1, _cost(self.segments, restart_packets)
        while low < high:
            middle = (low + high) // 2
            fits = len(_runs(self.segments, middle, restart_packets)) <= parts
            low, high = (low, middle) if fits else (middle + 1, high)
        runs = _runs(self.segments, low, restart_packets)
        return tuple(DecodePlan(tuple(run)).joined(restart_packets) for run in runs)

    def thinned(self, rows: Sequence[PacketRow], role: Callable[[int], Role]) -> DecodePlan:
        """The same without the packets that no wanted picture refers to. ``role``: of the packet at a position; asked
        for those of planned segments only."""
        return DecodePlan(tuple(_thinned(segment, rows, role) for segment in self.segments))


def fed(first: int, last: int, skipped: Sequence[int]) -> Iterator[int]:
    """The positions ``first`` .. ``last`` without those ``skipped``."""
    start = first
    for position in skipped:
        yield from range(start, position)
        start = position + 1
    yield from range(start, last + 1)


def display_order(rows: Sequence[PacketRow]) -> list[int] | None:
    """Positions of the shown packets in display order, or ``None`` when the times do not name pictures: then only
    decoding tells."""
    shown = [position for position, row in enumerate(rows) if row.shown]
    times = [rows[position].pts for position in shown]
    keys = [row.pts for row in rows if row.key]
    if not rows or not rows[0].key or None in times or None in keys or len(set(times)) < len(times):
        return None
    if any(later <= earlier for earlier, later in pairwise(keys)):  # type: ignore[operator]
        return None
    ordered = sorted(shown, key=lambda position: rows[position].pts or 0)
    if ordered and (rows[ordered[0]].pts or 0) < (keys[0] or 0):
        return None  # shown before the first keyframe: decoders drop such pictures, or show rubbish
    return ordered


def plan_by_time(rows: Sequence[PacketRow], order: Sequence[int], indices: Iterable[int]) -> DecodePlan:
    """The plan for displayed frames ``indices`` (any order, repeats allowed), by presentation time."""
    keys = [position for position, row in enumerate(rows) if row.key]
    wanted: dict[int, dict[int, int]] = {}
    for index in sorted(set(indices)):
        position = order[index]
        wanted.setdefault(_start(rows, keys, position), {})[position] = index
    merged: list[tuple[int, int, dict[int, int]]] = []
    for first in sorted(wanted):
        targets = wanted[first]
        last = max(targets)
        if merged and first <= merged[-1][1]:  # a picture before it needed packets beyond this keyframe
            before = merged.pop()
            first, last, targets = before[0], max(before[1], last), before[2] | targets
        merged.append((first, last, targets))
    return DecodePlan(tuple(Segment(first, last, _by_pts(rows, targets)) for first, last, targets in merged))


def plan_by_count(num_packets: int, indices: Iterable[int]) -> DecodePlan:
    """The sequential plan: all packets from the first on; decoding ends with the last wanted picture."""
    targets = {index: index for index in sorted(set(indices))}
    return DecodePlan((Segment(0, num_packets - 1, targets, counted=True),))


def from_the_start(segment: Segment) -> Segment:
    """The same targets, decoded from the first packet on and with all of them: what is left to try when a keyframe was
    none."""
    return Segment(0, segment.last, segment.targets, segment.counted)


def _thinned(segment: Segment, rows: Sequence[PacketRow], role: Callable[[int], Role]) -> Segment:
    positions = range(segment.first, segment.last + 1)
    if segment.counted or len(segment.targets) == len(positions):
        return segment
    wanted = frozenset(place for place, position in enumerate(positions) if rows[position].pts in segment.targets)
    places = unneeded([role(position) for position in positions], wanted)
    return replace(segment, skipped=tuple(segment.first + place for place in places))


def _between(before: Segment, after: Segment) -> int:
    return after.first - before.last - 1


def _one(before: Segment, after: Segment) -> Segment:
    targets = {**before.targets, **after.targets}
    return Segment(before.first, after.last, targets, before.counted, before.skipped + after.skipped)


def _cost(segments: Sequence[Segment], restart_packets: int) -> int:
    """Packets that one decoder decodes, and those that it could decode while it restarts."""
    fed_packets = sum(segment.num_packets for segment in segments)
    return fed_packets + sum(min(_between(*pair), restart_packets) for pair in pairwise(segments))


def _runs(segments: Sequence[Segment], most: int, restart_packets: int) -> list[list[Segment]]:
    """As few runs of neighbours as do not cost more than ``most`` each; a segment that alone costs more is one."""
    runs: list[list[Segment]] = []
    cost = 0
    for segment in segments:
        more = segment.num_packets + (min(_between(runs[-1][-1], segment), restart_packets) if runs else 0)
        if runs and cost + more <= most:
            runs[-1].append(segment)
            cost += more
        else:
            runs.append([segment])
            cost = segment.num_packets
    return runs


def _start(rows: Sequence[PacketRow], keys: Sequence[int], position: int) -> int:
    number = bisect_right(keys, position) - 1
    pts = rows[position].pts or 0
    while number > 0 and (rows[keys[number]].pts or 0) > pts:
        number -= 1
    return keys[number]


def _by_pts(rows: Sequence[PacketRow], targets: Mapping[int, int]) -> dict[int, int]:
    return {rows[position].pts or 0: index for position, index in targets.items()}
