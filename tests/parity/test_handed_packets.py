"""Packets that a worker demuxed are those that this process demuxes, byte for byte, and they decode to the frames of
decoding everything. The decoder is libavcodec: what NVDEC makes of them only a machine with a GPU can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.flow.context import Deadline
from gpuflow.isolation.decoding import InProcess
from gpuflow.isolation.packets import BLOCK_BYTES
from gpuflow.isolation.pool import DecoderPool
from gpuflow.isolation.remote import Isolated
from gpuflow.media import Blob
from gpuflow.memory import Slab
from tests.flow.clips import decode_all, make_clip
from tests.flow.elementary import FromPackets, Kept
from tests.flow.test_load_video import CLIPS, kind_of, open_source, remux

MORE: dict[str, dict[str, Any]] = {
    "hevc matroska": {"codec": "libx265", "container": "matroska"},
    "hevc mpegts": {"codec": "libx265", "container": "mpegts"},
    "h264 mov": {"container": "mov"},
    "mpeg4 avi": {"codec": "mpeg4", "container": "avi", "bframes": 0},
    "mpeg4 matroska": {"codec": "mpeg4", "container": "matroska"},
    "av1 matroska": {"codec": "libsvtav1", "container": "matroska"},
    "fragmented by frame": {"muxing": {"movflags": "frag_every_frame+empty_moov+default_base_moof"}},
}
EDITED = ("edit list", "cut at the start")


def _clip(name: str) -> tuple[bytes, str]:
    if name == "edit list":
        return remux(make_clip(gop=20), shift=7), "mp4"
    if name == "cut at the start":
        return remux(make_clip(gop=20, container="matroska"), container="matroska", into="matroska", drop=5), "matroska"
    arguments = (CLIPS | MORE)[name]
    return make_clip(**arguments), arguments.get("container", "mp4")


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    with Slab("16MiB", shared=True) as slab:
        with DecoderPool(slab, workers=1) as pool:
            yield Isolated(pool, slab)
        assert slab.statistics().live_leases == 0


def _handed(isolated: Isolated | InProcess, data: bytes, container: str, indices: tuple[int, ...]) -> Any:
    """The decoder with all that it was given, and the frames."""
    decoder = FromPackets()
    blob, kind = Blob(data, "c" * 64), kind_of(container)
    with (
        isolated.begin(blob, kind, "video", limits=Limits(), deadline=Deadline(60.0)) as opened,
        opened.clip() as clip,
    ):
        clip.plan(indices)
        kept = Kept(clip.info)
        clip.decode(kept, decoder)
    return decoder, kept.frames


@pytest.mark.parametrize("name", [*CLIPS, *MORE, *EDITED])
def test_packets_from_a_worker_are_those_of_this_process_and_decode_to_the_same_frames(
    name: str, isolated: Isolated
) -> None:
    data, container = _clip(name)
    expected = decode_all(data, container)
    indices = tuple(sorted({0, len(expected) // 3, len(expected) // 2, len(expected) - 1}))
    decoder, frames = _handed(isolated, data, container, indices)
    here = open_source(data, container)
    segments = here.plan(indices, limits=Limits()).segments
    assert {(segment.first, segment.last) for segment in segments} <= set(decoder.given)
    skipped = {(segment.first, segment.last): segment.skipped for segment in segments}
    for span, given in decoder.given.items():
        assert given == list(here.demuxed.payloads(span[0], span[1], skipped.get(span, ())))
        assert decoder.tables[span] == here.demuxed.rows[span[0] : span[1] + 1]
    assert tuple(sorted(frames)) == indices
    for index in indices:
        np.testing.assert_array_equal(frames[index], expected[index], err_msg=f"frame {index}")


def test_every_frame_of_a_clip_comes_from_handed_packets(isolated: Isolated) -> None:
    data = make_clip(num_frames=50, gop=12)
    expected = decode_all(data)
    _, frames = _handed(isolated, data, "mp4", tuple(range(50)))
    assert all(np.array_equal(frames[index], expected[index]) for index in range(50))


def test_packets_larger_than_the_block_come_in_pieces(isolated: Isolated) -> None:
    noise = np.random.default_rng(5)

    def draw(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return noise.integers(0, 256, (height, width, 3), dtype=np.uint8)

    data = make_clip(num_frames=3, size=(1024, 1024), gop=1, bframes=0, options={"qp": "0"}, draw=draw)
    decoder, _ = _handed(isolated, data, "mp4", (0, 2))
    given = [packet for span in sorted(decoder.given) for packet in decoder.given[span]]
    assert all(len(payload) > BLOCK_BYTES for _, payload in given)
    assert given == [packet for span in sorted(decoder.given) for packet in open_source(data).demuxed.payloads(*span)]


def test_this_process_demuxes_nothing_for_packets_that_a_worker_hands(
    isolated: Isolated, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_clip(num_frames=20)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this process opened a container")

    monkeypatch.setattr(av, "open", refuse)
    monkeypatch.setattr(av, "BitStreamFilterContext", refuse)
    _, frames = _handed(isolated, data, "mp4", (3, 17))
    assert sorted(frames) == [3, 17]
    with pytest.raises(AssertionError, match="opened a container"):
        _handed(InProcess(), data, "mp4", (3, 17))
