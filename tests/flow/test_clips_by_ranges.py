"""Clips from servers that serve parts: the header first wherever it stands, then only what the wanted frames need."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gpuflow.config import FetchPolicy, VideoOptions
from gpuflow.errors import FetchFailed
from gpuflow.flow.flow import Flow
from gpuflow.media import FrameChunk
from tests.flow.clips import make_clip
from tests.flow.coming import ALL, CLIP, PICTURES, check, faststart, take
from tests.flow.range_server import range_of, serves
from tests.flow.raw_server import OPEN, Server, serving
from tests.tally import Tally

RANGES = FetchPolicy(**OPEN, timeout_ms=10_000, range_bytes=4_096)
LONG = make_clip(num_frames=600, size=(320, 192), gop=30)


async def _by_ranges(data: bytes, options: VideoOptions) -> tuple[list[FrameChunk], list[tuple[int, int]]]:
    """Released chunks, checked against ``load``, and the parts that were asked for."""
    server_of: list[Server] = []
    async with serving(serves(server_of, data)) as server:
        server_of.append(server)
        async with Flow(device="cpu", slab_bytes="256MiB", fetch=RANGES) as flow:
            kept = [part async for part in flow.frames(server.url, chunk=8, ahead=99, options=options)]
            asked = [found for head in server.heads if (found := range_of(head))]
            with await flow.load(data, options=options) as whole:
                np.testing.assert_array_equal(np.concatenate([part.numpy() for part in kept]), whole.numpy())
                assert kept[-1].content_hash in (None, whole.content_hash)
            for part in kept:
                part.release()
            assert flow._pending_bytes == 0
    assert len(set(asked)) == len(asked)
    return kept, asked


def test_a_header_behind_the_media_is_fetched_first_where_there_are_parts() -> None:
    kept, asked = asyncio.run(_by_ranges(LONG, VideoOptions(indices=(0, 40))))
    assert LONG.find(b"moov") > len(LONG) * 3 // 4
    assert asked[0] == (0, 4_095)
    assert min(first for first, _ in asked[1:3]) > len(LONG) * 3 // 4
    assert kept[-1].is_last


@pytest.mark.parametrize("order", ["header first", "header last"])
def test_only_what_the_wanted_frames_need_is_fetched(order: str, tally: Tally) -> None:
    data = faststart(LONG) if order == "header first" else LONG
    kept, asked = asyncio.run(_by_ranges(data, VideoOptions(indices=(0, 181, 362))))
    fetched = sum(min(last, len(data) - 1) + 1 - first for first, last in asked)
    assert fetched < len(data) / 4
    assert [part.content_hash for part in kept] == [None]
    tally(f"three frames of a clip by range requests, {order}", whole_bytes=len(data), fetched_bytes=fetched)


@pytest.mark.parametrize("name", ["everything", "matroska"])
def test_where_all_is_needed_all_is_fetched_once(name: str) -> None:
    data = CLIP if name == "everything" else make_clip(num_frames=120, container="matroska")
    kept, asked = asyncio.run(_by_ranges(data, ALL))
    assert len(asked) >= len(data) // 4096
    assert bool(kept[-1].content_hash) == (name == "matroska")


def test_a_first_part_that_comes_slowly_is_waited_for() -> None:
    """Whether there are parts is known from the head, not when the first of them is here."""

    async def run() -> None:
        server_of: list[Server] = []
        policy = FetchPolicy(**OPEN, timeout_ms=10_000, range_bytes=65_536)
        go_on = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first, last = range_of(server_of[0].heads[-1]) or (0, 0)
            last = min(last, len(LONG) - 1)
            said = f'Content-Range: bytes {first}-{last}/{len(LONG)}\r\nETag: "v1"\r\n'.encode()
            head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n" % (last + 1 - first)
            writer.write(head + said + b"\r\n" + LONG[first : first + 8_000])
            if first == 0:
                await go_on.wait()
            writer.write(LONG[first + 8_000 : last + 1])

        async with serving(handler) as server:
            server_of.append(server)
            async with Flow(device="cpu", slab_bytes="64MiB", fetch=policy) as flow:
                first = asyncio.ensure_future(anext(flow.frames(server.url, options=VideoOptions(indices=(0, 3)))))
                await server.requested.wait()
                for _ in range(50):
                    await asyncio.sleep(0)
                go_on.set()
                (await first).release()
                assert len(server.heads) == 2 < len(LONG) / 65_536

    asyncio.run(run())


def test_parts_of_another_version_fail_and_earlier_chunks_stay_valid() -> None:
    async def run() -> None:
        server_of: list[Server] = []
        good, changed = serves(server_of, CLIP), serves(server_of, bytes(len(CLIP)), etag='"v2"')

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            wanted = range_of(server_of[0].heads[-1])
            assert wanted is not None
            await (good if wanted[0] < len(CLIP) * 3 // 5 else changed)(reader, writer)

        async with serving(handler) as server:
            server_of.append(server)
            async with Flow(device="cpu", slab_bytes="64MiB", fetch=RANGES) as flow:
                kept: list[FrameChunk] = []
                with pytest.raises(FetchFailed):
                    await take(flow.frames(server.url, chunk=10, ahead=20, options=ALL), kept, 13)
                check(kept, PICTURES)
                for part in kept:
                    part.release()

    asyncio.run(run())


def test_a_part_that_never_comes_fails_within_its_time() -> None:
    async def run() -> None:
        server_of: list[Server] = []
        good = serves(server_of, CLIP)

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            wanted = range_of(server_of[0].heads[-1])
            if wanted is not None and wanted[0] > len(CLIP) // 2:
                await asyncio.Event().wait()
            await good(reader, writer)

        policy = FetchPolicy(**OPEN, timeout_ms=1_000, read_seconds=0.5, range_bytes=4_096)
        async with serving(handler) as server:
            server_of.append(server)
            async with Flow(device="cpu", slab_bytes="64MiB", fetch=policy) as flow:
                kept: list[FrameChunk] = []
                started = asyncio.get_running_loop().time()
                with pytest.raises(FetchFailed):
                    await take(flow.frames(server.url, chunk=10, ahead=20, options=ALL), kept, 13)
                assert asyncio.get_running_loop().time() - started < 3.0
                check(kept, PICTURES)
                for part in kept:
                    part.release()

    asyncio.run(run())
