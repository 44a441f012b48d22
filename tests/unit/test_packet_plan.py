"""Which packets are decoded for which frames; rows made by hand, and by chance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

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
from gpuflow.codecs.video.references import Role


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


def clips() -> st.SearchStrategy[tuple[list[PacketRow], list[int]]]:
    """Rows of a clip with leading pictures, and its wanted frames."""

    @st.composite
    def made(draw: st.DrawFn) -> tuple[list[PacketRow], list[int]]:
        table: list[PacketRow] = []
        start = 0
        for number, length in enumerate(draw(st.lists(st.integers(1, 9), min_size=1, max_size=9))):
            leading = draw(st.integers(0, length - 1)) if number else 0
            times = [start + leading, *draw(st.permutations(range(start, start + leading)))]
            times += draw(st.permutations(range(start + leading + 1, start + length)))
            table += [PacketRow(time, place == 0) for place, time in enumerate(times)]
            start += length
        return table, draw(st.lists(st.integers(0, start - 1), min_size=1, max_size=20))

    return made()


ROLE = st.builds(Role, st.integers(0, 2), st.booleans(), st.just(False))


def covered(plans: Sequence[DecodePlan], wanted: list[int]) -> list[Segment]:
    """All segments, after the rules of every plan: each target once, disjoint, in order, only what may be left out."""
    segments = [segment for plan in plans for segment in plan.segments]
    assert sorted(index for segment in segments for index in segment.targets.values()) == sorted(set(wanted))
    assert all(before.last < after.first for before, after in pairwise(segments))
    for segment in segments:
        fed = list(segment.positions())
        assert fed == sorted(set(range(segment.first, segment.last + 1)) - set(segment.skipped))
        assert segment.num_packets == len(fed)
        assert fed[0] == segment.first
    return segments


@given(clip=clips(), restart=st.integers(0, 12))
def test_joined_segments_cost_no_more_than_restarts_and_less_than_decoding_through(
    clip: tuple[list[PacketRow], list[int]], restart: int
) -> None:
    table, wanted = clip
    apart = plan(table, *wanted)
    joined = apart.joined(restart)
    segments = covered([joined], wanted)
    sequential = max(ordered(table)[: max(wanted) + 1]) + 1
    assert apart.num_packets <= joined.num_packets <= sequential
    restarts = len(apart.segments) - len(segments)
    assert joined.num_packets <= apart.num_packets + restarts * max(0, restart - 1)
    assert all(after.first - before.last - 1 >= restart for before, after in pairwise(segments))
    assert apart.joined(0) == apart


@given(clip=clips(), parts=st.integers(1, 6), restart=st.integers(0, 6))
def test_a_split_plan_is_as_even_as_neighbouring_segments_allow(
    clip: tuple[list[PacketRow], list[int]], parts: int, restart: int
) -> None:
    table, wanted = clip
    whole = plan(table, *wanted)
    plans = whole.split(parts, restart_packets=restart)
    covered(plans, wanted)
    assert 1 <= len(plans) <= parts
    most = max(_cost(part, restart) for part in plans)
    count = len(whole.segments)
    for cuts in combinations(range(1, count), min(parts, count) - 1):  # every other way of cutting it in so many
        ends = [0, *cuts, count]
        ways = [DecodePlan(whole.segments[first:last]).joined(restart) for first, last in pairwise(ends)]
        assert most <= max(_cost(way, restart) for way in ways)


def _cost(part: DecodePlan, restart: int) -> int:
    return part.num_packets + restart * (len(part.segments) - 1)


@given(clip=clips(), data=st.data())
def test_a_thinned_plan_keeps_keyframes_and_targets(
    clip: tuple[list[PacketRow], list[int]], data: st.DataObject
) -> None:
    table, wanted = clip
    roles = [Role(0, True) if row.key else data.draw(ROLE) for row in table]
    whole = plan(table, *wanted)
    asked: list[int] = []

    def role(position: int) -> Role:
        asked.append(position)
        return roles[position]

    thin = whole.thinned(table, role)
    for segment in covered([thin], wanted):
        assert {table[position].pts for position in segment.positions()} >= set(segment.targets)
    assert set(asked) <= {position for segment in whole.segments for position in segment.positions()}


def test_free_pictures_between_targets_are_left_out() -> None:
    table = rows(0, 4, 2, 1, 3, 8, 6, 5, 7)
    free = {3, 4, 7, 8}
    thin = plan(table, 0, 6).thinned(table, lambda position: Role(0, position not in free))
    assert thin.segments == (Segment(0, 6, {0: 0, 6: 6}, skipped=(3, 4)),)
    assert list(thin.segments[0].positions()) == [0, 1, 2, 5, 6]


def test_a_higher_layer_keeps_what_it_refers_to() -> None:
    table = rows(0, 1, 2, 3, 4)
    layers = [0, 2, 1, 2, 0]

    def skipped(*indices: int) -> tuple[int, ...]:
        return plan(table, *indices).thinned(table, lambda place: Role(layers[place], place == 0)).segments[0].skipped

    assert skipped(4) == (1, 2, 3)
    assert skipped(3) == (1,)
    assert skipped(2, 4) == (1, 3)


def test_an_even_split_of_one_long_clip_follows_its_keyframes() -> None:
    table = rows(*range(80), keys=tuple(range(0, 80, 10)))
    parts = plan(table, *range(80)).split(3)
    assert [part.num_packets for part in parts] == [30, 30, 20]
    assert [part.segments[0].first for part in parts] == [0, 30, 60]
    assert [len(part.segments) for part in plan(table, *range(80)).split(3, restart_packets=4)] == [1, 1, 1]
    assert len(plan(table, 3).split(7)) == 1


def test_the_second_try_leaves_nothing_out() -> None:
    assert from_the_start(Segment(5, 7, {1: 1}, skipped=(6,))) == Segment(0, 7, {1: 1})
