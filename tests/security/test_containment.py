"""One request's harm stays its own: bad neighbours, clients that leave, and more requests than there is room for."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import random
import resource
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image as PillowImage

from gpuflow import Flow
from gpuflow.demo import samples
from gpuflow.errors import GpuflowError, Overloaded
from gpuflow.flow.flow import Isolation
from gpuflow.isolation.pool import Quarantine
from gpuflow.media import Media, Outcome
from tests.tally import Tally

NUM_GOOD = 8


def _picture(number: int, *, side: int = 96) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    out = io.BytesIO()
    PillowImage.fromarray(pixels).save(out, "PNG" if number % 2 else "JPEG", **({} if number % 2 else {"quality": 90}))
    return out.getvalue()


GOOD = [_picture(number) for number in range(NUM_GOOD - 2)] + [samples.recording(), samples.clip(seconds=0.5)]
BAD = [
    b"",
    b"GIF89a" + b"\xff" * 60,
    GOOD[0][:-300] + b"\0" * 300,
    GOOD[1][:200],
    b"\x89PNG\r\n\x1a\n" + bytes(100),
    GOOD[7][: len(GOOD[7]) // 3],
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
    b"http://127.0.0.1/",
]


def _arrays(outcomes: list[Outcome]) -> list[bytes | None]:
    """What each outcome holds, released; ``None`` for an error."""
    found: list[bytes | None] = []
    for outcome in outcomes:
        if outcome.media is None:
            assert isinstance(outcome.error, GpuflowError)
            assert outcome.error.http_status < 500
        found.append(None if outcome.media is None else outcome.media.numpy().tobytes())
        if outcome.media is not None:
            outcome.media.release()
    return found


async def _loaded(flow: Flow, sources: list[bytes]) -> list[bytes | None]:
    return _arrays([outcome async for outcome in flow.stream(sources, ordered=True, max_in_flight=8)])


@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize("num_bad", range(1, NUM_GOOD + 1))
def test_good_items_are_the_same_whatever_stands_between_them(num_bad: int, isolation: Isolation, tally: Tally) -> None:
    async def run() -> None:
        rng = random.Random(num_bad)
        async with Flow(device="cpu", slab_bytes="128MiB", isolation=isolation) as flow:
            clean = await _loaded(flow, GOOD)
            places = rng.sample(range(NUM_GOOD), num_bad)
            mixed = [rng.choice(BAD[:5] + BAD[6:]) if place in places else GOOD[place] for place in range(NUM_GOOD)]
            found = await _loaded(flow, mixed)
            good = set(range(NUM_GOOD)) - set(places)
            differ = sum(clean[place] is None or found[place] != clean[place] for place in good)
            assert differ == 0
            assert flow.slab.statistics().live_leases == 0
            tally("batches with bad items among good ones", cases=1, bad=num_bad, good_that_differ=differ)

    asyncio.run(run())


def test_clients_that_leave_take_nothing_with_them(tally: Tally) -> None:
    """1,000 requests, 100 of which are cancelled at some step: nobody reads another's pixels, nothing stays held."""
    pictures = [_picture(number, side=32) for number in range(1, 60, 2)]
    rng = random.Random(3)

    async def run() -> tuple[int, int]:
        foreign = cancelled = 0
        async with Flow(device="cpu", slab_bytes="4MiB", workers=4) as flow:
            expected = await _loaded(flow, pictures)

            async def request(number: int) -> None:
                nonlocal foreign
                with await flow.load(pictures[number % len(pictures)]) as media:
                    await asyncio.sleep(0)
                    foreign += media.numpy().tobytes() != expected[number % len(pictures)]

            for start in range(0, 1000, 20):
                tasks = [asyncio.create_task(request(start + offset)) for offset in range(20)]
                for task in rng.sample(tasks, 2):
                    for _ in range(rng.randrange(12)):
                        await asyncio.sleep(0)
                    cancelled += task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(end) for end in ended} <= {type(None), asyncio.CancelledError}
            assert len(asyncio.all_tasks()) == 1
        assert flow.slab.statistics().live_leases == 0
        return foreign, cancelled

    gc.collect()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    foreign, cancelled = asyncio.run(run())
    gc.collect()
    assert foreign == 0
    assert cancelled > 50
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files
    tally("requests, some cancelled", cases=1000, cancelled=cancelled, foreign_bytes_seen=foreign)


def test_a_cancellation_at_every_step_of_a_load_leaves_nothing(tally: Tally) -> None:
    async def run(steps: int) -> None:
        async with Flow(device="cpu", slab_bytes="4MiB", workers=1) as flow:
            loading = asyncio.create_task(flow.load(GOOD[0]))
            for _ in range(steps):
                await asyncio.sleep(0)
            loading.cancel()
            ended = (await asyncio.gather(loading, return_exceptions=True))[0]
            if not isinstance(ended, BaseException):
                ended.release()
            (await flow.load(GOOD[1])).release()
        left = flow.slab.statistics().live_leases
        assert left == 0
        tally("loads, cancelled at each step", cases=1, leases_left=left)

    for steps in range(30):
        asyncio.run(run(steps))


def test_workers_that_are_killed_take_only_their_own_job(tally: Tally) -> None:
    """A worker is killed every few loads, at any moment: its job fails, all others are as they were."""
    pictures = [_picture(number) for number in range(NUM_GOOD)]
    rng = random.Random(5)

    async def run() -> tuple[int, int]:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=2, isolation="process") as flow:
            expected = await _loaded(flow, pictures)
            wrong = failed = 0
            assert flow.decoders is not None
            for _ in range(12):
                loading = asyncio.create_task(_loaded(flow, [pictures[number % NUM_GOOD] for number in range(24)]))
                for _ in range(rng.randrange(60)):
                    await asyncio.sleep(0)
                for pid in flow.decoders.pids[:1]:
                    os.kill(pid, signal.SIGKILL)
                found = await loading
                failed += found.count(None)
                wrong += sum(one is not None and one != expected[at % NUM_GOOD] for at, one in enumerate(found))
                flow.decoders.quarantine = Quarantine(0.0)
            assert flow.slab.statistics().live_leases == 0
            return wrong, failed

    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    wrong, failed = asyncio.run(run())
    gc.collect()
    assert wrong == 0
    assert failed <= 12 * 24 // 4
    assert len(os.listdir("/proc/self/fd")) <= files
    tally("workers killed while they decode", cases=12, loads=12 * 24, failed_with_them=failed, wrong_bytes=wrong)


def test_ten_times_more_than_there_is_room_for_is_refused_at_once(tally: Tally) -> None:
    """Twenty are admitted at a time, two hundred come: those admitted end soon, the others are told to come again."""
    picture = _picture(1, side=256)

    async def run() -> tuple[list[float], int]:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=2, max_pending=20) as flow:
            for _ in range(20):
                (await flow.load(picture)).release()
            started = time.perf_counter()
            for _ in range(20):
                (await flow.load(picture)).release()
            alone, before = time.perf_counter() - started, _peak_kib()
            latencies: list[float] = []
            refused: list[tuple[int, bool, bool]] = []

            async def request() -> None:
                started = time.perf_counter()
                try:
                    (await flow.load(picture)).release()
                except Overloaded as error:
                    refused.append((error.http_status, error.retryable, time.perf_counter() - started < 0.1))
                else:
                    latencies.append((time.perf_counter() - started) / alone)

            for _ in range(5):
                await asyncio.gather(*(request() for _ in range(200)))
        assert flow.slab.statistics().live_leases == 0
        assert set(refused) == {(429, True, True)}
        assert _peak_kib() - before < 64 << 10
        return latencies, len(refused)

    latencies, refused = asyncio.run(run())
    assert len(latencies) + refused == 1000
    assert len(latencies) >= 100
    assert refused >= 500
    assert max(latencies) < 10.0, "in units of twenty loads one after another"
    tally("ten times overload", cases=1000, admitted=len(latencies), refused=refused, worst_ratio=max(latencies))


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_bytes_that_wait_for_a_decoder_are_bounded(tally: Tally) -> None:
    picture = _picture(1, side=256)

    async def run() -> tuple[int, int]:
        most = 3 * len(picture)
        async with Flow(device="cpu", slab_bytes="64MiB", workers=1, limits={"max_pending_bytes": most}) as flow:
            ended = await asyncio.gather(*(flow.load(picture) for _ in range(100)), return_exceptions=True)
            media = [one for one in ended if isinstance(one, Media)]
            for medium in media:
                medium.release()
            assert {type(one) for one in ended if not isinstance(one, Media)} == {Overloaded}
            assert flow._pending_bytes == 0
            (await flow.load(picture)).release()
        return len(media), len(ended) - len(media)

    loaded, refused = asyncio.run(run())
    assert loaded >= 3
    assert refused > 0
    tally("more bytes than may wait for a decoder", cases=100, admitted=loaded, refused=refused)
