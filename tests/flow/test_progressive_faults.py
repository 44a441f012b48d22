"""Bodies that are decoded while they come from servers that break off, lie or never end; and what waiting for them holds."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from gpuflow.config import FetchPolicy, Limits
from gpuflow.errors import DeadlineExceeded, FetchFailed, GpuflowError, LimitExceeded, Overloaded, TooLarge
from gpuflow.flow.flow import Flow
from gpuflow.media import FrameChunk
from tests.flow.coming import ALL, CLIP, HEAD, PICTURES, check, stops_at, take
from tests.flow.raw_server import LOOPBACK, OPEN, Handler, serving
from tests.waiting import wait_until

BRIEF = FetchPolicy(**OPEN, timeout_ms=2_500, read_seconds=0.5)


async def _abort(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(CLIP) + CLIP[: len(CLIP) * 3 // 5])
    await writer.drain()
    writer.transport.close()
    raise ConnectionResetError


async def _silence(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(CLIP) + CLIP[: len(CLIP) * 3 // 5])
    await writer.drain()
    await asyncio.Event().wait()


async def _drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(CLIP) + CLIP[: len(CLIP) * 3 // 5])
    for byte in CLIP[len(CLIP) * 3 // 5 :]:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


async def _short(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"\r\n" + CLIP[: len(CLIP) * 3 // 5])
    await writer.drain()
    raise ConnectionResetError


async def _endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"\r\n" + CLIP)
    while True:
        writer.write(bytes(1 << 16))
        await writer.drain()
        await asyncio.sleep(0)


async def _chunked(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    beginning = CLIP[: len(CLIP) * 3 // 5]
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(beginning) + beginning + b"\r\n")
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0)


HOSTILE: dict[str, tuple[Handler, type[GpuflowError]]] = {
    "breaks off": (_abort, FetchFailed),
    "falls silent": (_silence, FetchFailed),
    "drips": (_drip, FetchFailed),
    "is shorter than its header says": (_short, GpuflowError),
    "never ends": (_endless, TooLarge),
    "goes on in chunks of one byte": (_chunked, FetchFailed),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_fails_within_bounds_and_leaves_earlier_chunks_valid(name: str) -> None:
    handler, expected = HOSTILE[name]

    async def run() -> None:
        limits = {"max_video_bytes": 4 << 20}
        async with serving(handler) as server, Flow(device="cpu", slab_bytes="64MiB", fetch=BRIEF) as flow:
            kept: list[FrameChunk] = []
            loop = asyncio.get_running_loop()
            started = loop.time()
            chunks = flow.frames(server.url, chunk=10, ahead=20, options=ALL, limits=limits)
            with pytest.raises(expected) as raised:
                await take(chunks, kept, 13)
            assert loop.time() - started < 2.5 + 1.5
            assert raised.value.http_status < 500
            assert len(kept) >= 2
            assert not any(part.is_last for part in kept)
            check(kept, PICTURES)
            for part in kept:
                part.release()
            await asyncio.to_thread(wait_until, lambda: flow.slab.statistics().live_leases == 0)
            assert flow._pending_bytes == 0
            (await flow.load(CLIP, options=ALL)).release()

    asyncio.run(run())


def test_leaving_early_ends_the_fetch() -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        async with (
            serving(stops_at(CLIP, len(CLIP) * 3 // 5, go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK, workers=1) as flow,
        ):
            async with aclosing(flow.frames(server.url, chunk=10, options=ALL)) as chunks:  # type: ignore[type-var]
                (await anext(chunks)).release()
            assert flow._pending_bytes == 0
            assert {task for task in asyncio.all_tasks() if "receive" in repr(task.get_coro())} == set()
            await asyncio.to_thread(wait_until, lambda: flow.slab.statistics().live_leases == 0)
            (await flow.load(CLIP, options=ALL)).release()

    asyncio.run(run())


def test_a_stream_that_waits_for_bytes_holds_up_nobody() -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        async with (
            serving(stops_at(CLIP, 100, go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK, workers=1) as flow,
        ):
            chunks = [flow.frames(server.url, chunk=200, options=ALL) for _ in range(3)]
            waiting = [asyncio.ensure_future(anext(each)) for each in chunks]
            await server.requested.wait()
            for _ in range(3):
                (await flow.load(CLIP, options=ALL)).release()
            assert not any(task.done() for task in waiting)
            go_on.set()
            for part in await asyncio.gather(*waiting):
                check([part], PICTURES)
                part.release()

    asyncio.run(run())


def test_claims_are_refused_as_soon_as_the_header_has_come() -> None:
    huge = bytearray(CLIP)
    at = huge.find(b"avc1", huge.find(b"stsd")) + 28
    huge[at : at + 4] = b"\xff\xff\xff\xff"  # 65,535 x 65,535

    async def run() -> None:
        async with (
            serving(stops_at(bytes(huge), 20_000, asyncio.Event())) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        ):
            with pytest.raises(LimitExceeded):
                await anext(flow.frames(server.url, options=ALL))

    asyncio.run(run())


def test_waiting_for_bytes_ends_with_the_deadline() -> None:
    async def run() -> None:
        async with (
            serving(stops_at(CLIP, 100, asyncio.Event())) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        ):
            with pytest.raises(DeadlineExceeded):
                await anext(flow.frames(server.url, limits={"deadline_seconds": 0.2}))

    asyncio.run(run())


def test_bytes_that_come_count_among_the_pending_ones() -> None:
    async def run() -> None:
        limits = Limits(max_pending_bytes=len(CLIP) - 1)
        async with (
            serving(stops_at(CLIP, len(CLIP), asyncio.Event())) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK, limits=limits) as flow,
        ):
            kept: list[FrameChunk] = []
            with pytest.raises(Overloaded):
                await take(flow.frames(server.url, chunk=10, ahead=20, options=ALL), kept, 13)
            for part in kept:
                part.release()

    asyncio.run(run())
