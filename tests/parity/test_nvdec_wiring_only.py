"""How packets, sessions, surfaces and streams of the NVDEC routes fit together, on fakes of the vendor's libraries.

That NVDEC decodes what it is given, and how fast, only a machine with a GPU can tell: tests that are marked so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from gpuflow.codecs import videos
from gpuflow.codecs._backends import pynv_caps
from gpuflow.codecs._backends.pynv_simple import SimpleVideoDecoder
from gpuflow.codecs._backends.pynvvideocodec import NvdecVideoDecoder
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.source import PacketSource
from gpuflow.config import Limits, NvdecPolicy
from gpuflow.errors import BackendUnavailable, CorruptMedia, DeadlineExceeded, InvalidOptions, UnsupportedFormat
from gpuflow.flow.context import Deadline
from tests.flow.clips import decode_all, make_clip
from tests.flow.edge_clips import EDGES
from tests.flow.elementary import Kept
from tests.flow.nvdec_wiring_only import CAPS, NvdecWiringOnly, convert, installed
from tests.flow.test_load_video import CLIPS, open_source, remux, sample
from tests.waiting import wait_until

BROKEN = "mpegts: broken off within a packet"  # what half a picture looks like is the decoder's own
SIZES = ((160, 96), (96, 160), (64, 48), (320, 200), (700, 64))


@pytest.fixture
def nvdec(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvdecWiringOnly]:
    with installed(monkeypatch) as fake:
        yield fake


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def load(
    decoder: NvdecVideoDecoder | SimpleVideoDecoder,
    source: PacketSource,
    indices: Sequence[int],
    *,
    pool: ThreadPoolExecutor | None = None,
    deadline: Deadline | None = None,
) -> dict[int, Any]:
    kept = Kept(source.info)
    decode_frames(
        source.demuxed, source.info, source.plan(indices, limits=Limits()), kept,
        decoder=decoder, deadline=deadline or Deadline(60.0), pool=pool,
    )  # fmt: skip
    return kept.frames


def check(frames: dict[int, Any], expected: list[Any], indices: Sequence[int]) -> None:
    assert set(frames) == set(indices)
    for index in frames:
        np.testing.assert_array_equal(frames[index], expected[index], err_msg=f"frame {index}")


@pytest.mark.parametrize(
    "name",
    ["h264 gop 30", "h264 open gop", "hevc open gop", "vp9 without a frame count", "av1", "mpegts", "avi with b frames",
     "variable rate", "mpegts intra refresh"],
)  # fmt: skip
def test_packets_become_the_frames_of_decoding_all_wiring_only(
    name: str, nvdec: NvdecWiringOnly, threads: ThreadPoolExecutor
) -> None:
    data, container = make_clip(**CLIPS[name]), CLIPS[name].get("container", "mp4")
    expected, source = decode_all(data, container), open_source(data, container)
    decoder = NvdecVideoDecoder(0, convert)
    for pool in (None, threads):
        for indices in (sample(9, len(expected)), range(len(expected))):
            check(load(decoder, source, indices, pool=pool), expected, indices)
    assert decoder.pool.num_busy == 0
    assert nvdec.open == decoder.pool.num_idle <= 4


def test_the_parts_of_one_clip_are_decoded_by_several_sessions_at_once_wiring_only(
    nvdec: NvdecWiringOnly, threads: ThreadPoolExecutor
) -> None:
    data = make_clip(num_frames=48, gop=12, bframes=0)
    together = threading.Barrier(4)
    first: set[int] = set()

    def meet(decoder: Any, pts: int) -> None:
        if id(decoder) not in first:
            first.add(id(decoder))
            together.wait(30)  # nobody goes on before four are here

    nvdec.before = meet
    indices = (5, 17, 29, 41)
    check(load(NvdecVideoDecoder(0, convert), open_source(data), indices, pool=threads), decode_all(data), indices)
    assert (nvdec.num_made, nvdec.most_open) == (4, 4)


def test_a_surface_is_read_before_the_decoder_has_it_again_wiring_only(nvdec: NvdecWiringOnly) -> None:
    data = make_clip(num_frames=6, gop=6, bframes=0)
    check(load(NvdecVideoDecoder(0, convert), open_source(data), range(6)), decode_all(data), range(6))
    for place, entry in enumerate(nvdec.log):
        if entry == "convert":
            following = nvdec.log[place + 1 :]
            end = following.index("Decode") if "Decode" in following else len(following)
            steps = [step for step in following[:end] if step != "convert"]
            assert steps[0] == "record"
            assert steps[-2:] == ["synchronize", "converted"] or steps.index("synchronize") < steps.index("converted")
    assert nvdec.log.count("converted") == nvdec.log.count("convert") == 6
    assert nvdec.log.count("synchronize") <= 6


def test_no_more_packets_are_fed_once_all_frames_came_wiring_only(nvdec: NvdecWiringOnly) -> None:
    data = make_clip(num_frames=60, container="avi")  # its order is unknown, so that all packets would be decoded
    decoder, source = NvdecVideoDecoder(0, convert), open_source(data, "avi")
    check(load(decoder, source, [3]), decode_all(data, "avi"), [3])
    assert nvdec.log.count("Decode") < 30
    check(load(decoder, source, [50]), decode_all(data, "avi"), [50])
    assert nvdec.num_made == 1


def test_eight_threads_and_forty_clips_never_take_more_sessions_than_engines_wiring_only(
    nvdec: NvdecWiringOnly,
) -> None:
    clips = []
    for size in SIZES:
        data = make_clip(num_frames=12, gop=4, size=size)
        clips.append((open_source(data), decode_all(data)))
    decoder = NvdecVideoDecoder(0, convert)
    with ThreadPoolExecutor(8) as requests, ThreadPoolExecutor(8) as segments:

        def one(number: int) -> None:
            source, expected = clips[number % len(clips)]
            indices = sample(number % 7 + 1, 12)
            check(load(decoder, source, indices, pool=segments), expected, indices)

        list(requests.map(one, range(40)))
    assert 1 < nvdec.most_open <= CAPS["num_decoder_engines"]
    assert decoder.pool.num_busy == 0
    assert nvdec.open == decoder.pool.num_idle
    assert nvdec.num_caps_asked == 1
    assert decoder.close_idle() > 0
    assert nvdec.open == 0


@pytest.mark.parametrize("sessions", [1, 3])
def test_the_cap_on_sessions_may_be_lower_wiring_only(
    sessions: int, nvdec: NvdecWiringOnly, threads: ThreadPoolExecutor
) -> None:
    data = make_clip(num_frames=40, gop=4)
    decoder = NvdecVideoDecoder(0, convert, sessions=sessions)
    check(load(decoder, open_source(data), range(40), pool=threads), decode_all(data), range(40))
    assert nvdec.most_open <= sessions == decoder.lanes


def test_an_error_ends_exactly_that_session_wiring_only(nvdec: NvdecWiringOnly) -> None:
    data = make_clip(num_frames=20, gop=10)
    source, expected, decoder = open_source(data), decode_all(data), NvdecVideoDecoder(0, convert)
    with ThreadPoolExecutor(2) as pool:
        check(load(decoder, source, range(20), pool=pool), expected, range(20))
    kept = nvdec.open

    def fail(decoder: Any, pts: int) -> None:
        raise RuntimeError("cuvidDecodePicture returned error 999")

    nvdec.before = fail
    with pytest.raises(CorruptMedia, match="NVDEC"):
        load(decoder, source, [3])
    nvdec.before = lambda decoder, pts: None
    assert (nvdec.open, decoder.pool.num_idle, decoder.pool.num_busy) == (kept - 1, kept - 1, 0)
    check(load(decoder, source, [3, 13]), expected, [3, 13])


def test_a_sink_that_fails_leaks_no_session_wiring_only(nvdec: NvdecWiringOnly) -> None:
    source, decoder = open_source(make_clip(num_frames=20)), NvdecVideoDecoder(0, convert)

    class Full(Kept):
        def put(self, index: int, surface: Any) -> None:
            super().put(index, surface)
            raise UnsupportedFormat("no place")

    with pytest.raises(UnsupportedFormat):
        decode_frames(
            source.demuxed, source.info, source.plan([2], limits=Limits()), Full(source.info),
            decoder=decoder, deadline=Deadline(60.0),
        )  # fmt: skip
    assert nvdec.log[-1] == "converted"  # nothing writes to the sink after the end
    assert (nvdec.open, decoder.pool.num_busy) == (0, 0)


def test_loads_that_are_cancelled_leave_no_session_and_no_waiter_wiring_only(nvdec: NvdecWiringOnly) -> None:
    data = make_clip(num_frames=20, gop=20)
    source, decoder = open_source(data), NvdecVideoDecoder(0, convert, sessions=1)
    inside, go_on = threading.Event(), threading.Event()

    def stop(decoder: Any, pts: int) -> None:
        inside.set()
        go_on.wait(30)

    nvdec.before = stop
    deadlines = [Deadline(60.0) for _ in range(4)]
    with ThreadPoolExecutor(4) as requests:
        begun = [requests.submit(load, decoder, source, [7], deadline=deadline) for deadline in deadlines]
        assert inside.wait(30)
        wait_until(lambda: len(decoder.pool._queue) == 3)
        for deadline in deadlines:
            deadline.cancel()
        wait_until(lambda: not decoder.pool._queue)
        go_on.set()
        for one in begun:
            with pytest.raises(DeadlineExceeded):
                one.result()
    assert (nvdec.open, decoder.pool.num_busy, decoder.pool.num_idle) == (0, 0, 0)
    check(load(decoder, source, [7]), decode_all(data), [7])


def test_a_session_takes_clips_of_other_sizes_but_never_of_another_kind_wiring_only(nvdec: NvdecWiringOnly) -> None:
    decoder = NvdecVideoDecoder(0, convert)
    for codec, sizes, made in (("libx264", SIZES[:4], 1), ("libx265", SIZES[:2], 2), ("libx264", SIZES, 3)):
        for size in sizes:
            data = make_clip(codec, num_frames=4, gop=4, size=size)
            check(load(decoder, open_source(data), range(4)), decode_all(data), range(4))
        assert nvdec.num_made == made
    assert "reconfigure 96x160" in nvdec.log


def test_a_change_of_size_that_fails_late_costs_the_clip_nothing_wiring_only(nvdec: NvdecWiringOnly) -> None:
    clips = [make_clip(num_frames=8, gop=8, size=size) for size in SIZES[:2]]
    decoder = NvdecVideoDecoder(0, convert)
    check(load(decoder, open_source(clips[0]), [5]), decode_all(clips[0]), [5])
    failing: list[Any] = []

    def fail_first(session: Any, pts: int) -> None:
        failing.append(session) if not failing else None
        if session is failing[0]:
            raise RuntimeError("cuvidReconfigureDecoder returned error 1")

    nvdec.before = fail_first
    check(load(decoder, open_source(clips[1]), [5]), decode_all(clips[1]), [5])
    assert (nvdec.num_made, decoder.pool.num_idle, decoder.pool.num_busy) == (2, 1, 0)
    failing.clear()

    def fail(session: Any, pts: int) -> None:
        failing.append(session)
        raise RuntimeError("cuvidDecodePicture returned error 999")

    nvdec.before = fail
    with pytest.raises(CorruptMedia):
        load(decoder, open_source(clips[1]), [5])
    assert len(failing) == 1  # the clip's own fault is not tried twice


def test_where_memory_is_short_idle_sessions_are_closed_first_wiring_only(nvdec: NvdecWiringOnly) -> None:
    small, other = make_clip(num_frames=4, gop=4), make_clip("libx265", num_frames=4, gop=4)
    decoder = NvdecVideoDecoder(0, convert)
    check(load(decoder, open_source(small), [1]), decode_all(small), [1])
    nvdec.limit = 1
    check(load(decoder, open_source(other), [1]), decode_all(other), [1])
    assert (nvdec.open, decoder.pool.num_idle) == (1, 1)
    nvdec.limit = 0
    decoder.close_idle()
    with pytest.raises(BackendUnavailable, match="hevc"):
        load(decoder, open_source(other), [1])
    assert decoder.pool.num_busy == 0


def test_what_the_gpu_does_not_take_reaches_no_session_wiring_only(nvdec: NvdecWiringOnly) -> None:
    nvdec.caps["width_min"] = 200
    with pytest.raises(UnsupportedFormat, match="widths of 200"):
        load(NvdecVideoDecoder(0, convert), open_source(make_clip(num_frames=4)), [1])
    assert nvdec.num_made == 0


def test_a_clip_whose_pictures_grow_beyond_the_session_is_refused_wiring_only(nvdec: NvdecWiringOnly) -> None:
    for sizes in (((160, 96), (128, 64)), ((160, 96), (320, 200)), ((160, 96), (1_300, 704))):
        parts = [make_clip(num_frames=6, gop=6, size=size, container="mpegts") for size in sizes]
        source = open_source(b"".join(parts), "mpegts")
        decoder = NvdecVideoDecoder(0, convert)
        with pytest.raises(UnsupportedFormat):
            load(decoder, source, range(source.info.num_frames))
        assert (nvdec.open, decoder.pool.num_busy) == (0, 0)


# The second route


def test_simple_decoder_gives_the_frames_of_decoding_all_wiring_only(nvdec: NvdecWiringOnly) -> None:
    decoder = SimpleVideoDecoder(0, convert, sessions=2)
    for arguments in ({"gop": 10}, {"size": (96, 160)}, {"codec": "libx265", "container": "matroska"}):
        data, container = make_clip(num_frames=30, **arguments), arguments.get("container", "mp4")
        source = open_source(data, str(container))
        assert decoder.takes(source.demuxed, source.info)
        expected = decode_all(data, str(container))
        for indices in ((29, 3, 3, 17), range(30)):
            check(load(decoder, source, indices), expected, indices)
    assert nvdec.most_frames == 8
    assert nvdec.num_made == 3  # the second clip is turned, and too high for what was made for the first


def test_simple_decoder_takes_another_file_without_a_new_decoder_wiring_only(nvdec: NvdecWiringOnly) -> None:
    decoder = SimpleVideoDecoder(0, convert)
    for seed in range(3):
        data = make_clip(num_frames=10 + seed)
        check(load(decoder, open_source(data), [9]), decode_all(data), [9])
    assert (nvdec.num_made, nvdec.log.count("load")) == (1, 3)


def _edited() -> bytes:
    return remux(make_clip(gop=20), shift=7)


@pytest.mark.parametrize(
    ("data", "container", "reason"),
    [
        (_edited, "mp4", "53 frames"),
        (lambda: make_clip(container="mpegts"), "mpegts", "not found by number"),
        (lambda: make_clip(container="avi"), "avi", "not found by number"),
        (lambda: make_clip(num_frames=4, times=[0, 1, 1, 2], bframes=0, time_base=Fraction(1, 30), container="matroska"),
         "matroska", "same time"),
    ],
    ids=["edit list", "transport stream", "avi", "repeated time"],
)  # fmt: skip
def test_simple_decoder_is_not_given_files_that_it_may_count_otherwise_wiring_only(
    data: Any, container: str, reason: str, nvdec: NvdecWiringOnly
) -> None:
    decoder, source = SimpleVideoDecoder(0, convert), open_source(data(), container)
    support = decoder.takes(source.demuxed, source.info)
    assert not support
    assert reason in support.reason
    with pytest.raises(UnsupportedFormat):
        load(decoder, source, [0])
    assert nvdec.num_made == 0
    assert "isolation" in decoder.takes(None, source.info).reason


def test_simple_decoder_that_counts_otherwise_is_not_believed_wiring_only(nvdec: NvdecWiringOnly) -> None:
    source, decoder = open_source(make_clip(num_frames=20)), SimpleVideoDecoder(0, convert)
    nvdec_simple = nvdec.SimpleDecoder

    def fewer(path: str, **arguments: Any) -> Any:
        made = nvdec_simple(path, **arguments)
        made._frames.pop()
        return made

    nvdec.SimpleDecoder = fewer  # type: ignore[method-assign]
    with pytest.raises(UnsupportedFormat, match="frames"):
        load(decoder, source, [3])
    assert (decoder.pool.num_busy, decoder.pool.num_idle) == (0, 0)


def test_the_route_is_chosen_by_the_policy_or_by_what_the_library_takes_wiring_only(
    nvdec: NvdecWiringOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "_made", [])
    pynv_caps.packets_refused.cache_clear()

    def chosen(route: Any) -> str:
        videos._gpu_decoder.cache_clear()
        return videos.gpu_decoder(0, convert, NvdecPolicy(route=route)).name

    assert [chosen(route) for route in ("auto", "packets", "simple")] == [
        "pynvvideocodec", "pynvvideocodec", "pynvvideocodec-simple",
    ]  # fmt: skip
    pynv_caps.packets_refused.cache_clear()
    monkeypatch.setattr(nvdec, "PacketData", lambda: object())
    assert [chosen(route) for route in ("auto", "packets")] == ["pynvvideocodec-simple", "pynvvideocodec"]
    assert "takes no packets" in videos.capabilities()["pynvvideocodec"].reason
    videos._gpu_decoder.cache_clear()
    pynv_caps.packets_refused.cache_clear()
    with pytest.raises(InvalidOptions):
        NvdecPolicy(max_sessions=0)


@pytest.mark.parametrize("name", EDGES)
def test_awkward_clips_are_given_to_a_session_as_they_are_to_libavcodec_wiring_only(
    name: str, nvdec: NvdecWiringOnly, threads: ThreadPoolExecutor
) -> None:
    make, container = EDGES[name]
    data = make()
    expected, source = decode_all(data, container), open_source(data, container)
    decoder = NvdecVideoDecoder(0, convert)
    support = decoder.supports(source.info)
    assert support or source.info.chroma != "420" or source.info.interlaced
    if support and source.info.bit_depth == 8 and name != BROKEN:
        check(load(decoder, source, sample(6, len(expected)), pool=threads), expected, sample(6, len(expected)))
