"""Workers that are killed, stopped, starved, cancelled and orphaned: one job fails, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuflow.codecs.base import ImageInfo, MediaType, VideoInfo
from gpuflow.config import AudioOptions, ImageOptions, Limits, VideoOptions
from gpuflow.demo import samples
from gpuflow.errors import (
    BackendUnavailable,
    Closed,
    DeadlineExceeded,
    DecoderCrashed,
    GpuflowError,
    InvalidOptions,
    LimitExceeded,
    NoSuchStream,
    Overloaded,
    UnsupportedFormat,
)
from gpuflow.flow.context import Deadline
from gpuflow.flow.flow import Flow
from gpuflow.flow.sync import SyncFlow
from gpuflow.isolation.decoding import AudioWanted, InProcess
from gpuflow.isolation.plausible import check_clip, check_pixels, check_sound
from gpuflow.isolation.pool import DecoderPool, Quarantine
from gpuflow.isolation.process import environment
from gpuflow.isolation.remote import Isolated
from gpuflow.isolation.wire import Channel, Disconnected, Failed, Opened, Pixels, Ready, Sound, framed
from gpuflow.media import Blob, Media
from gpuflow.memory import Slab
from tests.flow.clips import make_clip
from tests.unit.image_files import encoded, scene
from tests.waiting import wait_until

JPEG = MediaType("jpeg", "image")
LIMITS = Limits(image_seconds=30.0)
PATIENT = Limits(image_seconds=60.0, audio_seconds=60.0)
CLIP = samples.clip(seconds=2.0)
MIB = 1 << 20
SDP = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 45671 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"


def picture(number: int = 0, side: int = 64) -> Blob:
    """A JPEG unlike the others, as a blob."""
    data = encoded(np.roll(scene(side, side), number, axis=1), "JPEG", quality=90)
    return Blob(data, f"{number:064d}")


def pixels_of(blob: Blob) -> Any:
    """What this process decodes."""
    with (
        InProcess().begin(blob, JPEG, "image", limits=LIMITS, deadline=Deadline(60.0)) as decoder,
        decoder.image(decoder.image_info(), 0) as pixels,
    ):
        return np.array(pixels.array)


def decode(
    isolated: Isolated,
    blob: Blob,
    *,
    seconds: float = 60.0,
    deadline: Deadline | None = None,
    limits: Limits = LIMITS,
) -> Any:
    """What a worker decodes."""
    deadline = deadline or Deadline(seconds)
    with isolated.begin(blob, JPEG, "image", limits=limits, deadline=deadline) as decoder:
        deadline.limit(seconds)
        with decoder.image(decoder.image_info(), 0) as pixels:
            return np.array(pixels.array)


@pytest.fixture
def shared() -> Iterator[Slab]:
    with Slab("64MiB", shared=True) as slab:
        yield slab
        assert slab.statistics().live_leases == 0


@contextlib.contextmanager
def pool_of(slab: Slab, **arguments: Any) -> Iterator[tuple[DecoderPool, Isolated]]:
    with DecoderPool(slab, **{"workers": 1, **arguments}) as pool:
        wait_until(lambda: len(pool.pids) == pool.workers)
        yield pool, Isolated(pool, slab)


def _open_clip(isolated: Isolated, blob: Blob, kind: MediaType) -> None:
    with (
        isolated.begin(blob, kind, "video", limits=LIMITS, deadline=Deadline(30.0)) as decoder,
        decoder.clip(),
    ):
        pass


def _begun(pool: DecoderPool) -> int:
    """Jobs that a worker got."""
    return pool.counters.snapshot().get("gpuflow_decode_jobs_total", 0)


def _stop(pid: int) -> None:
    """SIGSTOP, and wait until every thread has stopped."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    wait_until(lambda: all(_state(task) in "Tt" for task in tasks.iterdir()))


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return _state(Path(f"/proc/{pid}")) != "Z"
    return False


def _files() -> int:
    return len(os.listdir("/proc/self/fd"))


# One worker, one input


def test_a_worker_killed_in_its_job_fails_that_job_alone(shared: Slab) -> None:
    bad, good = picture(1), [picture(number) for number in range(2, 8)]
    with pool_of(shared, workers=2) as (pool, isolated), ThreadPoolExecutor(4) as threads:
        victim, other = pool.pids
        _stop(victim)
        _stop(other)
        doomed = [threads.submit(decode, isolated, blob) for blob in (bad, good[0])]
        wait_until(lambda: _begun(pool) == 2)
        os.kill(victim, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)
        ends = [future.exception(60) for future in doomed]
        assert [type(end) for end in ends if end] == [DecoderCrashed]
        assert all(np.array_equal(decode(isolated, blob), pixels_of(blob)) for blob in good[1:])
        wait_until(lambda: len(pool.pids) == 2)
        assert victim not in pool.pids
        assert pool.counters.snapshot()["gpuflow_decode_workers_crashed_total"] == 1


def test_an_input_that_killed_a_worker_is_refused_at_once_and_others_are_not(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated), ThreadPoolExecutor(1) as threads:
        (victim,) = pool.pids
        _stop(victim)
        future = threads.submit(decode, isolated, picture(1))
        wait_until(lambda: _begun(pool) == 1)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(DecoderCrashed) as caught:
            future.result(60)
        assert (caught.value.code, caught.value.http_status) == ("media_too_slow", 422)
        started = pool.counters.snapshot()["gpuflow_decode_jobs_total"]
        with pytest.raises(DecoderCrashed, match="not tried again"):
            decode(isolated, picture(1))
        assert pool.counters.snapshot()["gpuflow_decode_jobs_total"] == started
        assert decode(isolated, picture(2)).shape == (64, 64, 3)


def test_quarantine_ends_and_is_bounded() -> None:
    brief, long = Quarantine(0.0), Quarantine(600.0)
    brief.add("a")
    brief.check("a")
    assert len(brief) == 0
    for number in range(5_000):
        long.add(str(number))
    assert len(long) == 4_096
    long.check("0")
    with pytest.raises(DecoderCrashed):
        long.check("4999")


def test_a_job_that_hangs_ends_at_its_deadline_and_its_block_comes_back(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated):
        (victim,) = pool.pids
        _stop(victim)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            decode(isolated, picture(1), seconds=0.3)
        assert time.monotonic() - began < 10.0
        assert caught.value.code == "media_too_slow"
        assert not _alive(victim)
        assert np.array_equal(decode(isolated, picture(2)), pixels_of(picture(2)))
        assert np.array_equal(decode(isolated, picture(1)), pixels_of(picture(1)))  # it had not had all of its time


def test_an_input_that_hangs_for_all_of_its_time_is_not_tried_again(shared: Slab) -> None:
    limits = Limits(image_seconds=0.3)
    with pool_of(shared) as (pool, _):
        isolated = Isolated(pool, shared, limits=limits)
        _stop(pool.pids[0])
        deadline = Deadline(60.0)
        with pytest.raises(DeadlineExceeded):
            decode(isolated, picture(1), seconds=0.3, deadline=deadline, limits=limits)
        with pytest.raises(DecoderCrashed, match="not tried again"):
            decode(isolated, picture(1))


def test_a_request_that_gives_an_input_too_little_time_has_it_refused_to_nobody(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated):
        _stop(pool.pids[0])
        with pytest.raises(DeadlineExceeded):
            decode(isolated, picture(1), seconds=0.3, deadline=Deadline(60.0), limits=Limits(image_seconds=0.3))
        assert np.array_equal(decode(isolated, picture(1)), pixels_of(picture(1)))


def test_an_input_is_not_to_blame_at_once_for_a_worker_that_had_done_other_jobs(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated):
        for _ in range(2):
            decode(isolated, picture(2))
            with isolated.begin(picture(1), JPEG, "image", limits=LIMITS, deadline=Deadline(60.0)) as decoder:
                info = decoder.image_info()
                os.kill(pool.pids[0], signal.SIGKILL)
                with pytest.raises(DecoderCrashed), decoder.image(info, 0):
                    pass
            if len(pool.quarantine) and pool.counters.snapshot()["gpuflow_decode_workers_crashed_total"] == 1:
                assert np.array_equal(decode(isolated, picture(1)), pixels_of(picture(1)))
        with pytest.raises(DecoderCrashed, match="not tried again"):
            decode(isolated, picture(1))


def test_a_process_without_descriptors_for_a_while_gets_its_workers_back(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated):
        taken: list[int] = []
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, limit[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            os.kill(pool.pids[0], signal.SIGKILL)
            wait_until(lambda: pool.counters.snapshot().get("gpuflow_decode_starts_failed_total", 0) > 0)
        finally:
            for file in taken:
                os.close(file)
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        assert np.array_equal(_eventually(lambda: decode(isolated, picture(1))), pixels_of(picture(1)))


def test_a_picture_larger_than_the_slab_is_no_reason_to_come_again() -> None:
    blob = Blob(encoded(np.zeros((900, 900, 3), np.uint8), "JPEG"), "c" * 64)
    with Slab("1MiB", shared=True) as small, pool_of(small) as (_, isolated):
        with pytest.raises(LimitExceeded, match="the slab has 1048576") as caught:
            decode(isolated, blob)
        assert not caught.value.retryable


def test_a_block_stays_leased_until_the_worker_that_writes_to_it_is_gone(shared: Slab) -> None:
    blob = picture(1, side=512)
    with pool_of(shared) as (pool, isolated), ThreadPoolExecutor(1) as threads:
        deadline = Deadline(60.0)
        held: list[bool] = []
        entered, go_on = threading.Event(), threading.Event()

        def cancelled() -> None:
            with isolated.begin(blob, JPEG, "image", limits=LIMITS, deadline=deadline) as decoder:
                info = decoder.image_info()
                _stop(pool.pids[0])
                entered.set()
                assert go_on.wait(30)
                with decoder.image(info, 0):
                    pytest.fail("a stopped worker decodes nothing")

        future = threads.submit(cancelled)
        assert entered.wait(30)
        (victim,) = pool.pids
        deadline.cancel()
        go_on.set()
        while not future.done():
            held.append(_alive(victim) or shared.statistics().live_leases == 0)
        assert isinstance(future.exception(), DeadlineExceeded)
        assert all(held)
        assert not _alive(victim)


# Memory, recycling, starting


def test_a_memory_bomb_meets_the_workers_limit_and_fails_alone(shared: Slab) -> None:
    bomb = Blob(encoded(np.zeros((4_000, 4_000, 3), np.uint8), "JPEG"), "b" * 64)
    with pool_of(shared, memory_bytes=32 * MIB) as (pool, isolated):
        before = pool.pids
        with pytest.raises(GpuflowError) as caught:
            decode(isolated, bomb)
        assert caught.value.http_status == 422
        assert np.array_equal(decode(isolated, picture(2)), pixels_of(picture(2)))
        assert pool.pids == before


def test_a_worker_is_replaced_after_so_many_jobs(shared: Slab) -> None:
    with pool_of(shared, max_jobs=3) as (pool, isolated):
        (first,) = pool.pids
        for number in range(7):
            assert np.array_equal(decode(isolated, picture(number)), pixels_of(picture(number)))
        wait_until(lambda: len(pool.pids) == 1)
        assert not _alive(first)
        assert pool.counters.snapshot()['gpuflow_decode_workers_replaced_total{reason="jobs"}'] == 2


def test_a_worker_that_grew_is_replaced(shared: Slab) -> None:
    with pool_of(shared, max_resident_bytes=MIB) as (pool, isolated):
        (first,) = pool.pids
        assert decode(isolated, picture(1)).shape == (64, 64, 3)
        wait_until(lambda: bool(pool.pids) and pool.pids != [first])
        assert 'gpuflow_decode_workers_replaced_total{reason="memory"}' in pool.counters.snapshot()


def test_a_worker_that_ends_while_it_is_idle_is_replaced_and_costs_no_job(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated):
        (first,) = pool.pids
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not _alive(first))
        assert np.array_equal(decode(isolated, picture(1)), pixels_of(picture(1)))
        assert pool.pids != [first]
        assert len(pool.quarantine) == 0


def test_more_jobs_than_may_wait_are_refused(shared: Slab) -> None:
    with pool_of(shared, max_queued=1) as (pool, isolated), ThreadPoolExecutor(2) as threads:
        (pid,) = pool.pids
        _stop(pid)
        jobs = [threads.submit(decode, isolated, picture(number)) for number in (1, 2)]
        wait_until(lambda: pool.busy == 1 and pool.queued == 1)
        with pytest.raises(Overloaded):
            decode(isolated, picture(3))
        os.kill(pid, signal.SIGCONT)
        assert [job.result(60).shape for job in jobs] == [(64, 64, 3)] * 2


def test_workers_that_do_not_start_are_an_error_and_are_tried_ever_more_seldom(
    shared: Slab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DecoderPool(shared, workers=1) as pool:
        with pytest.raises(BackendUnavailable, match="do not start"):
            decode(Isolated(pool, shared), picture(1))
        assert 3 <= pool.counters.snapshot()["gpuflow_decode_starts_failed_total"] <= 5
        monkeypatch.undo()
        assert _eventually(lambda: decode(Isolated(pool, shared), picture(1))).shape == (64, 64, 3)


def test_a_worker_starts_within_a_few_seconds(shared: Slab) -> None:
    began = time.monotonic()
    with pool_of(shared):
        assert time.monotonic() - began < 20.0  # 0.4 s on a quiet machine


def test_closing_ends_workers_threads_and_files(shared: Slab) -> None:
    gc.collect()
    files, threads = _files(), threading.active_count()
    with pool_of(shared, workers=2) as (pool, isolated):
        pids = pool.pids
        decode(isolated, picture(1))
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)  # not even as zombies
    assert (_files(), threading.active_count()) == (files, threads)
    with pytest.raises(Closed):
        decode(isolated, picture(1))


def test_a_pool_takes_only_a_slab_that_is_shared() -> None:
    with Slab("1MiB") as slab, pytest.raises(ValueError, match="shared=True"):
        DecoderPool(slab)


# What a worker is


def test_a_worker_holds_no_secret_and_no_torch(shared: Slab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("HF_TOKEN", "hush-hush")
    assert set(environment()) <= {"LANG", "LC_ALL", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
    with pool_of(shared) as (pool, _):
        (pid,) = pool.pids
        seen = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"hush" not in seen
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in mapped
        assert "libcuda" not in mapped
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status


def test_a_worker_has_no_file_but_its_socket_its_slab_and_nothing(shared: Slab, tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as secret:
        os.set_inheritable(secret.fileno(), True)
        with pool_of(shared) as (pool, _):
            targets = [os.readlink(file) for file in Path(f"/proc/{pool.pids[0]}/fd").iterdir()]
    kinds = {target.partition(":")[0].partition(" ")[0] for target in targets}
    assert kinds <= {"/dev/null", "socket", "/memfd"}
    assert sum(target.startswith("socket") for target in targets) == 1


def test_bytes_that_ask_for_a_socket_open_none(shared: Slab) -> None:
    blob = Blob(SDP, "5" * 64)
    with pool_of(shared) as (pool, isolated):
        (pid,) = pool.pids
        before = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        for kind in (MediaType("mp4", "video", "mov"), MediaType("x", "video", "sdp"), MediaType("y", "video", "rtsp")):
            began = time.monotonic()
            with pytest.raises((UnsupportedFormat, NoSuchStream, ValueError)):
                _open_clip(isolated, blob, kind)
            assert time.monotonic() - began < 5.0
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == before
        assert pool.pids == [pid]
        assert not any(f"{45671:04X}" in Path(f"/proc/net/{table}").read_text() for table in ("udp", "tcp"))


def test_workers_end_with_their_parent() -> None:
    code = """
import os, sys
from gpuflow.isolation.pool import DecoderPool
from gpuflow.memory import Slab
pool = DecoderPool(Slab("4MiB", shared=True), workers=2)
while len(pool.pids) < 2: os.sched_yield()
print(*pool.pids, flush=True)
sys.stdin.read()
"""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, env=path, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        _stop(pids[0])  # one that cannot notice by itself
        parent.kill()
        wait_until(lambda: not any(_alive(pid) for pid in pids))


def test_a_forked_child_has_no_workers_and_harms_none(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated):
        pids = pool.pids
        child = os.fork()
        if child == 0:
            try:
                decode(isolated, picture(1))
            except Closed:
                pool.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert pool.pids == pids
        assert decode(isolated, picture(1)).shape == (64, 64, 3)


def test_a_worker_that_answers_nonsense_is_ended(shared: Slab) -> None:
    for said in (
        b"\xff\xff\xff\xff",
        b"\x05\x00\x00\x00hello",
        b"\x01\x00\x00\x00\xc0",
        b"\x07\x00\x00\x00\x92\xa5Fra\x01\x02",
    ):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(Disconnected):
                Channel(ours).receive(Deadline(5.0))


INFO = VideoInfo("h264", 64, 48, 2, 2.0, 1.0)
TIMES = (0.0, 0.5)


@pytest.mark.parametrize(
    "said",
    [
        Opened(INFO, ()),
        Opened(INFO, (0.0, 0.5, 1.0)),
        Opened(INFO, (0.0, float("nan"))),
        Opened(INFO, (0.5, 0.0)),
        Opened(INFO, (0.0, 9.0)),
        Opened(replace(INFO, width=10**9), TIMES),
        Opened(replace(INFO, height=-48), TIMES),
        Opened(replace(INFO, rotation=45), TIMES),
        Opened(replace(INFO, matrix="../../etc"), TIMES),
        Opened(replace(INFO, codec="h264\n" * 99), TIMES),
        Opened(replace(INFO, fps=float("inf")), TIMES),
    ],
)
def test_a_clip_that_cannot_be_is_not_believed(said: Opened) -> None:
    check_clip(Opened(INFO, TIMES), LIMITS)
    with pytest.raises(Disconnected):
        check_clip(said, LIMITS)


@pytest.mark.parametrize(
    "said", [Pixels(64, 64, 5, "pillow"), Pixels(65, 64, 3, "pillow"), Pixels(64, 64, 3, "\x1b[2J")]
)
def test_pixels_that_cannot_be_are_not_believed(said: Pixels) -> None:
    check_pixels(Pixels(64, 64, 3, "pillow"), ImageInfo("jpeg", 64, 64))
    with pytest.raises(Disconnected):
        check_pixels(said, ImageInfo("jpeg", 64, 64))


@pytest.mark.parametrize(
    "said",
    [
        Sound("mp3", 2, 44_100, 16_000, (3, 100), "pyav"),
        Sound("mp3", 2, 44_100, 8_000, (1, 100), "pyav"),
        Sound("mp3", 2, 44_100, 16_000, (1, 10**12), "pyav"),
        Sound("mp3", 2, 1, 16_000, (1, 100), "pyav"),
        Sound("mp3", 2, 44_100, 16_000, (0, 100), "pyav"),
        Sound("mp3", 2, 44_100, 16_000, (2, 100), "pyav"),
        Sound("mp3", 2, 44_100, 16_000, (1, 48_001), "pyav"),
    ],
)
def test_sound_that_cannot_be_is_not_believed(said: Sound) -> None:
    wanted = AudioWanted(duration_seconds=2.0, sample_rate=16_000)
    check_sound(Sound("mp3", 2, 44_100, 16_000, (1, 100), "pyav"), wanted, LIMITS)
    with pytest.raises(Disconnected):
        check_sound(said, wanted, LIMITS)


def test_a_workers_text_cannot_break_a_log_nor_name_an_error_of_its_own() -> None:
    assert str(Failed("CorruptMedia", "a\nb\x1b[2J")) != ""
    error = Failed("CorruptMedia", "a\nb\x1b[2J").error()
    assert (type(error).__name__, str(error)) == ("CorruptMedia", "a?b?[2J")
    for name in ("SystemExit", "ClassVar", "__builtins__", "annotations"):
        assert type(Failed(name, "x").error()) is DecoderCrashed


def test_an_answer_that_comes_in_drops_is_read_whole_after_a_deadline_between_them() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message, channel = framed(Ready()), Channel(ours)
        theirs.sendall(message[:5])
        with pytest.raises(DeadlineExceeded):
            channel.receive(Deadline(0.05))
        theirs.sendall(message[5:])
        assert channel.receive(Deadline(5.0)) == Ready()


# Whole flows


def test_cancelling_at_many_points_leaves_leases_files_and_threads_as_they_were() -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=2, isolation="process", limits=PATIENT) as flow:
            for media in await asyncio.gather(*(flow.load(CLIP, options=VideoOptions(num_frames=4)) for _ in range(4))):
                media.release()
            assert flow.decoders is not None
            pool, slab = flow.decoders, flow.slab
            await asyncio.to_thread(wait_until, lambda: len(pool.pids) == 2)
            gc.collect()
            files, threads = _files(), threading.active_count()
            for steps in (0, 1, 2, 3, 5, 8, 13, 30, 60, 100, 200, 400, 1_000, 3_000):
                task = asyncio.ensure_future(flow.load(CLIP, options=VideoOptions(num_frames=4)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    (await task).release()
            with await flow.load(samples.picture("PNG", width=64, height=48)) as image:
                assert image.shape == (48, 64, 3)
            await asyncio.to_thread(
                wait_until, lambda: not (slab.statistics().live_leases or pool.busy or len(pool.pids) < 2)
            )
            gc.collect()
            assert _files() <= files
            assert threading.active_count() <= threads

    asyncio.run(run())


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_no_cancelled_load_ever_writes_into_anothers_block(isolation: Any) -> None:
    """The block of a cancelled load is not free before its writer is done: 50 cancels under load, 0 foreign bytes."""
    pictures = [(picture(number, side=300), None) for number in range(8)]
    expected = [pixels_of(blob) for blob, _ in pictures]

    async def one(flow: Flow, number: int) -> int:
        with await flow.load(pictures[number % 8][0].data, options=ImageOptions()) as image:
            before = np.array_equal(image.numpy(), expected[number % 8])
            await asyncio.sleep(0)
            return int(before and np.array_equal(image.numpy(), expected[number % 8]))

    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="8MiB", workers=2, isolation=isolation, limits=PATIENT) as flow:
            right = wanted = 0
            for round_ in range(50):
                doomed = asyncio.ensure_future(flow.load(CLIP, options=VideoOptions(num_frames=6)))
                for _ in range(7 * round_):
                    await asyncio.sleep(0)
                loads = [asyncio.ensure_future(one(flow, round_ + number)) for number in range(3)]
                await asyncio.sleep(0)
                doomed.cancel()
                right += sum(await asyncio.gather(*loads))
                wanted += len(loads)
                for result in await asyncio.gather(doomed, return_exceptions=True):
                    if isinstance(result, Media):
                        result.release()
            assert right == wanted == 150

    asyncio.run(run())


def test_a_flow_that_isolates_survives_the_death_of_every_worker() -> None:
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=2, isolation="process", limits=PATIENT) as flow:
        pool = _pool(flow)
        for _ in range(3):
            wait_until(lambda: len(pool.pids) == 2)
            killed = pool.pids
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not any(_alive(pid) for pid in killed))  # noqa: B023
            with flow.load(samples.recording(), options=AudioOptions(sample_rate=16_000)) as sound:
                assert sound.shape == (1, 80_000)
        assert flow.slab.statistics().live_leases == 0


def test_parts_of_a_clip_are_decoded_side_by_side_in_a_worker() -> None:
    clip = make_clip(num_frames=90, gop=15)
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=2, isolation="process", limits=PATIENT) as flow:
        with flow.load(clip, options=VideoOptions(num_frames=6)) as frames:
            assert frames.shape[0] == 6
        pool = _pool(flow)
        assert any(len(list(Path(f"/proc/{pid}/task").iterdir())) > 1 for pid in pool.pids)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_on_a_gpu_nvdec_decodes_what_workers_demux_and_this_process_opens_no_container(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = VideoOptions(num_frames=4)
    with (
        SyncFlow(device=device, slab_bytes="64MiB", limits=PATIENT) as flow,
        flow.load(CLIP, options=options) as frames,
    ):
        expected = frames.numpy()

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this process opened a container")

    monkeypatch.setattr("av.open", refuse)
    with SyncFlow(device=device, slab_bytes="64MiB", workers=2, isolation="process", limits=PATIENT) as flow:
        with flow.load(CLIP, options=options) as frames:
            assert frames.device.startswith("cuda")
            assert (frames.backend, frames.fallback) == ("pynvvideocodec", None)
            np.testing.assert_array_equal(frames.numpy(), expected)
        with flow.load(picture(1).data) as image:
            assert image.device.startswith("cuda")


def test_isolation_has_two_names() -> None:
    with pytest.raises(InvalidOptions, match="isolation"):
        Flow(device="cpu", isolation="thread")  # type: ignore[arg-type]


def _pool(flow: SyncFlow) -> DecoderPool:
    assert flow.flow.decoders is not None
    return flow.flow.decoders


def _eventually(attempt: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except BackendUnavailable:
            assert time.monotonic() < deadline
