"""Which packets are decoded for which frames; rows made by hand, and by chance."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuflow.codecs.video.plan import (
    DecodePlan,
    PacketRow,
    Segment,
    display_order,
    from_the_start,
    plan_by_count,
    plan_by_time,
)


def rows(*pts: int, keys: tuple[int, ...] = (0,), hidden: tuple[int, ...] = ()) -> list[PacketRow]:
    return [PacketRow(time, place in keys, place not in hidden, 1) for place, time in enumerate(pts)]


def ordered(table: list[PacketRow]) -> list[int]:
    order = display_order(table)
    assert order is not None
    return order


def plan(table: list[PacketRow], *indices: int) -> DecodePlan:
    return plan_by_time(table, ordered(table), indices)


def test_reordered_pictures_are_displayed_by_time() -> None:
    assert display_order(rows(0, 3, 1, 2, 6, 4, 5)) == [0, 2, 3, 1, 5, 6, 4]


def test_a_target_needs_its_keyframe_and_nothing_after_itself() -> None:
    table = rows(0, 1, 2, 3, 4, 5, 6, 7, keys=(0, 4))
    assert plan(table, 5).segments == (Segment(4, 5, {5: 5}),)
    assert plan(table, 2, 6, 2).segments == (Segment(0, 2, {2: 2}), Segment(4, 6, {6: 6}))
    assert plan(table, 2, 6).num_packets == 6


def test_a_picture_shown_before_its_keyframe_is_decoded_from_the_previous_one() -> None:
    open_gop = rows(0, 1, 2, 6, 4, 5, 7, keys=(0, 3))  # packets 4 and 5 lead keyframe 3
    assert ordered(open_gop) == [0, 1, 2, 4, 5, 3, 6]
    assert plan(open_gop, 3).segments == (Segment(0, 4, {4: 3}),)
    assert plan(open_gop, 5).segments == (Segment(3, 3, {6: 5}),)
    assert plan(open_gop, 3, 6).segments == (Segment(0, 6, {4: 3, 7: 6}),)


def test_what_an_edit_list_hides_is_decoded_and_not_counted() -> None:
    table = rows(-2, -1, 0, 1, hidden=(0, 1))
    assert ordered(table) == [2, 3]
    assert plan(table, 0).segments == (Segment(0, 2, {0: 0}),)


@pytest.mark.parametrize(
    "table",
    [
        [PacketRow(None, True), PacketRow(1, False)],
        rows(0, 1, 1),
        rows(0, 1, 2, keys=()),
        rows(0, 1, 2, keys=(1,)),
        rows(5, 6, 0, 1, keys=(0, 2)),
        rows(3, 1, 2, 4),
        [],
    ],
    ids=["no time", "repeated time", "no keyframe", "begins without", "falling keyframes", "leads the first", "empty"],
)
def test_times_that_do_not_name_pictures_ask_for_the_sequential_plan(table: list[PacketRow]) -> None:
    assert display_order(table) is None


def test_the_sequential_plan_counts_pictures_from_the_first_packet_on() -> None:
    assert plan_by_count(9, [4, 2, 4]).segments == (Segment(0, 8, {2: 2, 4: 4}, counted=True),)
    assert from_the_start(Segment(5, 7, {1: 1})) == Segment(0, 7, {1: 1})


@given(data=st.data(), gops=st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_every_target_lies_in_one_segment_that_begins_at_a_keyframe_before_it(
    data: st.DataObject, gops: list[int]
) -> None:
    table, start = [], 0
    for length in gops:
        inner = data.draw(st.permutations(range(start + 1, start + length)))
        table += [PacketRow(start, True), *(PacketRow(time, False) for time in inner)]
        start += length
    wanted = data.draw(st.lists(st.integers(0, start - 1), min_size=1, max_size=20))
    segments = plan(table, *wanted).segments
    named = [index for segment in segments for index in segment.targets.values()]
    assert sorted(named) == sorted(set(wanted))
    assert all(before.last < after.first for before, after in pairwise(segments))
    for segment in segments:
        assert table[segment.first].key
        inside = {row.pts for row in table[segment.first : segment.last + 1]}
        assert inside >= set(segment.targets)
        assert table[segment.last].pts in segment.targets
