"""Loads that are cancelled, late, one too many or closed upon: each ends in an error of its own and leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import (
    Closed,
    DeadlineExceeded,
    GpuflowError,
    Overloaded,
    SlabClosed,
    SlabExhausted,
)
from gpuflow.flow.flow import Flow
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Image, Media
from tests.cancelling import cancel_load_after
from tests.flow.media_bytes import CLIP, PIXELS, PNG


def test_leaving_a_stream_early_releases_what_nobody_took() -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB") as flow:
            stream = flow.stream([PNG] * 50, max_in_flight=8)
            async for outcome in stream:
                assert outcome.media is not None
                outcome.media.release()
                break
            await stream.aclose()  # type: ignore[attr-defined]
            await flow.aclose()
            assert flow.slab.statistics().live_leases == 0

    asyncio.run(run())


def test_cancelling_at_any_step_leaves_no_lease() -> None:
    async def run(steps: int) -> None:
        async with Flow(device="cpu", slab_bytes="64MiB") as flow:
            await cancel_load_after(steps, flow.load(CLIP, options=VideoOptions(num_frames=4)))
            await flow.aclose()
            assert flow.slab.statistics().live_leases == 0

    for steps in (0, 1, 2, 3, 5, 8, 20, 100, 1000):
        asyncio.run(run(steps))


def test_a_cancelled_load_never_gives_its_block_to_another_while_it_is_written() -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=2) as flow:
            for steps in range(0, 60, 3):
                task = asyncio.ensure_future(flow.load(CLIP, options=VideoOptions(num_frames=4)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with await flow.load(PNG) as image:
                    assert np.array_equal(image.numpy(), PIXELS)
                for result in await asyncio.gather(task, return_exceptions=True):
                    if not isinstance(result, BaseException):
                        result.release()

    asyncio.run(run())


def test_a_deadline_that_passes_is_its_own_error() -> None:
    with SyncFlow(device="cpu", slab_bytes="64MiB", limits=Limits(video_seconds=1e-6)) as flow:
        with pytest.raises(DeadlineExceeded):
            flow.load(CLIP, options=VideoOptions())
        flow.load(PNG).release()


def test_loading_the_libraries_does_not_count_as_decoding(tmp_path: Path) -> None:
    """On a new machine, with nothing compiled and nothing cached, importing torchvision takes longer than 5 s."""
    (tmp_path / "a.png").write_bytes(PNG)
    code = """
import gpuflow, pathlib, sys
with gpuflow.SyncFlow(device="cpu", slab_bytes="64MiB", limits={"image_seconds": 0.5}) as flow:
    flow.load(pathlib.Path(sys.argv[1])).release()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_full_slab_is_overload_and_says_so() -> None:
    with SyncFlow(device="cpu", slab_bytes="64KiB", limits=Limits(image_seconds=0.2)) as flow:
        with flow.load(PNG), pytest.raises(SlabExhausted) as caught:
            flow.load(PNG)
        assert caught.value.http_status == 429
        flow.load(PNG).release()


def test_more_than_max_pending_loads_are_refused_at_once() -> None:
    async def run() -> list[Any]:
        async with Flow(device="cpu", slab_bytes="64MiB", max_pending=2) as flow:
            return await asyncio.gather(*(flow.load(PNG) for _ in range(5)), return_exceptions=True)

    results = asyncio.run(run())
    assert sum(isinstance(result, Overloaded) for result in results) == 3
    for result in results:
        if isinstance(result, Image):
            result.release()


def test_the_deadline_holds_for_fetching_too() -> None:
    class Blocking:
        def __init__(self) -> None:
            self.go_on = threading.Event()

        def read(self, _: int) -> bytes:
            self.go_on.wait()
            return PNG

    file = Blocking()
    with SyncFlow(device="cpu", slab_bytes="1MiB", limits={"deadline_seconds": 0.2}) as flow:
        with pytest.raises(DeadlineExceeded, match="not fetched"):
            flow.load(file)
        file.go_on.set()


def test_closing_wakes_loads_that_wait_for_room() -> None:
    async def run() -> None:
        flow = Flow(device="cpu", slab_bytes="64KiB", workers=2)
        held = await flow.load(PNG)
        waiting = [asyncio.ensure_future(flow.load(PNG)) for _ in range(6)]
        for _ in range(1_000):  # time for the first of them to reach their workers
            await asyncio.sleep(0)
        async with asyncio.timeout(10.0):
            await flow.aclose()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, GpuflowError)
        held.release()

    asyncio.run(run())


def test_cancelled_loads_leave_nothing_in_the_event_loops_log(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB") as flow:
            for steps in range(0, 40, 2):
                task = asyncio.ensure_future(flow.load(CLIP, options=VideoOptions(num_frames=4)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                for result in await asyncio.gather(task, return_exceptions=True):
                    if not isinstance(result, BaseException):
                        result.release()

    asyncio.run(run())
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_who_loads_while_a_flow_closes_is_told_of_that_and_not_of_a_slow_medium() -> None:
    async def run() -> list[object]:
        flow = Flow(device="cpu", workers=1)
        loads = [asyncio.ensure_future(flow.load(PNG)) for _ in range(60)]
        (await loads[0]).release()
        await flow.aclose()
        return await asyncio.gather(*loads[1:], return_exceptions=True)

    found = asyncio.run(run())
    refused = [one for one in found if isinstance(one, Exception)]
    for one in found:
        if isinstance(one, Media):
            one.release()
    assert refused
    assert {type(one) for one in refused} <= {Closed, SlabClosed}


def test_a_closed_flow_refuses_work_and_closes_again() -> None:
    async def run() -> None:
        flow = Flow(device="cpu", slab_bytes="64MiB")
        await flow.aclose()
        await flow.aclose()
        with pytest.raises(Closed):
            await flow.load(PNG)

    asyncio.run(run())
    sync_flow = SyncFlow(device="cpu", slab_bytes="1MiB")
    sync_flow.close()
    with pytest.raises(Closed):
        sync_flow.load(PNG)
