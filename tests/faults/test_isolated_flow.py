"""Whole flows over decode workers: cancelled, killed under, and on a GPU."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuflow.config import AudioOptions, ImageOptions, VideoOptions
from gpuflow.demo import samples
from gpuflow.errors import (
    InvalidOptions,
)
from gpuflow.flow.flow import Flow
from gpuflow.flow.sync import SyncFlow
from gpuflow.isolation.pool import DecoderPool
from gpuflow.media import Media
from tests.cancelling import cancel_load_after
from tests.faults.pools import CLIP, alive, open_files, picture, pixels_of
from tests.flow.clips import make_clip
from tests.waiting import PATIENT, wait_until


def test_cancelling_at_many_points_leaves_leases_files_and_threads_as_they_were() -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=2, isolation="process", limits=PATIENT) as flow:
            for media in await asyncio.gather(*(flow.load(CLIP, options=VideoOptions(num_frames=4)) for _ in range(4))):
                media.release()
            assert flow.decoders is not None
            pool, slab = flow.decoders, flow.slab
            await asyncio.to_thread(wait_until, lambda: len(pool.pids) == 2)
            gc.collect()
            files, threads = open_files(), threading.active_count()
            for steps in (0, 1, 2, 3, 5, 8, 13, 30, 60, 100, 200, 400, 1_000, 3_000):
                await cancel_load_after(steps, flow.load(CLIP, options=VideoOptions(num_frames=4)))
            with await flow.load(samples.picture("PNG", width=64, height=48)) as image:
                assert image.shape == (48, 64, 3)
            await asyncio.to_thread(
                wait_until, lambda: not (slab.statistics().live_leases or pool.busy or len(pool.pids) < 2)
            )
            gc.collect()
            assert open_files() <= files
            assert threading.active_count() <= threads

    asyncio.run(run())


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_no_cancelled_load_ever_writes_into_anothers_block(isolation: Any) -> None:
    """The block of a cancelled load is not free before its writer is done: 50 cancels under load, 0 foreign bytes."""
    pictures = [(picture(number, side=300), None) for number in range(8)]
    expected = [pixels_of(blob) for blob, _ in pictures]

    async def one(flow: Flow, number: int) -> int:
        with await flow.load(pictures[number % 8][0].data, options=ImageOptions()) as image:
            before = np.array_equal(image.numpy(), expected[number % 8])
            await asyncio.sleep(0)
            return int(before and np.array_equal(image.numpy(), expected[number % 8]))

    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="8MiB", workers=2, isolation=isolation, limits=PATIENT) as flow:
            right = wanted = 0
            for round_ in range(50):
                doomed = asyncio.ensure_future(flow.load(CLIP, options=VideoOptions(num_frames=6)))
                for _ in range(7 * round_):
                    await asyncio.sleep(0)
                loads = [asyncio.ensure_future(one(flow, round_ + number)) for number in range(3)]
                await asyncio.sleep(0)
                doomed.cancel()
                right += sum(await asyncio.gather(*loads))
                wanted += len(loads)
                for result in await asyncio.gather(doomed, return_exceptions=True):
                    if isinstance(result, Media):
                        result.release()
            assert right == wanted == 150

    asyncio.run(run())


def test_a_flow_that_isolates_survives_the_death_of_every_worker() -> None:
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=2, isolation="process", limits=PATIENT) as flow:
        pool = _pool(flow)
        for _ in range(3):
            wait_until(lambda: len(pool.pids) == 2)
            killed = pool.pids
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not any(alive(pid) for pid in killed))  # noqa: B023
            with flow.load(samples.recording(), options=AudioOptions(sample_rate=16_000)) as sound:
                assert sound.shape == (1, 80_000)
        assert flow.slab.statistics().live_leases == 0


def test_parts_of_a_clip_are_decoded_side_by_side_in_a_worker() -> None:
    clip = make_clip(num_frames=90, gop=15)
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=2, isolation="process", limits=PATIENT) as flow:
        with flow.load(clip, options=VideoOptions(num_frames=6)) as frames:
            assert frames.shape[0] == 6
        pool = _pool(flow)
        assert any(len(list(Path(f"/proc/{pid}/task").iterdir())) > 1 for pid in pool.pids)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_on_a_gpu_nvdec_decodes_what_workers_demux_and_this_process_opens_no_container(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = VideoOptions(num_frames=4)
    with (
        SyncFlow(device=device, slab_bytes="64MiB", limits=PATIENT) as flow,
        flow.load(CLIP, options=options) as frames,
    ):
        expected = frames.numpy()

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this process opened a container")

    monkeypatch.setattr("av.open", refuse)
    with SyncFlow(device=device, slab_bytes="64MiB", workers=2, isolation="process", limits=PATIENT) as flow:
        with flow.load(CLIP, options=options) as frames:
            assert frames.device.startswith("cuda")
            assert (frames.backend, frames.fallback) == ("pynvvideocodec", None)
            np.testing.assert_array_equal(frames.numpy(), expected)
        with flow.load(picture(1).data) as image:
            assert image.device.startswith("cuda")


def test_isolation_has_two_names() -> None:
    with pytest.raises(InvalidOptions, match="isolation"):
        Flow(device="cpu", isolation="thread")  # type: ignore[arg-type]


def _pool(flow: SyncFlow) -> DecoderPool:
    assert flow.flow.decoders is not None
    return flow.flow.decoders
