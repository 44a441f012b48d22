"""After an error on a GPU: does its context still live? Without a GPU only the logic and the wiring are tested."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpuflow.codecs._backends import known_good, nvimagecodec
from gpuflow.codecs._backends.nvimagecodec import NvImageCodecDecoder
from gpuflow.codecs._backends.pynv_session import Session
from gpuflow.codecs.canary import Canary
from gpuflow.codecs.canary import canary as canary_of
from gpuflow.codecs.probe import image_info, sniff
from gpuflow.codecs.video.sessions import Shape
from gpuflow.errors import BackendUnavailable, CorruptMedia, DeviceLost, LimitExceeded, UnsupportedFormat
from gpuflow.flow.sync import SyncFlow
from tests.unit.image_files import encoded, scene

VENDOR_ERROR = RuntimeError("an illegal memory access was encountered")
GOOD_JPEG = encoded(scene(64, 64), "JPEG")


class FakeGpu:
    """Stands for the decode of the known picture: how often it ran, and what it raises."""

    def __init__(self, *raised: Exception | None) -> None:
        self.runs = 0
        self._raised = list(raised)

    def decode(self) -> None:
        self.runs += 1
        if self._raised and (error := self._raised.pop(0)) is not None:
            raise error


def _fail(canary: Canary, error: Exception = VENDOR_ERROR) -> None:
    with canary.guard():
        raise error


def _results(canary: Canary) -> dict[str, float]:
    prefix = 'gpuflow_gpu_canaries_total{device="cuda:0",result="'
    return {key[len(prefix) : -2]: value for key, value in canary.metrics().items() if key.startswith(prefix)}


def test_a_canary_that_lives_leaves_the_error_to_its_item_wiring_only() -> None:
    gpu = FakeGpu()
    canary = Canary("cuda:0", gpu.decode)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="illegal"):
            _fail(canary)
    with canary.guard():
        pass
    assert (gpu.runs, canary.lost, _results(canary)) == (3, False, {"alive": 3})
    assert canary.metrics()['gpuflow_gpu_lost{device="cuda:0"}'] == 0


def test_a_canary_that_dies_ends_all_work_on_that_gpu_wiring_only() -> None:
    gpu = FakeGpu(CorruptMedia("no picture"))
    canary = Canary("cuda:0", gpu.decode)
    with pytest.raises(DeviceLost, match="restart") as caught:
        _fail(canary)
    assert caught.value.__cause__ is VENDOR_ERROR
    assert (caught.value.http_status, caught.value.code) == (503, "device_lost")
    assert isinstance(caught.value, BackendUnavailable)
    entered = False
    with pytest.raises(DeviceLost), canary.guard():
        entered = True
    assert not entered
    with pytest.raises(DeviceLost):
        canary.examine(VENDOR_ERROR)
    assert (gpu.runs, canary.lost, _results(canary)) == (1, True, {"lost": 1})
    assert canary.metrics()['gpuflow_gpu_lost{device="cuda:0"}'] == 1


def test_our_own_errors_ask_no_canary_wiring_only() -> None:
    gpu = FakeGpu(VENDOR_ERROR)
    canary = Canary("cuda:0", gpu.decode)
    for error in (LimitExceeded("x"), CorruptMedia("x")):
        with pytest.raises(type(error)):
            _fail(canary, error)
    assert (gpu.runs, canary.lost) == (0, False)


def test_a_lack_of_memory_says_nothing_of_the_context_wiring_only() -> None:
    canary = Canary("cuda:0", FakeGpu(MemoryError()).decode)
    with pytest.raises(RuntimeError, match="illegal"):
        _fail(canary)
    assert (canary.lost, _results(canary)) == (False, {"unknown": 1})


def test_the_known_picture_is_what_it_is_said_to_be() -> None:
    assert image_info(known_good.JPEG, sniff(known_good.JPEG)) == known_good.INFO
    pixels = np.array(Image.open(io.BytesIO(known_good.JPEG)))
    assert (pixels == known_good.COLOUR).all()


@pytest.mark.skipif(not nvimagecodec.library(), reason=nvimagecodec.library().reason)
def test_nvimagecodec_decodes_the_known_picture_and_asks_its_guard_on_its_cpu_backend() -> None:
    gpu = FakeGpu(None, VENDOR_ERROR)
    canary = Canary("cuda:0", gpu.decode)
    decoder = NvImageCodecDecoder(None, guard=canary.guard)
    off = np.abs(decoder.decode(known_good.JPEG, known_good.INFO).astype(int) - known_good.COLOUR)
    assert (off.max() <= 4, gpu.runs) == (True, 0)
    with pytest.raises(CorruptMedia):
        decoder.decode(known_good.JPEG[:40], known_good.INFO)
    assert (gpu.runs, canary.lost) == (1, False)
    with pytest.raises(DeviceLost):
        decoder.decode(known_good.JPEG[:40], known_good.INFO)
    with pytest.raises(DeviceLost):
        decoder.decode(known_good.JPEG, known_good.INFO)


def test_a_session_of_nvdec_asks_its_guard_wiring_only() -> None:
    def refuse(packet: Any) -> Any:
        raise VENDOR_ERROR

    gpu = FakeGpu(None, VENDOR_ERROR)
    canary = Canary("cuda:0", gpu.decode)
    session: Any = object.__new__(Session)
    session.shape, session._guard = Shape("h264", "420", 8, 64, 48), canary.guard
    stream = SimpleNamespace(synchronize=lambda: refuse(None))
    session._on = SimpleNamespace(device=nullcontext(), stream=stream, wait=lambda: None)
    session._decoder = SimpleNamespace(Decode=refuse)
    with pytest.raises(CorruptMedia, match="NVDEC"):
        list(session._decode(None))
    with pytest.raises(DeviceLost):
        list(session._decode(None))
    session.abandon()  # what it raises is not the error of the clip
    assert gpu.runs == 2


def test_a_flow_whose_gpu_is_lost_refuses_at_once_and_its_metrics_show_it_wiring_only() -> None:
    canary = Canary("cuda:0", FakeGpu(VENDOR_ERROR).decode)
    with SyncFlow(device="cpu", slab_bytes="16MiB") as flow:
        flow.flow._canary = canary
        flow.load(GOOD_JPEG).release()
        assert flow.flow.metrics()['gpuflow_gpu_lost{device="cuda:0"}'] == 0
        with pytest.raises(DeviceLost):
            canary.examine(VENDOR_ERROR)
        with pytest.raises(DeviceLost):
            flow.load("https://127.0.0.1/nobody-is-asked.jpg")
        metrics = flow.flow.metrics()
    assert metrics['gpuflow_gpu_lost{device="cuda:0"}'] == 1
    assert metrics['gpuflow_gpu_canaries_total{device="cuda:0",result="lost"}'] == 1
    assert metrics['gpuflow_errors_total{code="device_lost"}'] == 1


def test_an_unexpected_error_of_a_flow_asks_the_canary_wiring_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any) -> Any:
        raise VENDOR_ERROR

    with SyncFlow(device="cpu", slab_bytes="16MiB") as flow:
        flow.flow._canary = Canary("cuda:0", FakeGpu(VENDOR_ERROR).decode)
        monkeypatch.setattr("gpuflow.flow.flow.load_blob", fault)
        with pytest.raises(DeviceLost):
            flow.load(GOOD_JPEG)


@pytest.mark.gpu
def test_on_a_gpu_damaged_media_cost_their_item_alone() -> None:
    half = GOOD_JPEG[: len(GOOD_JPEG) // 2] + b"\xff\xd9"
    with SyncFlow(device="auto", slab_bytes="64MiB") as flow:
        for data in (half, GOOD_JPEG[:-200], GOOD_JPEG.replace(b"\xff\xda", b"\xff\xdb")):
            with contextlib.suppress(CorruptMedia, UnsupportedFormat):
                flow.load(data).release()
            with flow.load(GOOD_JPEG) as image:
                assert image.backend.startswith("nvimagecodec")
        known_good.decode(NvImageCodecDecoder(0), 0)
        assert not canary_of(0).lost
        assert flow.flow.metrics()['gpuflow_gpu_lost{device="cuda:0"}'] == 0


@pytest.mark.gpu
def test_on_a_gpu_a_lost_context_is_noticed_and_refused() -> None:
    code = """
import os, sys
import cupy
from gpuflow.errors import GpuflowError
from gpuflow.flow.sync import SyncFlow
data = bytes.fromhex(sys.argv[1])
flow = SyncFlow(device="cuda", slab_bytes="64MiB")
flow.load(data).release()
write = cupy.RawKernel('extern "C" __global__ void write() { *(volatile int*)8 = 1; }', "write")
write((1,), (1,), ())
for _ in range(2):
    try:
        flow.load(data)
    except GpuflowError as error:
        print(error.code)
print(flow.flow.metrics()['gpuflow_gpu_lost{device="cuda:0"}'], flush=True)
os._exit(0)  # closing needs the context
"""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, GOOD_JPEG.hex()], capture_output=True, text=True, env=path, timeout=300, check=True
    )
    assert done.stdout.split() == ["device_lost", "device_lost", "1.0"]
