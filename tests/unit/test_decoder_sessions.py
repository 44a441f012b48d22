"""The pool of decoder sessions: in the order asked for, bounded, and never a failed one again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpuflow.codecs.video.sessions import SessionPool, Shape
from gpuflow.errors import BackendUnavailable, DeadlineExceeded
from gpuflow.flow.context import Deadline
from tests.waiting import wait_until

SMALL, LARGE, TURNED = (Shape("h264", "420", 8, *size) for size in ((320, 240), (2_000, 1_000), (240, 320)))
DEEP = Shape("h264", "420", 10, 320, 240)


class Sessions:
    """Makes sessions and counts them."""

    def __init__(self, *, limit: int = 2, reuse: bool = True) -> None:
        self.made: list[One] = []
        self.fail = 0
        self.pool = SessionPool(self._make, limit=lambda: limit, reuse=reuse)

    def _make(self, shape: Shape) -> One:
        if self.fail:
            self.fail -= 1
            raise RuntimeError("out of memory")
        self.made.append(One(shape))
        return self.made[-1]

    @property
    def open(self) -> int:
        return sum(not one.closed for one in self.made)


class One:
    """A session that notes what is done to it."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.made_for = shape.roomy(lambda square: square.width < 1_000)
        self.closed = self.stuck = False

    def adopt(self, shape: Shape) -> None:
        if self.stuck:
            raise RuntimeError("it does not change")
        self.shape = shape

    def close(self) -> None:
        if self.stuck:
            raise RuntimeError("it does not close")
        self.closed = True

    def abandon(self) -> None:
        self.closed = True


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def take(sessions: Sessions, shape: Shape, *, fresh: bool = False) -> One:
    with sessions.pool.session(shape, Deadline(30.0), fresh=fresh) as one:
        assert one.shape == shape
        assert not one.closed
        return one


def test_a_session_is_made_for_a_square_that_is_allowed_or_for_its_own_size() -> None:
    assert SMALL.roomy(lambda square: True) == Shape("h264", "420", 8, 640, 640) == TURNED.roomy(lambda square: True)
    assert SMALL.roomy(lambda square: False) == SMALL
    assert LARGE.roomy(lambda square: True) == LARGE
    assert not DEEP.holds(SMALL)
    assert not SMALL.holds(TURNED)


def test_sizes_that_fit_share_a_session_and_other_kinds_do_not(sessions: Sessions) -> None:
    first = take(sessions, SMALL)
    assert take(sessions, TURNED) is first
    assert take(sessions, SMALL) is first
    assert take(sessions, SMALL, fresh=True) is not first
    assert take(sessions, DEEP) is not first
    assert sessions.open == 2


def test_the_one_that_was_used_longest_ago_makes_room(sessions: Sessions) -> None:
    old, other = take(sessions, SMALL), take(sessions, DEEP)
    large = take(sessions, LARGE)
    assert (old.closed, other.closed, large.closed) == (True, False, False)
    assert take(sessions, DEEP) is other


def test_one_that_does_not_change_or_close_is_let_go(sessions: Sessions) -> None:
    stuck = take(sessions, SMALL)
    stuck.stuck = True
    assert take(sessions, TURNED) is not stuck
    assert stuck.closed
    assert sessions.pool.num_busy == 0
    sessions.made[-1].stuck = True
    assert sessions.pool.close_idle() == 1
    assert sessions.open == 0


def test_an_error_inside_ends_that_session_and_no_other(sessions: Sessions) -> None:
    with sessions.pool.session(SMALL, Deadline(30.0)) as kept:
        failing = sessions.pool.session(SMALL, Deadline(30.0))
        with pytest.raises(KeyboardInterrupt), failing:
            raise KeyboardInterrupt
    assert [one.closed for one in sessions.made] == [False, True]
    assert take(sessions, SMALL) is kept


def test_without_reuse_nothing_is_kept() -> None:
    sessions = Sessions(reuse=False)
    assert take(sessions, SMALL).closed
    assert (sessions.pool.num_idle, sessions.pool.num_busy) == (0, 0)


def test_where_none_can_be_made_idle_ones_are_closed_and_it_is_tried_again(sessions: Sessions) -> None:
    idle = take(sessions, SMALL)
    sessions.fail = 1
    take(sessions, DEEP)
    assert idle.closed
    sessions.pool.close_idle()
    sessions.fail = 2
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="h264") as caught:
            take(sessions, SMALL)
        assert isinstance(caught.value.__cause__, RuntimeError)
    assert sessions.pool.num_busy == 0
    take(sessions, SMALL)


def test_who_asked_first_is_served_first() -> None:
    sessions = Sessions(limit=1)
    order: list[int] = []

    def ask(number: int) -> None:
        with sessions.pool.session(SMALL if number % 2 else DEEP, Deadline(30.0)):
            order.append(number)

    with ThreadPoolExecutor(8) as threads, sessions.pool.session(SMALL, Deadline(30.0)):
        for number in range(8):
            threads.submit(ask, number)
            wait_until(lambda number=number: len(sessions.pool._queue) == number + 1)  # type: ignore[misc]
    assert order == list(range(8))


def test_a_waiter_that_gives_up_holds_up_nobody() -> None:
    sessions = Sessions(limit=1)
    deadline, served = Deadline(30.0), threading.Event()

    def impatient() -> None:
        with pytest.raises(DeadlineExceeded), sessions.pool.session(SMALL, deadline):
            pass

    def patient() -> None:
        with sessions.pool.session(SMALL, Deadline(30.0)):
            served.set()

    with ThreadPoolExecutor(2) as threads:
        with sessions.pool.session(SMALL, Deadline(30.0)):
            first = threads.submit(impatient)
            wait_until(lambda: len(sessions.pool._queue) == 1)
            threads.submit(patient)
            wait_until(lambda: len(sessions.pool._queue) == 2)
            deadline.cancel()
            first.result(30)
            assert not served.is_set()
        assert served.wait(30)
    assert (sessions.open, sessions.pool.num_busy) == (1, 0)
