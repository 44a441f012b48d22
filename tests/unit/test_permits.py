"""Permits that coroutines and threads wait for in one line."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpuflow.flow.permits import Permits
from tests.waiting import wait_until


def test_who_asked_first_is_served_first_thread_or_coroutine() -> None:
    async def run() -> list[str]:
        permits, order = Permits(1), list[str]()
        assert permits.try_acquire()

        async def wait(name: str) -> None:
            await permits.acquire()
            order.append(name)
            permits.release()

        def wait_on_thread() -> None:
            permits.acquire_on_thread(lambda: None)
            order.append("thread")
            permits.release()

        first = asyncio.ensure_future(wait("first"))
        await asyncio.to_thread(wait_until, lambda: permits.wanted == 1)
        second = asyncio.ensure_future(asyncio.to_thread(wait_on_thread))
        await asyncio.to_thread(wait_until, lambda: permits.wanted == 2)
        third = asyncio.ensure_future(wait("third"))
        await asyncio.to_thread(wait_until, lambda: permits.wanted == 3)
        assert not permits.try_acquire()
        permits.release()
        await asyncio.gather(first, second, third)
        assert permits.free == 1
        return order

    assert asyncio.run(run()) == ["first", "thread", "third"]


@pytest.mark.parametrize("granted_first", [False, True])
def test_a_wait_that_is_given_up_leaves_no_permit_behind(granted_first: bool) -> None:
    async def run() -> int:
        permits = Permits(1)
        assert permits.try_acquire()
        waiting = asyncio.ensure_future(permits.acquire())
        await asyncio.sleep(0)
        if granted_first:
            permits.release()  # granted, and not yet told
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if not granted_first:
            assert permits.wanted == 0
            permits.release()
        return permits.free

    assert asyncio.run(run()) == 1


def test_there_are_never_more_at_work_than_permits() -> None:
    permits, lock = Permits(3), threading.Lock()
    at_work, most = 0, 0

    def work() -> None:
        nonlocal at_work, most
        for _ in range(200):
            permits.acquire_on_thread(lambda: None)
            with lock:
                at_work += 1
                most = max(most, at_work)
            with lock:
                at_work -= 1
            permits.release()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(8)]:
            future.result()
    assert (permits.free, permits.wanted) == (3, 0)
    assert most <= 3
