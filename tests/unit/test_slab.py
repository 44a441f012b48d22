"""Slabs: who gets room, what nobody gives back, closing, other processes, and where the memory lies."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from gpuflow.device import driver
from gpuflow.errors import BackendUnavailable, SlabClosed, SlabExhausted
from gpuflow.media import TensorSpec
from gpuflow.memory import Slab
from gpuflow.memory.backing import HostMemory


def test_an_exhausted_slab_says_how_much_is_free() -> None:
    with Slab("1MiB") as slab, slab.allocate(512 << 10), pytest.raises(SlabExhausted, match="524288 bytes free"):
        slab.allocate(600 << 10)


def test_a_request_larger_than_the_slab_does_not_wait() -> None:
    with Slab("1MiB") as slab:
        started = time.monotonic()
        with pytest.raises(SlabExhausted):
            slab.allocate(2 << 20, timeout_seconds=30.0)
        assert time.monotonic() - started < 1.0


def test_allocation_waits_for_a_release_in_another_thread() -> None:
    with Slab("1MiB") as slab:
        first = slab.allocate(1 << 20)
        waiting = threading.Event()

        def release() -> None:
            waiting.wait()
            first.release()

        thread = threading.Thread(target=release)
        thread.start()
        waiting.set()
        with slab.allocate(1 << 20, timeout_seconds=10.0) as second:
            assert second.offset == 0
        thread.join()


def test_a_leaked_lease_is_reclaimed_with_a_warning_and_counted(slab: Slab) -> None:
    lease = slab.allocate(100)
    with pytest.warns(ResourceWarning, match="never released"):
        del lease
        gc.collect()
    assert slab.statistics().live_leases == 0
    assert slab.statistics().leaked_leases == 1


def test_a_view_alone_keeps_an_unreleased_block(slab: Slab) -> None:
    lease = slab.allocate(100)
    tensor = lease.tensor(TensorSpec("x", "uint8", (100,)))[10:20]
    del lease
    gc.collect()
    assert slab.statistics().live_leases == 1
    with pytest.warns(ResourceWarning, match="never released"):
        del tensor
        gc.collect()
    assert slab.statistics().live_leases == 0


def test_a_slab_with_live_leases_refuses_to_close() -> None:
    slab = Slab("1MiB")
    lease = slab.allocate(100)
    with pytest.raises(RuntimeError, match="1 leases"):
        slab.close()
    lease.release()
    slab.close()
    slab.close()
    with pytest.raises(SlabClosed):
        slab.allocate(1)


def test_views_outlive_a_slab_that_was_closed_by_force() -> None:
    slab = Slab("1MiB")
    lease = slab.allocate(100)
    array = lease.array(TensorSpec("x", "uint8", (100,)))
    array[:] = 7
    slab.close(force=True)
    assert int(array.sum()) == 700
    lease.release()


def test_a_stale_view_of_a_closed_slab_shows_old_bytes_and_does_not_end_the_process() -> None:
    script = """
from gpuflow.media import TensorSpec
from gpuflow.memory import Slab
slab = Slab("1MiB")
lease = slab.allocate(1000)
lease.memory()[:] = bytes([7]) * 1000
array, tensor = lease.array(TensorSpec("x", "uint8", (1000,), 0)), lease.tensor(TensorSpec("x", "uint8", (1000,), 0))
lease.release()
slab.close()
del slab, lease
print(int(array.sum()), int(tensor.sum()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "7000 7000\n"), done.stderr


@pytest.mark.parametrize("last", ["lease", "hold"])
def test_the_memory_of_a_closed_slab_goes_with_its_last_lease_and_hold(last: str) -> None:
    slab = Slab("1MiB")
    files = len(os.listdir("/proc/self/fd"))
    lease = slab.allocate(1000)
    slab.hold()
    slab.close(force=True)
    lease.release() if last == "hold" else slab.unhold()
    assert len(os.listdir("/proc/self/fd")) == files
    slab.unhold() if last == "hold" else lease.release()
    assert len(os.listdir("/proc/self/fd")) == files - 4, "the slab's file and its table's, and their mappings'"


def test_eight_threads_never_share_a_byte(slab: Slab) -> None:
    wrong = []

    def work(mark: int) -> None:
        rng = np.random.default_rng(mark)
        for _ in range(200):
            size = int(rng.integers(1, 3 << 20))
            with slab.allocate(size, timeout_seconds=30.0) as lease:
                array = lease.array(TensorSpec("x", "uint8", (size,)))
                array[::4096] = mark
                if not (array[::4096] == mark).all():
                    wrong.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.gpu
def test_a_gpu_slab_is_written_by_cupy_and_read_by_torch() -> None:
    spec = TensorSpec("x", "float32", (1000,))
    with Slab("64MiB", device="cuda") as slab, slab.allocate(4000) as lease:
        lease.array(spec)[:] = 3
        assert lease.tensor(spec).device.type == "cuda"
        assert float(lease.tensor(spec).sum()) == 3000.0


def test_the_report_of_a_leak_says_where_the_lease_was_taken(slab: Slab) -> None:
    lease = slab.allocate(100)
    here = f"{__file__}:"
    assert lease.taken_at().startswith(here)
    assert "test_the_report_of_a_leak" in lease.taken_at()
    with pytest.warns(ResourceWarning, match=r"test_slab\.py:\d+ in test_the_report_of_a_leak"):
        del lease
        gc.collect()
    assert slab.statistics().leaked_leases == 1


def test_statistics_add_up_by_state(slab: Slab) -> None:
    granule = 64 << 10
    writing, sealed, published, waiting = (slab.allocate(size * granule) for size in (1, 2, 3, 4))
    for lease in (sealed, published):
        lease.seal()
    published.publish()
    waiting.quarantine()
    found = slab.statistics()
    states = (found.writing_bytes, found.sealed_bytes, found.published_bytes, found.quarantined_bytes)
    assert states == tuple(size * granule for size in (1, 2, 3, 4))
    assert sum(states) == found.leased_bytes == found.capacity_bytes - found.free_bytes
    assert found.metrics()['gpuflow_slab_bytes{device="cpu",state="published"}'] == 3 * granule
    assert [lease.state for lease in (writing, sealed, published, waiting)] == [
        "writing",
        "sealed",
        "published",
        "quarantined",
    ]
    published.unpublish(revoke=False)
    for lease in (writing, sealed, published, waiting):
        lease.release()
        assert lease.state == "free"
    assert slab.statistics().leased_bytes == 0


def test_a_forked_child_can_read_and_changes_nothing_of_its_parent() -> None:
    script = """
import os, warnings
from gpuflow.errors import SlabClosed
from gpuflow.media import TensorSpec
from gpuflow.memory import Slab
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
with Slab("1MiB") as slab, slab.allocate(8) as lease:
    view = lease.array(TensorSpec("x", "uint8", (8,)))
    view[:] = 7
    lease.seal()
    before = slab.generation(lease.slot)
    child = os.fork()
    if child == 0:
        assert view.tolist() == [7] * 8
        try:
            slab.allocate(1)
        except SlabClosed as error:
            assert "fork" in str(error)
        else:
            os._exit(3)
        lease.release()
        slab.close(force=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert slab.generation(lease.slot) == before
    slab.allocate(1).release()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_another_process_can_map_a_slab_to_read_and_not_to_write(slab: Slab) -> None:
    backing = slab.backing
    assert isinstance(backing, HostMemory)
    for flags in (os.O_RDWR, os.O_WRONLY):
        with contextlib.suppress(OSError):
            descriptor = os.open(f"/proc/self/fd/{backing.file}", flags)
            with pytest.raises(OSError, match="not permitted"):
                os.pwrite(descriptor, b"x", 0)
            os.close(descriptor)
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(backing.file, 0)


def test_pinning_that_was_asked_for_fails_where_there_is_no_gpu() -> None:
    if driver().count:
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendUnavailable, match="pinned"):
        Slab("1MiB", pin=True)
    with Slab("1MiB") as slab:
        assert not slab.pinned
        assert slab.pin_failure == driver().reason


@pytest.mark.gpu
def test_a_host_slab_is_pinned_where_there_is_a_gpu() -> None:
    with Slab("64MiB") as slab:
        assert slab.pinned
        assert slab.pin_failure is None
