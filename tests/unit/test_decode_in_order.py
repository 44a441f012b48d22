"""Segments in the order of display: what goes to other threads, what waits, and what is tried again."""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from gpuflow.codecs.base import Capability, Deadline, FrameSink, Support, VideoInfo
from gpuflow.codecs.video.ordered import decode_in_order
from gpuflow.codecs.video.plan import DecodePlan, Segment
from gpuflow.errors import CorruptMedia, DeadlineExceeded
from gpuflow.flow.context import Deadline as Clock

INFO = VideoInfo("h264", 16, 16, 40, 30.0, 1.0)
PLAN = DecodePlan(
    tuple(Segment(first, first + 9, {first + at: first + at for at in range(10)}) for first in (0, 10, 20, 30))
)


class Decoder:
    """Gives a picture for each target, but none from a segment that begins where no keyframe is."""

    name = "of the test"
    device = "cpu"
    lanes: int | None = None
    restart_packets = 0
    contended = False

    def __init__(self, *, not_keys: Collection[int] = (), never: Collection[int] = ()) -> None:
        self.not_keys = not_keys
        self.never = never
        self.began: list[tuple[int, str]] = []

    def capability(self) -> Capability:
        return Capability(True)

    def supports(self, info: VideoInfo) -> Support:
        return Support(True)

    def decode(
        self, stream: object, info: VideoInfo, segment: Segment, sink: FrameSink, deadline: Deadline
    ) -> set[int]:
        self.began.append((segment.first, threading.current_thread().name))
        deadline.check()
        found = set() if segment.first in self.not_keys else set(segment.targets.values()) - set(self.never)
        for index in sorted(found):
            sink.put(index, None)  # type: ignore[arg-type]
        return found


class Sink:
    """Keeps numbers; has room for those below ``room``."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.put_numbers: list[int] = []
        self.given_up: list[tuple[int, int]] = []  # and how many had been put before

    def make_room(self, indices: Collection[int]) -> bool:
        return max(indices) < self.room

    def give_up(self, indices: Collection[int]) -> None:
        self.given_up += [(index, len(self.put_numbers)) for index in indices]

    def put(self, index: int, surface: Any) -> None:
        self.put_numbers.append(index)


def _decode(decoder: Any, sink: Sink, *, plan: DecodePlan = PLAN, **more: Any) -> tuple[int, ...]:
    return decode_in_order(None, INFO, plan, sink, decoder=decoder, deadline=Clock(60.0), **more)


def test_without_a_pool_pictures_come_in_order() -> None:
    sink = Sink()
    shuffled = DecodePlan(
        tuple(
            replace(segment, targets=PLAN.segments[shown].targets)
            for segment, shown in zip(PLAN.segments, (2, 0, 3, 1), strict=True)
        )
    )
    _decode(Decoder(), sink, plan=shuffled)
    assert sink.put_numbers == list(range(40))


def test_only_what_the_sink_has_room_for_is_decoded_on_the_pools_threads() -> None:
    decoder, sink = Decoder(), Sink(room=20)
    with ThreadPoolExecutor(2, thread_name_prefix="pool") as pool:
        _decode(decoder, sink, pool=pool)
    threads = {first: name.startswith("pool") for first, name in decoder.began}
    assert threads == {0: True, 10: True, 20: False, 30: False}
    assert sorted(sink.put_numbers) == list(range(40))


@pytest.mark.parametrize("room", [0, 100])
def test_when_a_keyframe_is_none_its_segment_is_decoded_from_the_first_packet_on(room: int) -> None:
    decoder, sink = Decoder(not_keys=(10, 30)), Sink(room=room)
    with ThreadPoolExecutor(1) as pool:
        assert _decode(decoder, sink, pool=pool) == ()
    assert sorted(sink.put_numbers) == list(range(40))
    assert [first for first, _ in decoder.began].count(0) == 3


def test_decoding_again_is_bounded_and_what_it_would_have_found_is_named() -> None:
    sink = Sink()
    assert _decode(Decoder(not_keys=(10, 30)), sink, max_packets=30) == tuple(range(30, 40))
    assert sink.put_numbers == list(range(30))


def test_a_picture_that_never_comes_is_given_up_in_its_turn() -> None:
    sink = Sink()
    assert _decode(Decoder(never=(3, 25)), sink) == (3, 25)
    assert sink.given_up == [(3, 9), (25, 28)]


def test_an_error_stops_the_others_and_waits_for_them() -> None:
    class Failing(Decoder):
        def decode(self, *arguments: Any) -> set[int]:
            if arguments[2].first == 0:
                raise CorruptMedia("no")
            began.set()
            while True:
                arguments[4].check()

    began = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        with pytest.raises(CorruptMedia, match="no"):
            _decode(Failing(), Sink(), pool=pool)
        assert pool._work_queue.empty()


def test_a_cancelled_deadline_ends_it() -> None:
    clock = Clock(60.0)
    clock.cancel()
    with pytest.raises(DeadlineExceeded):
        decode_in_order(None, INFO, PLAN, Sink(), decoder=Decoder(), deadline=clock)  # type: ignore[arg-type]
