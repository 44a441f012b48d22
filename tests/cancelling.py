"""Cancelling what runs on the event loop at a chosen point of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from gpuflow.media import Media

T = TypeVar("T")


async def cancelled_after(steps: int, work: Coroutine[Any, Any, T]) -> T | None:
    """Start it, cancel it after so many turns of the loop, and wait for its end; what came of it nevertheless."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None


async def cancel_load_after(steps: int, load: Coroutine[Any, Any, Media]) -> None:
    """Likewise; what came is released."""
    media = await cancelled_after(steps, load)
    if media is not None:
        media.release()
