"""The checklist for a GPU host: it says that there is none; its steps run through on fakes, so that the minutes on a real
one are not lost to a slip."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import (
    _checklist,
    _clips,
    _nvdec_steps,
    h200_audio_checklist,
    h200_image_checklist,
    h200_video_checklist,
)
from benchmarks._clips import ClipSpec, clip, number
from gpuflow.codecs._backends import pynv_caps
from gpuflow.codecs._backends.pynv_surface import planes
from gpuflow.codecs.base import VideoInfo
from gpuflow.device import driver
from tests.flow.clips import decode_all
from tests.flow.nvdec_wiring_only import NvdecWiringOnly

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(driver().count > 0, reason="there is a GPU here")
@pytest.mark.parametrize(
    ("name", "checklist"),
    [
        ("h200_video_checklist", h200_video_checklist.CHECKLIST),
        ("h200_image_checklist", h200_image_checklist.CHECKLIST),
        ("h200_audio_checklist", h200_audio_checklist.CHECKLIST),
        ("bench_video_gpu", None),
        ("bench_image_gpu", None),
        ("bench_audio_gpu", None),
    ],
)
def test_without_a_gpu_the_exit_status_and_the_text_say_so(
    name: str, checklist: _checklist.Checklist | None, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr[-1000:]
    assert "no GPU here: " in done.stdout
    if checklist is not None:
        found = json.loads((tmp_path / checklist.name).read_text())
        assert found["gpu"] is None
        assert len(found["steps"]) == len(checklist.steps)


@pytest.fixture
def nvdec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[NvdecWiringOnly]:
    def on_host(frame: Any, info: VideoInfo) -> NDArray[Any]:
        luma, _, pitch = planes([view.__cuda_array_interface__ for view in frame.cuda()], info)
        rows = info.height * 3 // 2
        return np.frombuffer(ctypes.string_at(luma, rows * pitch), np.uint8).reshape(rows, pitch)[:, : info.width]

    fake = NvdecWiringOnly()
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", fake)
    monkeypatch.setitem(sys.modules, "cupy", fake.cupy())
    monkeypatch.setattr(_nvdec_steps, "nv12", on_host)
    monkeypatch.setattr(_nvdec_steps, "CLIPS", {"h264": "libx264", "vp9": "libvpx-vp9", "hevc": "libx265"})
    monkeypatch.setattr(_clips, "KEPT", tmp_path)
    pynv_caps._caps.cache_clear()
    yield fake
    pynv_caps._caps.cache_clear()


def answer(step: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
    found = _checklist.answer(step, True)
    assert "failed" not in found, found
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def test_the_steps_find_what_is_so_wiring_only(nvdec: NvdecWiringOnly) -> None:
    for codec, found in answer(_nvdec_steps.packets).items():
        if codec != "seconds":
            expected = {"frames": 30, "of": 30, "pts_are_positions_in_display_order": True, "bit_equal": 30}
            assert found == expected, codec
    drained = answer(_nvdec_steps.drain)
    assert drained["h264 NATIVE"]["frames"] == drained["h264 NATIVE"]["of"] == drained["h264 NATIVE"]["of_the_clip"]
    dropped = answer(_nvdec_steps.drop)["h264"]
    assert (dropped["lost"], dropped["wrong"]) == (0, 0)
    assert dropped["packets_left_out"] > 0
    rates = answer(_nvdec_steps.rates)
    assert rates["vp9 192p, 2 sessions"]["frames_per_second"] > 0
    assert answer(_nvdec_steps.reconfigure)["simple_right"] == [True] * 3
    assert answer(_nvdec_steps.capabilities)["h264 8"]["caps"]["num_decoder_engines"] == 7


def test_a_step_that_fails_is_an_answer() -> None:
    def fail(quick: bool) -> dict[str, Any]:
        raise RuntimeError("cuvidCreateDecoder returned error 2")

    found = _checklist.answer(fail, True)
    assert found["failed"] == "RuntimeError: cuvidCreateDecoder returned error 2"
    assert "in fail" in found["at"]


def test_an_edit_list_cuts_the_first_frames_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_clips, "KEPT", tmp_path)
    frames = decode_all(_nvdec_steps.edited(clip(ClipSpec("libx264", 320, 192, 10, 1.0)), 7))
    assert [number(frame) for frame in frames] == list(range(7, 30))
