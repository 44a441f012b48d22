"""How packets, sessions, surfaces and streams of the NVDEC routes fit together, on fakes of the vendor's libraries.

That NVDEC decodes what it is given, and how fast, only a machine with a GPU can tell: tests that are marked so.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuflow.codecs import videos
from gpuflow.codecs._backends import pynv_caps, pynvvideocodec
from gpuflow.codecs._backends.pynv_simple import SimpleVideoDecoder
from gpuflow.codecs._backends.pynv_surface import planes
from gpuflow.codecs._backends.pynvvideocodec import NvdecVideoDecoder
from gpuflow.codecs.base import Capability, VideoInfo
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.source import PacketSource
from gpuflow.config import Limits, NvdecPolicy
from gpuflow.device import Device
from gpuflow.errors import BackendUnavailable, CorruptMedia, DeadlineExceeded, InvalidOptions, UnsupportedFormat
from gpuflow.flow import video
from gpuflow.flow.context import Deadline, LoadContext
from tests.flow.clips import decode_all, make_clip
from tests.flow.elementary import Kept
from tests.flow.nvdec_wiring_only import CAPS, NvdecWiringOnly, convert, plane
from tests.flow.test_load_video import CLIPS, open_source, remux, sample
from tests.waiting import wait_until

SIZES = ((160, 96), (96, 160), (64, 48), (320, 200), (700, 64))


@pytest.fixture
def nvdec(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvdecWiringOnly]:
    fake = NvdecWiringOnly()
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", fake)
    monkeypatch.setitem(sys.modules, "cupy", fake.cupy())
    monkeypatch.setattr(pynv_caps, "capability", lambda: Capability(True))
    pynv_caps._caps.cache_clear()
    yield fake
    pynv_caps._caps.cache_clear()


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


INFO = VideoInfo("h264", 64, 48, 2, 2.0, 1.0)
GOOD = (((48, 64, 1), (64, 1, 1)), ((24, 32, 2), (64, 2, 1)))


def interfaces(*views: tuple[tuple[int, ...], tuple[int, ...] | None], kind: str = "|u1") -> list[dict[str, Any]]:
    return [plane(shape, strides, kind=kind).__cuda_array_interface__ for shape, strides in views]


def test_the_planes_of_a_frame_are_found_wiring_only() -> None:
    assert planes(interfaces(*GOOD), INFO) == (4_096, 4_096 + 48 * 64, 64)
    assert planes(interfaces((GOOD[0][0], (256, 1, 1)), GOOD[1]), INFO) == (4_096, 4_096 + 48 * 256, 256)
    assert planes(interfaces((GOOD[0][0], None), GOOD[1]), INFO)[2] == 64
    odd = replace(INFO, width=63, height=47)
    assert planes(interfaces(((47, 64, 1), (64, 1, 1)), GOOD[1]), odd) == (4_096, 4_096 + 47 * 64, 64)
    deep = replace(INFO, bit_depth=10)
    for strides in ((128, 2, 1), (64, 1, 1)):  # in bytes; in samples, as PyNvVideoCodec 2.2 gives them
        assert planes(interfaces((GOOD[0][0], strides), GOOD[1], kind="|u2"), deep)[1:] == (4_096 + 48 * 128, 128)


@pytest.mark.parametrize(
    ("views", "kind"),
    [
        (GOOD[:1], "|u1"),
        ((GOOD[0], GOOD[0], GOOD[0]), "|u1"),
        ((((48, 62, 1), (62, 1, 1)), GOOD[1]), "|u1"),
        ((((46, 64, 1), (64, 1, 1)), GOOD[1]), "|u1"),
        ((((64, 64, 1), (64, 1, 1)), GOOD[1]), "|u1"),
        ((((48, 80, 1), (80, 1, 1)), GOOD[1]), "|u1"),
        ((GOOD[0], ((23, 32, 2), (64, 2, 1))), "|u1"),
        ((GOOD[0], ((24, 31, 2), (64, 2, 1))), "|u1"),
        ((((48, 64, 1), (32, 1, 1)), GOOD[1]), "|u1"),
        (GOOD, "|u2"),
    ],
    ids=["one plane", "4:4:4", "narrower", "lower", "higher", "wider", "chroma lower", "chroma narrower", "rows overlap",
         "deeper"],
)  # fmt: skip
def test_a_surface_unlike_the_clip_is_refused_wiring_only(views: Any, kind: str) -> None:
    with pytest.raises(UnsupportedFormat):
        planes(interfaces(*views, kind=kind), INFO)


# What a GPU takes. Hopper: no AV1, H.264 of 8 bits up to 4096x4096, HEVC and VP9 to 8192x8192, from the application note

HOPPER: dict[tuple[str, int], dict[str, int]] = {
    ("H264", 8): CAPS | {"mb_num_max": 65_536},
    ("HEVC", 8): CAPS | {"width_min": 144, "height_min": 144, "width_max": 8_192, "height_max": 8_192, "mb_num_max": 262_144},
    ("VP9", 8): CAPS | {"width_min": 128, "height_min": 128, "width_max": 8_192, "height_max": 8_192, "mb_num_max": 262_144},
}  # fmt: skip
HOPPER["HEVC", 10] = HOPPER["HEVC", 8]


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        ({}, ""),
        ({"codec": "hevc", "bit_depth": 10}, ""),
        ({"codec": "av1"}, "does not decode av1 with 8 bits"),
        ({"bit_depth": 10}, "does not decode h264 with 10 bits"),
        ({"codec": "hevc", "bit_depth": 12}, "does not decode hevc with 12 bits"),
        ({"chroma": "422"}, "this h264 is 4:2:2"),
        ({"codec": "hevc", "chroma": "444"}, "this hevc is 4:4:4"),
        ({"chroma": "400"}, "this h264 is grey"),
        ({"chroma": "other"}, "this h264 is other"),
        ({"matrix": "ycgco"}, "no colour matrix ycgco"),
        ({"codec": "theora"}, "no decoder for theora"),
        ({"width": 48, "height": 48}, ""),
        ({"width": 47}, "widths of 48 .. 4096"),
        ({"height": 47}, "heights of 48 .. 4096"),
        ({"codec": "hevc", "width": 128, "height": 130}, "widths of 144"),
        ({"width": 4_096, "height": 4_096}, ""),
        ({"width": 4_097}, "widths of 48 .. 4096"),
        ({"height": 4_098}, "heights of 48 .. 4096"),
        ({"codec": "hevc", "width": 7_680, "height": 4_320}, ""),
        ({"codec": "hevc", "width": 8_192, "height": 8_192}, ""),
    ],
)
def test_what_hopper_takes_and_why_not_wiring_only(
    clip: dict[str, Any], reason: str, nvdec: NvdecWiringOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(gpuid: int, codec: str, bitdepth: int) -> dict[str, int]:
        return HOPPER.get((codec, bitdepth), {"supported": 0, "num_decoder_engines": 0})

    monkeypatch.setattr(nvdec, "GetDecoderCaps", answer)
    info = replace(VideoInfo("h264", 1_280, 720, 30, 30.0, 1.0), **clip)
    support = NvdecVideoDecoder(0, convert).supports(info)
    assert bool(support) == (reason == "")
    assert reason in support.reason


def test_macroblocks_at_the_edges_count_whole_wiring_only() -> None:
    info = VideoInfo("h264", 65, 49, 30, 30.0, 1.0)
    assert pynv_caps.macroblocks(65, 49) == 5 * 4
    assert pynv_caps.within(info, CAPS | {"mb_num_max": 20})
    refused = pynv_caps.within(info, CAPS | {"mb_num_max": 19})
    assert not refused
    assert "takes 19 macroblocks, this picture has 20" in refused.reason


def test_a_gpu_that_answers_rubbish_is_not_used_wiring_only(
    nvdec: NvdecWiringOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvdec, "GetDecoderCaps", lambda gpuid, codec, bitdepth: {"supported": 1})
    decoder = NvdecVideoDecoder(0, convert)
    assert decoder.supports(INFO).reason == "NVDEC does not answer for h264 (KeyError)"
    assert decoder.lanes == pynvvideocodec.DEFAULT_SESSIONS


def test_a_clip_that_the_gpu_does_not_take_is_decoded_on_the_cpu_with_the_reason_or_refused_wiring_only(
    nvdec: NvdecWiringOnly, monkeypatch: pytest.MonkeyPatch, context: LoadContext
) -> None:
    def answer(gpuid: int, codec: str, bitdepth: int) -> dict[str, int]:
        return HOPPER.get((codec, bitdepth), {"supported": 0, "num_decoder_engines": 0})

    monkeypatch.setattr(nvdec, "GetDecoderCaps", answer)
    videos._gpu_decoder.cache_clear()
    context.device = Device("cuda:0", "a fake")
    for arguments, reason in (
        ({}, None),
        ({"codec": "libsvtav1"}, "this GPU's NVDEC does not decode av1 with 8 bits"),
        ({"pixel_format": "yuv420p10le"}, "this GPU's NVDEC does not decode h264 with 10 bits"),
        ({"pixel_format": "yuv422p"}, "NVDEC is used for 4:2:0; this h264 is 4:2:2"),
        ({"codec": "libx265", "size": (128, 96)}, "NVDEC takes widths of 144 .. 8192: hevc 8 bit 128x96"),
    ):
        clip: Any = SimpleNamespace(info=open_source(make_clip(num_frames=4, **arguments)).info, file=None)
        context.device_asked = "auto"
        decoder, fallback = video._choose_decoder(clip, context)
        assert (decoder.name if decoder else None, fallback) == (None if reason else "pynvvideocodec", reason)
        if reason:
            context.device_asked = "cuda"
            with pytest.raises(BackendUnavailable, match="was asked for"):
                video._choose_decoder(clip, context)
    assert context.counters.snapshot() == {'gpuflow_fallback_total{modality="video"}': 4}
    videos._gpu_decoder.cache_clear()


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
