"""Workers that are killed, stopped, starved and orphaned: one job fails, and nothing else."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gpuflow.codecs.probe import image_info
from gpuflow.config import Limits
from gpuflow.errors import (
    BackendUnavailable,
    Closed,
    DeadlineExceeded,
    DecoderCrashed,
    GpuflowError,
    LimitExceeded,
    Overloaded,
)
from gpuflow.flow.context import Deadline
from gpuflow.isolation.pool import DecoderPool, Quarantine
from gpuflow.isolation.remote import Isolated
from gpuflow.media import Blob
from gpuflow.memory import Slab
from tests.faults.pools import (
    JPEG,
    LIMITS,
    MIB,
    alive,
    begun,
    decode,
    eventually,
    open_files,
    picture,
    pixels_of,
    pool_of,
    stop,
)
from tests.unit.image_files import encoded
from tests.waiting import wait_until


def test_a_worker_killed_in_its_job_fails_that_job_alone(shared: Slab) -> None:
    bad, good = picture(1), [picture(number) for number in range(2, 8)]
    with pool_of(shared, workers=2) as (pool, isolated), ThreadPoolExecutor(4) as threads:
        victim, other = pool.pids
        stop(victim)
        stop(other)
        doomed = [threads.submit(decode, isolated, blob) for blob in (bad, good[0])]
        wait_until(lambda: begun(pool) == 2)
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
        stop(victim)
        future = threads.submit(decode, isolated, picture(1))
        wait_until(lambda: begun(pool) == 1)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(DecoderCrashed) as caught:
            future.result(60)
        assert (caught.value.code, caught.value.http_status) == ("media_unprocessable", 422)
        assert caught.value.public_message == "The media could not be decoded."  # nothing was slow
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
        stop(victim)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            decode(isolated, picture(1), seconds=0.3)
        assert time.monotonic() - began < 10.0
        assert (caught.value.code, caught.value.public_message) == ("media_too_slow", "The media took too long.")
        assert not alive(victim)
        assert np.array_equal(decode(isolated, picture(2)), pixels_of(picture(2)))
        assert np.array_equal(decode(isolated, picture(1)), pixels_of(picture(1)))  # it had not had all of its time


def test_an_input_that_hangs_for_all_of_its_time_is_not_tried_again(shared: Slab) -> None:
    limits = Limits(image_seconds=0.3)
    with pool_of(shared) as (pool, _):
        isolated = Isolated(pool, shared, limits=limits)
        stop(pool.pids[0])
        deadline = Deadline(60.0)
        with pytest.raises(DeadlineExceeded):
            decode(isolated, picture(1), seconds=0.3, deadline=deadline, limits=limits)
        with pytest.raises(DecoderCrashed, match="not tried again"):
            decode(isolated, picture(1))


def test_a_request_that_gives_an_input_too_little_time_has_it_refused_to_nobody(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated):
        stop(pool.pids[0])
        with pytest.raises(DeadlineExceeded):
            decode(isolated, picture(1), seconds=0.3, deadline=Deadline(60.0), limits=Limits(image_seconds=0.3))
        assert np.array_equal(decode(isolated, picture(1)), pixels_of(picture(1)))


def test_an_input_is_not_to_blame_at_once_for_a_worker_that_had_done_other_jobs(shared: Slab) -> None:
    def die_on_it() -> None:
        decode(isolated, picture(2))
        with isolated.begin(picture(1), JPEG, "image", limits=LIMITS, deadline=Deadline(60.0)) as decoder:
            os.kill(pool.pids[0], signal.SIGKILL)
            with pytest.raises(DecoderCrashed), decoder.image(image_info(picture(1).data, JPEG), 0):
                pass

    with pool_of(shared) as (pool, isolated):
        die_on_it()
        assert np.array_equal(decode(isolated, picture(1)), pixels_of(picture(1)))
        die_on_it()
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
        assert np.array_equal(eventually(lambda: decode(isolated, picture(1))), pixels_of(picture(1)))


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
                info = image_info(blob.data, JPEG)
                stop(pool.pids[0])
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
            held.append(alive(victim) or shared.statistics().live_leases == 0)
        assert isinstance(future.exception(), DeadlineExceeded)
        assert all(held)
        assert not alive(victim)


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


def test_no_thread_of_a_worker_has_a_capability_or_a_system_call_too_many(shared: Slab) -> None:
    with pool_of(shared, threads_per_worker=2) as (pool, isolated):
        decode(isolated, picture(1))
        statuses = [task.read_text() for task in Path(f"/proc/{pool.pids[0]}/task").glob("*/status")]
        told = [dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line) for status in statuses]
        assert {
            (int(one["CapEff"], 16), int(one["CapPrm"], 16), one["Seccomp"], one["NoNewPrivs"]) for one in told
        } == {(0, 0, "2", "1")}


def test_a_worker_is_replaced_after_so_many_jobs(shared: Slab) -> None:
    with pool_of(shared, max_jobs=3) as (pool, isolated):
        (first,) = pool.pids
        for number in range(7):
            assert np.array_equal(decode(isolated, picture(number)), pixels_of(picture(number)))
        wait_until(lambda: len(pool.pids) == 1)
        assert not alive(first)
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
        wait_until(lambda: not alive(first))
        assert np.array_equal(decode(isolated, picture(1)), pixels_of(picture(1)))
        assert pool.pids != [first]
        assert len(pool.quarantine) == 0


def test_more_jobs_than_may_wait_are_refused(shared: Slab) -> None:
    with pool_of(shared, max_queued=1) as (pool, isolated), ThreadPoolExecutor(2) as threads:
        (pid,) = pool.pids
        stop(pid)
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
        assert eventually(lambda: decode(Isolated(pool, shared), picture(1))).shape == (64, 64, 3)


def test_a_worker_starts_within_a_few_seconds(shared: Slab) -> None:
    began = time.monotonic()
    with pool_of(shared):
        assert time.monotonic() - began < 20.0  # 0.4 s on a quiet machine


def test_closing_ends_workers_threads_and_files(shared: Slab) -> None:
    gc.collect()
    files, threads = open_files(), threading.active_count()
    with pool_of(shared, workers=2) as (pool, isolated):
        pids = pool.pids
        decode(isolated, picture(1))
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)  # not even as zombies
    assert (open_files(), threading.active_count()) == (files, threads)
    with pytest.raises(Closed):
        decode(isolated, picture(1))


def test_a_pool_takes_only_a_slab_that_is_shared() -> None:
    with Slab("1MiB") as slab, pytest.raises(ValueError, match="shared=True"):
        DecoderPool(slab)
