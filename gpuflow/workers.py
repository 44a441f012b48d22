"""Threads that decode: many loads side by side, each on one core; and how an event loop waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")
_thread = threading.local()


def worker_pool(num_threads: int, name: str) -> ThreadPoolExecutor:
    """A pool of decode workers, on whose threads ``calm_torch`` takes effect."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix=name, initializer=_begin)


def calm_torch() -> None:
    """On a decode worker, make torch use that thread alone; elsewhere, and when repeated, nothing.

    Torch starts a team of OpenMP threads for each thread that calls it, and the teams of several workers spin for cores
    that they do not get: a resize that takes 0.65 ms on one thread took 22 ms on a busy machine of two cores.
    """
    if getattr(_thread, "calm", True):
        return
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP keeps this for each thread, torch and MKL for the process:
    restoring = threading.Thread(target=torch.set_num_threads, args=(usual,))  # so they are told by another thread
    restoring.start()
    restoring.join()
    _thread.calm = True


def is_calm() -> bool:
    """Whether torch, where it is loaded, would use this thread alone."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.get_num_threads() == 1


async def result_of(future: Future[_T]) -> _T:
    """Wait for a thread's result. When the wait is cancelled the thread goes on, and nobody is told how it ends."""
    await ended(future)
    return future.result()


async def ended(future: Future[Any]) -> None:
    """Wait until a thread's work has ended, however it did."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not told.done():
            told.set_result(None)

    future.add_done_callback(lambda _: call_soon(loop, wake))
    await told


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Run a callback on a loop from another thread, unless the loop has ended."""
    with contextlib.suppress(RuntimeError):  # closed: nobody waits there any more
        loop.call_soon_threadsafe(callback)


def _begin() -> None:
    _thread.calm = False
