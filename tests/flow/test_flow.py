"""The engine: sources of every kind, options, bounded streams, threads, forks, counters, and the synchronous twin."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blockbuster import blockbuster_ctx

import gpuflow
from gpuflow.config import AudioOptions, ImageOptions, VideoOptions
from gpuflow.demo import samples
from gpuflow.device import choose
from gpuflow.errors import (
    BackendUnavailable,
    GpuflowError,
    InvalidOptions,
    InvalidSource,
    LimitExceeded,
    UnsupportedFormat,
)
from gpuflow.flow.flow import Flow
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Features, Frames, Image, Outcome, Source, Waveform
from gpuflow.memory import Slab
from tests.flow.media_bytes import CLIP, PIXELS, PNG, SPEECH


@pytest.fixture(scope="module")
def sync() -> Iterator[SyncFlow]:
    with SyncFlow(device="cpu", slab_bytes="256MiB") as flow:
        yield flow
        assert flow.flow.slab.statistics().live_leases == 0


def _sources(folder: Path) -> dict[str, object]:
    (folder / "a.png").write_bytes(PNG)
    return {
        "bytes": PNG,
        "bytearray": bytearray(PNG),
        "memoryview": memoryview(PNG),
        "path": folder / "a.png",
        "file object": io.BytesIO(PNG),
        "data URI": "data:image/png;base64," + base64.b64encode(PNG).decode(),
        "content part": {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()},
        },
    }


@pytest.mark.parametrize(
    "kind", ["bytes", "bytearray", "memoryview", "path", "file object", "data URI", "content part"]
)
def test_a_source_of_every_kind_gives_the_same_pixels(kind: str, sync: SyncFlow, tmp_path: Path) -> None:
    with sync.load(_sources(tmp_path)[kind]) as image:
        assert isinstance(image, Image)
        assert np.array_equal(image.numpy(), PIXELS)


def test_the_result_says_what_made_it_and_why_not_the_gpu(tmp_path: Path) -> None:
    with SyncFlow(slab_bytes="64MiB") as flow, flow.load(PNG) as image:
        assert image.backend
        assert [stage.name for stage in image.stages][:2] == ["fetch", "probe"]
        assert all(stage.seconds >= 0 for stage in image.stages)
        if image.device == "cpu":
            assert image.fallback == flow.flow.device.reason
            assert flow.flow.statistics()[0]['gpuflow_fallback_total{modality="image"}'] == 1


def test_a_device_that_was_asked_for_has_no_fallback(sync: SyncFlow) -> None:
    with sync.load(PNG) as image:
        assert image.fallback is None


def test_cuda_is_refused_where_there_is_none_with_the_reason() -> None:
    if choose("auto").is_cuda:
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendUnavailable, match="driver"):
        SyncFlow(device="cuda")


def test_load_takes_a_path_of_the_librarys_own_user(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    with gpuflow.load(str(tmp_path / "a.png"), device="cpu") as image:
        assert image.shape == (48, 64, 3)


def test_a_flow_does_not_take_a_path_from_a_request(sync: SyncFlow, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    with pytest.raises(InvalidSource):
        sync.load(str(tmp_path / "a.png"))


def test_options_decide_the_modality_and_the_json_form_does_too(sync: SyncFlow) -> None:
    with sync.load(CLIP, options=VideoOptions(num_frames=3)) as frames:
        assert isinstance(frames, Frames)
        assert len(frames) == 3
    with sync.load(CLIP, options={"num_frames": 3}) as frames:
        assert isinstance(frames, Frames)
    with sync.load(CLIP, modality="audio", options={"sample_rate": 16_000}) as sound:
        assert isinstance(sound, Waveform)
    with sync.load(SPEECH, options=AudioOptions(features="whisper-80")) as features:
        assert isinstance(features, Features)


def test_the_sampled_frames_carry_the_numbers_that_the_metadata_names(sync: SyncFlow) -> None:
    with sync.load(CLIP, options=VideoOptions(num_frames=7)) as frames:
        assert isinstance(frames, Frames)
        assert [samples.read_code(frame) for frame in frames.numpy()] == list(frames.metadata.frame_indices)


def test_options_of_another_modality_than_the_bytes_are_refused(sync: SyncFlow) -> None:
    with pytest.raises(UnsupportedFormat, match="image was asked for"):
        sync.load(CLIP, options=ImageOptions())
    with pytest.raises(UnsupportedFormat, match="video was asked for"):
        sync.load(PNG, options=VideoOptions())
    part = {"type": "image_url", "image_url": {"url": "https://host.example/a"}}
    with pytest.raises(InvalidOptions, match="declared as image"):
        sync.load(part, options=VideoOptions())


@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_gives_one_outcome_a_source(sync: SyncFlow, ordered: bool) -> None:
    sources: list[Any] = [CLIP, PNG, b"", PNG, SPEECH, PNG]
    outcomes = list(sync.stream(sources, ordered=ordered, max_in_flight=3))
    kinds = {outcome.index: outcome.media.kind if outcome.media else "error" for outcome in outcomes}
    assert kinds == {0: "frames", 1: "image", 2: "error", 3: "image", 4: "waveform", 5: "image"}
    if ordered:
        assert [outcome.index for outcome in outcomes] == list(range(6))
    _release(outcomes)


def test_a_stream_takes_no_more_sources_than_max_in_flight_ahead_of_its_consumer() -> None:
    taken, most = 0, 0

    async def sources() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(20):
            taken += 1
            yield PNG

    async def run() -> None:
        nonlocal most
        consumed = 0
        async with Flow(device="cpu", slab_bytes="64MiB") as flow:
            async for outcome in flow.stream(sources(), max_in_flight=3):
                consumed += 1
                most = max(most, taken - consumed)
                assert outcome.media is not None
                outcome.media.release()
        assert consumed == 20

    asyncio.run(run())
    assert most <= 3


def test_the_event_loop_is_never_blocked() -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB") as flow:
            (await flow.load(PNG)).release()
            with blockbuster_ctx("gpuflow"):
                for source in (PNG, CLIP, SPEECH):
                    (await flow.load(source)).release()

    asyncio.run(run())


class _Raising:
    """A file object of a careless caller."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def read(self, _: int) -> bytes:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("x"), StopIteration(), MemoryError(), KeyError("x")], ids=repr)
def test_a_file_object_that_raises_is_its_own_error_and_harms_no_neighbour(sync: SyncFlow, error: Exception) -> None:
    outcomes = list(sync.stream([PNG, _Raising(error), PNG], ordered=True))
    assert [getattr(outcome.error, "code", None) for outcome in outcomes] == [None, "invalid_media_reference", None]
    _release(outcomes)


def test_a_source_is_loaded_as_the_modality_that_is_asked_for(sync: SyncFlow) -> None:
    with sync.load(Source.of(CLIP), modality="audio") as sound:
        assert isinstance(sound, Waveform)
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(InvalidSource, match="declared as image"):
        sync.load(part, modality="video")


@pytest.mark.parametrize("size", [(1, 2_000_000), (40_000, 40_000)])
def test_a_thin_size_cannot_take_gigabytes_on_the_way(sync: SyncFlow, size: tuple[int, int]) -> None:
    for source, options in ((CLIP, VideoOptions(size=size, num_frames=1)), (PNG, ImageOptions(size=size))):
        with pytest.raises(LimitExceeded, match="max_image"):
            sync.load(source, options=options)


def test_failed_flows_and_dropped_slabs_leave_no_file_open() -> None:
    def files() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = files()
    for _ in range(5):
        with pytest.raises(InvalidOptions):
            SyncFlow(device="cpu", fetch={"allow_private_networks": ["x"]})
        Slab("1MiB")
    assert files() == before


def test_media_outlive_their_flow() -> None:
    with SyncFlow(device="cpu", slab_bytes="64MiB") as flow:
        image = flow.load(PNG)
    assert np.array_equal(image.numpy(), PIXELS)
    image.release()


@pytest.mark.parametrize(
    "arguments",
    [
        {"workers": 0},
        {"workers": 1.5},
        {"max_pending": 0},
        {"slab_bytes": "x"},
        {"slab_bytes": "999999TiB"},
        {"slab_bytes": 10**30},
        {"device": "tpu"},
        {"device": None},
        {"fetch": {"max_connections": 0}},
    ],
    ids=str,
)
def test_wrong_arguments_of_a_flow_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        SyncFlow(**arguments)


def test_counters_tell_what_happened() -> None:
    with SyncFlow(device="cpu", slab_bytes="64MiB") as flow:
        flow.load(PNG).release()
        with pytest.raises(GpuflowError):
            flow.load(b"")
        counters, slab = flow.flow.statistics()
        metrics = flow.flow.metrics()
    assert metrics['gpuflow_slab_bytes{device="cpu",state="free"}'] == slab.capacity_bytes
    assert counters['gpuflow_media_total{kind="image"}'] == metrics['gpuflow_media_total{kind="image"}'] == 1
    assert counters['gpuflow_errors_total{code="media_unprocessable"}'] == 1
    assert slab.live_leases == 0


def test_threads_end_with_their_flow() -> None:
    gc.collect()
    before = _threads()
    with SyncFlow(device="cpu", slab_bytes="64MiB") as flow:
        flow.load(PNG).release()
    assert _threads() == before


def test_a_forked_child_loads_with_a_flow_of_its_own_and_not_with_its_parents(tmp_path: Path) -> None:
    code = """
import gpuflow, os, sys, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
parents = gpuflow.SyncFlow(device="cpu", slab_bytes="64MiB")
gpuflow.load(sys.argv[1], device="cpu").release()
if os.fork() == 0:
    try:
        parents.load(b"x")
    except RuntimeError as error:
        assert "before a fork" in str(error)
        with gpuflow.load(sys.argv[1], device="cpu") as image:
            os._exit(0 if image.shape == (48, 64, 3) else 1)
    os._exit(2)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    (tmp_path / "a.png").write_bytes(PNG)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_eight_threads_share_one_synchronous_flow(sync: SyncFlow) -> None:
    wrong: list[object] = []

    def work() -> None:
        for _ in range(10):
            with sync.load(PNG) as image:
                if not np.array_equal(image.numpy(), PIXELS):
                    wrong.append(image)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate())


def _release(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.media is not None:
            outcome.media.release()
