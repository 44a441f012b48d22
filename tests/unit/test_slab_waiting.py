"""Waiting for memory: who is served when, what relieves pressure, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gpuflow.errors import SlabClosed, SlabExhausted
from gpuflow.memory import Lease, Slab
from gpuflow.memory.arbiter import PATIENCE_SECONDS, Arbiter, Request
from gpuflow.memory.extents import Extents
from tests.waiting import wait_until

MIB = 1 << 20
GRANULE = 64


@pytest.fixture
def small() -> Iterator[Slab]:
    with Slab("4MiB") as slab:
        yield slab
        assert slab.statistics().live_leases == 0
        assert slab.statistics().waiting == 0


class ArbiterAgainstAList(RuleBasedStateMachine):
    """The queue against the plainest statement of its rule, with a clock that the test turns."""

    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.arbiter = Arbiter(Extents(32 * GRANULE, granule=GRANULE))
        self.now = 0.0
        self.held: list[tuple[int, int]] = []
        self.queue: list[Request] = []

    @rule(seconds=st.sampled_from([0.1, 0.6, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=blocks, nbytes=st.integers(1, 20 * GRANULE))
    def ask(self, nbytes: int) -> tuple[int, int] | Request:
        starved = any(self.now - request.since >= PATIENCE_SECONDS for request in self.queue)
        fits = nbytes <= self.arbiter.extents.largest_free_bytes
        start = self.arbiter.take(nbytes, self.now)
        assert (start is not None) == (fits and not starved)
        if start is not None:
            self.held.append((start, nbytes))
            return start, nbytes
        request = self.arbiter.wait(nbytes, self.now)
        self.queue.append(request)
        self._settle()
        return request

    @rule(block=consumes(blocks))
    def end(self, block: tuple[int, int] | Request) -> None:
        if isinstance(block, Request):
            self.arbiter.withdraw(block)
            if block.start is None:
                self.queue.remove(block)
            else:
                self._free((block.start, block.nbytes))
        else:
            self._free(block)
        self._settle()

    def _free(self, block: tuple[int, int]) -> None:
        self.held.remove(block)
        self.arbiter.extents.free(*block)

    def _settle(self) -> None:
        granted = self.arbiter.grant(self.now)
        passed = [request for request in self.queue if request.start is None]
        for request in granted:
            assert request.start is not None
            self.held.append((request.start, request.nbytes))
            overtaken = [other for other in passed if self.queue.index(other) < self.queue.index(request)]
            assert all(self.now - other.since < PATIENCE_SECONDS for other in overtaken), (
                "a starving request was passed"
            )
        self.queue = passed

    @invariant()
    def blocks_are_disjoint_and_bytes_add_up(self) -> None:
        ends = 0
        for start, nbytes in sorted(self.held):
            assert start >= ends
            ends = start + self.arbiter.extents.round_up(nbytes)
        used = sum(self.arbiter.extents.round_up(nbytes) for _, nbytes in self.held)
        assert used + self.arbiter.extents.free_bytes == 32 * GRANULE

    @invariant()
    def nobody_waits_who_could_be_served(self) -> None:
        assert self.arbiter.waiting == self.queue
        if self.queue:
            assert self.queue[0].nbytes > self.arbiter.extents.largest_free_bytes


TestArbiter = ArbiterAgainstAList.TestCase


def test_an_async_allocation_waits_for_a_release(small: Slab) -> None:
    async def scenario() -> None:
        first = small.allocate(4 * MIB)
        waiting = asyncio.ensure_future(small.aallocate(MIB, timeout_seconds=30.0))
        await asyncio.sleep(0)
        assert small.statistics().waiting == 1
        first.release()
        (await waiting).release()

    asyncio.run(scenario())
    assert small.statistics().waits == 1


def test_a_release_in_another_thread_wakes_the_event_loop(small: Slab) -> None:
    async def scenario() -> float:
        first = small.allocate(4 * MIB)
        waiting = asyncio.ensure_future(small.aallocate(MIB, timeout_seconds=30.0))
        await asyncio.sleep(0)
        started = time.monotonic()
        await asyncio.to_thread(first.release)
        (await waiting).release()
        return time.monotonic() - started

    assert asyncio.run(scenario()) < 5.0


def test_an_async_allocation_gives_up_in_time_and_leaves_the_queue(small: Slab) -> None:
    with small.allocate(4 * MIB), pytest.raises(SlabExhausted):
        asyncio.run(small.aallocate(MIB, timeout_seconds=0.05))
    assert small.statistics().failed_allocations == 1
    assert small.statistics().waited_seconds >= 0.05


def test_a_cancelled_waiter_takes_nothing_even_when_it_was_just_served(small: Slab) -> None:
    async def scenario() -> None:
        first = small.allocate(4 * MIB)
        waiting = asyncio.ensure_future(small.aallocate(MIB, timeout_seconds=30.0))
        await asyncio.sleep(0)
        first.release()  # served, and not yet awake
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())


def test_a_small_request_passes_a_large_one_that_does_not_fit(small: Slab) -> None:
    async def scenario() -> None:
        first, second = small.allocate(2 * MIB), small.allocate(2 * MIB)
        large = asyncio.ensure_future(small.aallocate(4 * MIB, timeout_seconds=30.0))
        await asyncio.sleep(0)
        first.release()
        (await small.aallocate(MIB, timeout_seconds=1.0)).release()
        assert not large.done()
        second.release()
        (await large).release()

    asyncio.run(scenario())


def test_a_request_that_has_waited_a_second_is_passed_no_more() -> None:
    arbiter = Arbiter(Extents(4 * MIB))
    first, _ = arbiter.take(2 * MIB, 0.0), arbiter.take(MIB, 0.0)
    large = arbiter.wait(4 * MIB, 10.0)
    small = arbiter.wait(MIB, 10.5)
    assert arbiter.grant(10.99) == [small]
    assert arbiter.take(64 << 10, 11.0) is None, "not even by one that comes anew and fits"
    late = arbiter.wait(MIB, 11.0)
    assert first is not None
    arbiter.extents.free(first, 2 * MIB)
    assert arbiter.grant(11.0) == []
    arbiter.withdraw(large)
    assert arbiter.grant(11.0) == [late]


def test_eight_threads_that_wait_for_everything_are_all_served(small: Slab) -> None:
    served = []

    def work() -> None:
        for _ in range(25):
            with small.allocate(3 * MIB, timeout_seconds=60.0):
                served.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) == 200


def test_a_pressure_callback_frees_what_an_allocation_needs(small: Slab) -> None:
    cached = [small.allocate(MIB) for _ in range(4)]
    asked: list[int] = []

    def relieve(nbytes: int, deadline: float) -> None:
        assert 0 < deadline - time.monotonic() < 0.26, "also an allocation that does not wait gives it a moment"
        asked.append(nbytes)
        while cached and small.statistics().largest_free_bytes < nbytes:
            cached.pop().release()

    stop = small.on_pressure(relieve)
    small.allocate(2 * MIB).release()
    assert asked == [2 * MIB]
    small.allocate(2 * MIB).release()
    assert asked == [2 * MIB], "it is asked only when memory is short"
    stop()
    for lease in cached:
        lease.release()


def test_pressure_callbacks_of_an_async_allocation_run_off_the_event_loop(small: Slab) -> None:
    cached, threads = [small.allocate(4 * MIB)], []

    def relieve(_: int, deadline: float) -> None:
        assert 29.0 < deadline - time.monotonic() < 30.0
        threads.append(threading.get_ident())
        cached.pop().release()

    small.on_pressure(relieve)

    async def scenario() -> None:
        (await small.aallocate(MIB, timeout_seconds=30.0)).release()

    asyncio.run(scenario())
    assert threads
    assert threads[0] != threading.get_ident()


def test_a_waiter_is_served_by_a_lease_that_nobody_released(small: Slab) -> None:
    leases = [small.allocate(4 * MIB)]

    async def scenario() -> None:
        waiting = asyncio.ensure_future(small.aallocate(MIB, timeout_seconds=30.0))
        await asyncio.sleep(0)
        with pytest.warns(ResourceWarning, match="never released"):
            leases.clear()
            gc.collect()
        (await waiting).release()

    asyncio.run(scenario())
    assert small.statistics().leaked_leases == 1


def test_closing_the_slab_ends_every_wait() -> None:
    slab = Slab("1MiB")
    lease = slab.allocate(MIB)
    failed: list[Exception] = []

    def wait() -> None:
        try:
            slab.allocate(MIB, timeout_seconds=60.0)
        except SlabClosed as error:
            failed.append(error)

    async def scenario() -> None:
        thread = threading.Thread(target=wait)
        thread.start()
        waiting = asyncio.ensure_future(slab.aallocate(MIB, timeout_seconds=60.0))
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, lambda: slab.statistics().waiting == 2)
        slab.close(force=True)
        with pytest.raises(SlabClosed):
            await waiting
        await asyncio.to_thread(thread.join)

    started = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - started < 5.0
    assert len(failed) == 1
    lease.release()


class EventThatEndsWhenTold:
    """Stands for a CUDA event: this tests only how a slab treats events, not that CUDA's do as said."""

    def __init__(self) -> None:
        self.done = False

    def record(self) -> EventThatEndsWhenTold:
        return self

    def synchronize(self) -> None:
        self.done = True


def test_wiring_only_a_block_in_use_by_a_gpu_is_recycled_when_its_event_is_done(small: Slab) -> None:
    lease, event = small.allocate(4 * MIB), EventThatEndsWhenTold()
    lease.record_stream(event)
    assert lease.busy
    generation = small.generation(lease.slot)
    lease.release()
    assert small.generation(lease.slot) > generation, "readers must see at once that the block is given up"
    assert small.statistics().draining_bytes == 4 * MIB
    with pytest.raises(SlabExhausted):
        small.allocate(1)
    event.done = True
    small.allocate(1).release()


def test_wiring_only_a_waiter_notices_that_a_gpu_has_finished(small: Slab) -> None:
    lease, event = small.allocate(4 * MIB), EventThatEndsWhenTold()
    lease.record_stream(event)
    lease.release()

    async def scenario() -> Lease:
        waiting = asyncio.ensure_future(small.aallocate(MIB, timeout_seconds=30.0))
        await asyncio.sleep(0)
        event.done = True
        return await waiting

    asyncio.run(scenario()).release()
