"""How streams of frames take sessions of the NVDEC routes, on fakes of the vendor's libraries: wiring only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gpuflow.codecs._backends.pynv_simple import SimpleVideoDecoder
from gpuflow.codecs._backends.pynvvideocodec import NvdecVideoDecoder
from gpuflow.codecs.video.ordered import decode_in_order
from gpuflow.config import Limits, VideoOptions
from gpuflow.flow import chunks
from gpuflow.flow.context import Deadline
from gpuflow.flow.sync import SyncFlow
from tests.flow.clips import decode_all, make_clip
from tests.flow.elementary import Kept
from tests.flow.nvdec_wiring_only import NvdecWiringOnly, convert, installed
from tests.flow.test_load_video import open_source


@pytest.fixture
def nvdec(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvdecWiringOnly]:
    with installed(monkeypatch) as fake:
        yield fake


class _Ordered(Kept):
    """``OrderedSink`` with room for everything."""

    def give_up(self, indices: Collection[int]) -> None:
        raise AssertionError(f"{sorted(indices)} did not come out")

    def make_room(self, indices: Collection[int]) -> bool:
        return True


@pytest.mark.parametrize(
    ("make", "indices", "segments"),
    [
        (NvdecVideoDecoder, (8, 10, 55), 2),
        (NvdecVideoDecoder, tuple(range(60)), 1),
        (NvdecVideoDecoder, tuple(range(0, 60, 10)), 6),
        (SimpleVideoDecoder, tuple(range(0, 60, 10)), 1),
    ],
)
def test_in_order_too_a_decoder_is_given_as_few_segments_as_it_wants_wiring_only(
    make: type[NvdecVideoDecoder | SimpleVideoDecoder],
    indices: tuple[int, ...],
    segments: int,
    nvdec: NvdecWiringOnly,
) -> None:
    given, waited = [], []

    class Watched(make):  # type: ignore[misc, valid-type]
        def decode(self, stream: Any, info: Any, segment: Any, *rest: Any) -> Any:
            given.append(segment)
            return super().decode(stream, info, segment, *rest)

    clip = make_clip(gop=10, bframes=0)
    source, decoder = open_source(clip), Watched(0, convert, sessions=2)
    nvdec.before = lambda session, pts: waited.append(decoder.contended)
    kept, plan = _Ordered(source.info), source.plan(indices, limits=Limits())
    with ThreadPoolExecutor(4) as pool:
        decode_in_order(source.demuxed, source.info, plan, kept, decoder=decoder, deadline=Deadline(60.0), pool=pool)
    expected = decode_all(clip)
    assert set(kept.frames) == set(indices)
    assert all(np.array_equal(frame, expected[index]) for index, frame in kept.frames.items())
    assert (len(given), any(waited)) == (segments, False)


def _at_once(*arguments: Any, stream: Any, **more: Any) -> None:
    """The kernel, for memory of the host, of which nobody waits for a stream."""
    convert(*arguments, stream=stream, **more)
    stream.synchronize()


@pytest.mark.parametrize("make", [NvdecVideoDecoder, SimpleVideoDecoder])
def test_a_stream_that_waits_for_its_consumer_gives_its_session_to_others_wiring_only(
    make: Callable[..., NvdecVideoDecoder | SimpleVideoDecoder], nvdec: NvdecWiringOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(gop=250)
    expected, indices = decode_all(clip), tuple(range(60))
    decoder = make(0, _at_once, sessions=1)
    monkeypatch.setattr(chunks, "choose_decoder", lambda clip, context: (decoder, None))
    options = VideoOptions(indices=indices)
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=2, limits={"deadline_seconds": 20.0}) as flow:
        paused = flow.frames(clip, chunk=4, ahead=1, options=options)
        order: list[int] = []
        for part in itertools.chain(itertools.islice(paused, 1), flow.frames(clip, chunk=4, options=options), paused):
            with part:
                order += part.metadata.frame_indices
                for frame, index in zip(part.numpy(), part.metadata.frame_indices, strict=True):
                    np.testing.assert_array_equal(frame, expected[index], err_msg=f"frame {index}")
        assert order == [*indices[:4], *indices, *indices[4:]]
        assert decoder.pool.num_busy == 0
