"""Permits that a thread gives up while it waits, and time that counts only while it works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from gpuflow.errors import DeadlineExceeded
from gpuflow.flow.permits import Permits
from gpuflow.flow.turns import Turn, WorkDeadline
from tests.waiting import wait_until


def _on_a_thread(work: Callable[[Turn, WorkDeadline], None], *, after: Callable[[WorkDeadline], None]) -> int:
    """Run ``work`` on a thread that holds the only permit, ``after`` beside it; how many permits are free in the end."""

    async def run() -> int:
        permits, deadline = Permits(1), WorkDeadline(30.0)
        await permits.acquire()
        turn = Turn(permits, deadline)
        running = asyncio.ensure_future(asyncio.to_thread(work, turn, deadline))
        await asyncio.to_thread(after, deadline)
        try:
            await running
        finally:
            turn.end()
        return permits.free

    return asyncio.run(run())


def test_a_permit_that_was_given_up_is_taken_again() -> None:
    given_up, go_on = threading.Event(), threading.Event()

    def work(turn: Turn, _: WorkDeadline) -> None:
        with turn.given_up():
            given_up.set()
            go_on.wait(30.0)
        assert turn._held

    def after(_: WorkDeadline) -> None:
        assert given_up.wait(30.0)
        go_on.set()

    assert _on_a_thread(work, after=after) == 1


@pytest.mark.parametrize("by", ["deadline", "check"])
def test_a_wait_for_a_permit_that_ends_early_loses_none(by: str) -> None:
    waiting = threading.Event()

    def refuse() -> None:
        waiting.set()
        raise DeadlineExceeded("for the test")

    async def run() -> int:
        permits, deadline = Permits(1), WorkDeadline(30.0)
        await permits.acquire()
        turn = Turn(permits, deadline)
        given_up, taken = threading.Event(), threading.Event()

        def work() -> None:
            with turn.given_up(refuse if by == "check" else None):
                given_up.set()
                taken.wait(30.0)

        running = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.to_thread(given_up.wait, 30.0)
        assert permits.try_acquire()  # somebody else works
        taken.set()
        if by == "deadline":
            await asyncio.to_thread(wait_until, lambda: permits.wanted == 1)
            deadline.cancel()
        with pytest.raises(DeadlineExceeded):
            await running
        permits.release()
        turn.end()
        return permits.free

    assert asyncio.run(run()) == 1


def test_a_turn_ends_once() -> None:
    def work(turn: Turn, _: WorkDeadline) -> None:
        turn.end()
        turn.end()

    assert _on_a_thread(work, after=lambda _: None) == 1


def test_only_work_counts_against_the_time_for_work() -> None:
    deadline = WorkDeadline(60.0)
    deadline.limit(0.1)
    never = threading.Event()
    with deadline.waiting():
        never.wait(0.15)
        deadline.check()
    deadline.check()
    deadline.limit(60.0)  # counted from the first call: this one changes nothing
    never.wait(0.12)
    with pytest.raises(DeadlineExceeded, match="of work"):
        deadline.check()


def test_a_cancelled_deadline_ends_waiting_too() -> None:
    deadline = WorkDeadline(60.0)
    with deadline.waiting():
        deadline.cancel()
        with pytest.raises(DeadlineExceeded, match="cancelled"):
            deadline.check()
    assert deadline.remaining_seconds == 0.0
