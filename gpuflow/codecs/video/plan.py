"""From wanted frames to the packets that must be decoded. Pure: no library, no bytes.

A clip is a row of packets in decoding order. What is displayed is the shown packets sorted by presentation time. To
get one picture, decoding starts at the nearest keyframe that lies before it both in the file and on screen (a picture
that is stored after a keyframe and displayed before it needs the previous one) and goes on to the picture's packet.
Restarting at a keyframe never decodes more than going on, so each keyframe's targets are a segment of their own.

Where the times cannot be trusted to name pictures (missing, repeated, not rising from keyframe to keyframe) the plan
is sequential: everything from the first packet on is decoded and pictures are counted as they come out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple


class PacketRow(NamedTuple):
    """One packet as the container describes it, times in units of the stream's time base. ``shown`` is false for what
    an edit list cuts away and for pictures that are only reference."""

    pts: int | None
    key: bool
    shown: bool = True
    duration: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """Packets ``first`` .. ``last`` to feed in this order, then flush. ``targets``: what to keep, by the picture's pts
    (by its number among all pictures that come out, when ``counted``) to the displayed frame's number."""

    first: int
    last: int
    targets: Mapping[int, int]
    counted: bool = False

    @property
    def num_packets(self) -> int:
        """Packets to decode."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Segments that do not overlap, in file order: they may be decoded in any order, by any number of decoders."""

    segments: tuple[Segment, ...]

    @property
    def num_packets(self) -> int:
        """Packets to decode in all segments."""
        return sum(segment.num_packets for segment in self.segments)


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
    """The same targets, decoded from the first packet on: what is left to try when a keyframe was none."""
    return Segment(0, segment.last, segment.targets, segment.counted)


def _start(rows: Sequence[PacketRow], keys: Sequence[int], position: int) -> int:
    number = bisect_right(keys, position) - 1
    pts = rows[position].pts or 0
    while number > 0 and (rows[keys[number]].pts or 0) > pts:
        number -= 1
    return keys[number]


def _by_pts(rows: Sequence[PacketRow], targets: Mapping[int, int]) -> dict[int, int]:
    return {rows[position].pts or 0: index for position, index in targets.items()}
