"""The awkward clips again, decoded while they come, or from parts: bit-equal with decoding all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from gpuflow.config import FetchPolicy, VideoOptions
from gpuflow.flow.flow import Flow
from tests.flow.clips import decode_all
from tests.flow.edge_clips import EDGES, moov_first
from tests.flow.raw_server import LOOPBACK, OPEN, serving
from tests.flow.test_fetch_ranges import _serves

RANGES = FetchPolicy(**OPEN, timeout_ms=10_000, range_bytes=4_096)
MOVIES = ("mp4", "mov")


async def _frames(data: bytes, policy: FetchPolicy, options: VideoOptions) -> list[Any]:
    server_of: list[Any] = []
    pictures: list[Any] = []
    async with serving(_serves(server_of, data)) as server:
        server_of.append(server)
        async with Flow(device="cpu", slab_bytes="64MiB", fetch=policy) as flow:
            async for part in flow.frames(server.url, chunk=16, options=options):
                with part:
                    pictures += [frame.copy() for frame in part.numpy()]
    return pictures


@pytest.mark.parametrize("name", EDGES)
def test_an_awkward_clip_over_http_is_bit_equal_to_decoding_all(name: str) -> None:
    make, container = EDGES[name]
    data = make()
    expected = decode_all(data, container)
    everything = VideoOptions(indices=tuple(range(len(expected))))
    some = VideoOptions(indices=tuple(range(0, len(expected), 9)))
    last = container in MOVIES and 0 < data.find(b"mdat") < data.find(b"moov")
    for body in [data, moov_first(data)] if last else [data]:
        for policy in (LOOPBACK, RANGES):
            for options in (everything, some):
                pictures = asyncio.run(_frames(body, policy, options))
                for picture, index in zip(pictures, options.indices or (), strict=True):
                    np.testing.assert_array_equal(picture, expected[index], err_msg=f"frame {index}")
