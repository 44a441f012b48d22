"""The awkward clips again, decoded while they come, or from parts: as from memory, and bit-equal with decoding all."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.codecs._backends.pyav import PyAvVideoDecoder
from gpuflow.codecs.video.plan import Segment
from gpuflow.config import FetchPolicy, VideoOptions
from gpuflow.flow.flow import Flow
from tests.flow.clips import decode_all
from tests.flow.edge_clips import EDGES, moov_first
from tests.flow.range_server import serves
from tests.flow.raw_server import LOOPBACK, OPEN, serving

RANGES = FetchPolicy(**OPEN, timeout_ms=10_000, range_bytes=4_096)
# What packets hold is all the same to how they come; of parts that are shown in another order no header tells either
ALIKE = ("4:2:2", "4:4:4", "10 bit", "odd size", "fields", "backwards", "a part again")
MOVIES = [
    name
    for name, (_, container) in EDGES.items()
    if container in ("mp4", "mov") and not any(word in name for word in ALIKE)
]
OTHERS = ["vp9 superframes", "mpegts: clock runs over", "raw h264"]  # of which no header tells enough
HEADER_LIES = {"h264 intra refresh"}  # its table calls pictures keyframes that are right only some pictures later
OPTIONS = (VideoOptions(fps=1_000.0), VideoOptions(num_frames=3), VideoOptions(keyframes=True))


class Seen(NamedTuple):
    """What a stream gave, and the packets that were decoded for it, from the first to the last of each segment."""

    pictures: list[NDArray[np.uint8]]
    indices: tuple[int, ...]
    keyframes: tuple[bool, ...]
    decoded: list[tuple[int, int]]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    decode = PyAvVideoDecoder.decode

    def watched(self: PyAvVideoDecoder, stream: Any, info: Any, segment: Segment, *rest: Any) -> set[int]:
        spans.append((segment.first, segment.last))
        return decode(self, stream, info, segment, *rest)

    monkeypatch.setattr(PyAvVideoDecoder, "decode", watched)
    return spans


async def _seen(flow: Flow, source: Any, options: VideoOptions, decoded: list[tuple[int, int]]) -> Seen:
    pictures: list[NDArray[np.uint8]] = []
    facts = []
    decoded.clear()
    async for part in flow.frames(source, chunk=16, options=options):
        with part:
            pictures += [frame.copy() for frame in part.numpy()]
            facts.append(part.metadata)
    indices = sum((each.frame_indices for each in facts), ())
    return Seen(pictures, indices, sum((each.keyframes for each in facts), ()), sorted(decoded))


async def _over_http(flow: Flow, data: bytes, decoded: list[tuple[int, int]]) -> list[Seen]:
    server_of: list[Any] = []
    async with serving(serves(server_of, data)) as server:
        server_of.append(server)
        return [await _seen(flow, server.url, options, decoded) for options in OPTIONS]


async def _three_ways(data: bytes, first: bytes, decoded: list[tuple[int, int]]) -> list[list[Seen]]:
    """From memory, over HTTP with the header ``first``, and in parts; for each of the options."""
    async with (
        Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        Flow(device="cpu", slab_bytes="64MiB", fetch=RANGES) as in_parts,
    ):
        from_memory = [await _seen(flow, data, options, decoded) for options in OPTIONS]
        return [from_memory, await _over_http(flow, first, decoded), await _over_http(in_parts, data, decoded)]


@pytest.mark.parametrize("name", [*MOVIES, *OTHERS])
def test_an_awkward_clip_over_http_is_the_same_as_from_memory(name: str, decoded: list[tuple[int, int]]) -> None:
    make, container = EDGES[name]
    data = make()
    expected = decode_all(data, container)
    last = name in MOVIES and 0 < data.find(b"mdat") < data.find(b"moov")
    first = moov_first(data) if last else data
    from_memory, *over_http = asyncio.run(_three_ways(data, first, decoded))
    assert from_memory[0].indices == tuple(range(len(expected)))
    for way in over_http:
        for wanted, seen in zip(from_memory, way, strict=True):
            assert (seen.indices, seen.keyframes) == (wanted.indices, wanted.keyframes)
            assert seen.decoded == wanted.decoded or name in HEADER_LIES
            for picture, index in zip(seen.pictures, seen.indices, strict=True):
                np.testing.assert_array_equal(picture, expected[index], err_msg=f"frame {index}")
