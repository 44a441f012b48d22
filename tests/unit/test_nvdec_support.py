"""Which clips go to NVDEC and why the others do not, and where a frame's planes lie; on fakes of the vendor's libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gpuflow.codecs import videos
from gpuflow.codecs._backends import pynv_caps, pynvvideocodec
from gpuflow.codecs._backends.pynv_surface import PyNvSurface, planes
from gpuflow.codecs._backends.pynvvideocodec import NvdecVideoDecoder
from gpuflow.codecs.base import VideoInfo
from gpuflow.device import Device
from gpuflow.errors import BackendUnavailable, UnsupportedFormat
from gpuflow.flow import video
from gpuflow.flow.context import LoadContext
from tests.flow.clips import make_clip
from tests.flow.nvdec_wiring_only import CAPS, NvdecWiringOnly, convert, installed, plane
from tests.flow.test_load_video import open_source


@pytest.fixture
def nvdec(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvdecWiringOnly]:
    with installed(monkeypatch) as fake:
        yield fake


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
        ({"interlaced": True}, "fields of interlaced"),
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


@pytest.mark.parametrize("written_on", [None, 7, 1, 2, 99])
def test_the_conversion_waits_for_the_stream_that_a_frame_is_written_on_wiring_only(
    written_on: int | None, nvdec: NvdecWiringOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cupy

    log: list[str] = []
    named = {number: SimpleNamespace(record=lambda number=number: f"event of {number}") for number in (1, 2, 99)}
    monkeypatch.setattr(cupy.cuda, "Stream", SimpleNamespace(null=named[1], ptds=named[2]))
    monkeypatch.setattr(cupy.cuda, "ExternalStream", named.get, raising=False)
    stream = SimpleNamespace(ptr=7, wait_event=log.append)
    views = [plane(*view) for view in GOOD]
    views[0].__cuda_array_interface__["stream"] = written_on
    frame = SimpleNamespace(cuda=lambda: views)
    PyNvSurface(frame, INFO, lambda *_, **__: log.append("convert"), stream).rgb_into(None)
    assert log == [*([f"event of {written_on}"] if written_on not in (None, 7) else []), "convert"]
