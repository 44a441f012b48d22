"""Slabs and leases: what is leased, what is seen of it, and what happens to what nobody gives back."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import threading
import time

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from gpuflow.device import driver
from gpuflow.errors import BackendUnavailable, LeaseExpired, SlabClosed, SlabExhausted
from gpuflow.media import TensorSpec, block_bytes, lay_out
from gpuflow.memory import Lease, Slab
from gpuflow.memory.backing import HostMemory

FLOATS = lay_out({"floats": ("float32", (10, 5)), "halves": ("bfloat16", (7,))})


def test_numpy_and_torch_views_share_the_memory_of_the_block(slab: Slab) -> None:
    with slab.allocate(block_bytes(FLOATS)) as lease:
        array = lease.array(FLOATS[0])
        array[:] = np.arange(50, dtype=np.float32).reshape(10, 5)
        assert lease.tensor(FLOATS[0]).tolist() == array.tolist()
        lease.tensor(FLOATS[0])[3, 4] = -1
        assert array[3, 4] == -1
        assert array.ctypes.data == lease.address


def test_bfloat16_is_a_torch_tensor_and_raw_words_in_numpy(slab: Slab) -> None:
    with slab.allocate(block_bytes(FLOATS)) as lease:
        lease.tensor(FLOATS[1]).fill_(1.0)
        assert lease.array(FLOATS[1]).tolist() == [0x3F80] * 7


def test_tensors_of_one_block_are_aligned_and_do_not_overlap() -> None:
    first, second = FLOATS
    assert second.offset % 256 == 0
    assert second.offset >= first.offset + first.nbytes


def test_a_view_outside_the_block_is_refused(slab: Slab) -> None:
    with slab.allocate(100) as lease, pytest.raises(ValueError, match="does not lie in a block of 100 bytes"):
        lease.array(TensorSpec("x", "uint8", (101,)))


def test_a_released_block_cannot_be_viewed_sealed_or_retained(slab: Slab) -> None:
    lease = slab.allocate(100)
    lease.release()
    for use in (lambda: lease.array(TensorSpec("x", "uint8", (1,))), lease.seal, lease.retain):
        with pytest.raises(LeaseExpired):
            use()


def test_release_is_harmless_when_repeated(slab: Slab) -> None:
    first = slab.allocate(100)
    first.release()
    second = slab.allocate(100)
    first.release()
    assert slab.statistics().live_leases == 1
    second.release()


def test_a_block_lives_until_it_was_released_as_often_as_retained(slab: Slab) -> None:
    lease = slab.allocate(100)
    lease.retain()
    lease.release()
    assert slab.statistics().live_leases == 1
    lease.release()
    assert slab.statistics().live_leases == 0


def test_the_generation_is_odd_while_written_even_while_sealed_and_never_comes_back(slab: Slab) -> None:
    seen = set()
    for _ in range(5):
        lease = slab.allocate(100)
        assert slab.generation(lease.slot) % 2 == 1
        lease.seal()
        assert slab.generation(lease.slot) == lease.generation
        assert lease.generation % 2 == 0
        assert lease.generation not in seen
        seen.add(lease.generation)
        lease.release()
        assert slab.generation(lease.slot) % 2 == 1


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


def test_a_block_is_quarantined_until_every_read_into_it_has_ended(slab: Slab) -> None:
    with slab.allocate(10) as lease:
        lease.quarantine()
        lease.quarantine()
        lease.readmit()
        assert lease.state == "quarantined"
        lease.readmit()
        assert lease.state == "writing"


def test_a_lease_refuses_pickling_and_says_what_to_send(slab: Slab) -> None:
    with slab.allocate(100) as lease, pytest.raises(TypeError, match="descriptor"):
        pickle.dumps(lease)


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


def test_dlpack_of_a_view_is_the_same_memory(slab: Slab) -> None:
    spec = TensorSpec("x", "float32", (8,))
    with slab.allocate(32) as lease:
        array = lease.array(spec)
        array[:] = 2
        assert torch.utils.dlpack.from_dlpack(array).data_ptr() == lease.address
        assert np.from_dlpack(lease.tensor(spec)).ctypes.data == lease.address


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


def test_a_block_as_a_whole_is_a_memoryview_and_a_dlpack_vector(slab: Slab) -> None:
    with slab.allocate(1000) as lease:
        lease.memory()[:5] = b"hello"
        assert bytes(torch.utils.dlpack.from_dlpack(lease)[:5].tolist()) == b"hello"
        assert torch.utils.dlpack.from_dlpack(lease).data_ptr() == lease.address
        assert lease.memory().nbytes == 1000


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


def test_a_quarantined_block_can_be_neither_viewed_nor_sealed(slab: Slab) -> None:
    with slab.allocate(100) as lease:
        lease.quarantine()
        for use in (lambda: lease.array(TensorSpec("x", "uint8", (1,))), lease.seal, lease.memory):
            with pytest.raises(LeaseExpired, match="timed out"):
                use()
        lease.readmit()
        lease.seal()


def test_a_revoked_publication_changes_the_generation_although_the_block_is_held(slab: Slab) -> None:
    with slab.allocate(100) as lease:
        lease.seal()
        first, second = lease.publish(), lease.publish()
        assert first == second
        lease.unpublish(revoke=True)
        assert slab.generation(lease.slot) == first, "another publication of the block is open"
        lease.unpublish(revoke=True)
        assert slab.generation(lease.slot) > first
        assert lease.publish() == slab.generation(lease.slot) == lease.generation
        lease.unpublish(revoke=False)


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


class LeaseAgainstCounts(RuleBasedStateMachine):
    """Leases of a small slab, retained, sealed, published, revoked and quarantined in any order, against counts."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.slab = Slab("1MiB")
        self.references: dict[Lease, int] = {}
        self.publications: dict[Lease, int] = {}
        self.highest: dict[int, int] = {}

    @rule(target=leases, granules=st.integers(1, 4))
    def allocate(self, granules: int) -> Lease | None:
        try:
            lease = self.slab.allocate(granules << 16)
        except SlabExhausted:
            return None
        assert lease.generation > self.highest.get(lease.slot, 0), "a generation came back"
        self.references[lease], self.publications[lease] = 1, 0
        return lease

    @rule(lease=leases)
    def retain(self, lease: Lease | None) -> None:
        if lease is not None and self.references[lease]:
            lease.retain()
            self.references[lease] += 1

    @rule(lease=leases)
    def release(self, lease: Lease | None) -> None:
        if lease is not None and self.references[lease] > self.publications[lease]:
            lease.release()
            self.references[lease] -= 1

    @rule(lease=leases)
    def seal(self, lease: Lease | None) -> None:
        if lease is not None and self.references[lease]:
            lease.seal()

    @rule(lease=leases)
    def publish(self, lease: Lease | None) -> None:
        if lease is None or not self.references[lease]:
            return
        if not lease.sealed:
            with pytest.raises(ValueError, match="sealed"):
                lease.publish()
            return
        assert lease.publish() % 2 == 0
        self.references[lease] += 1
        self.publications[lease] += 1

    @rule(lease=leases, revoke=st.booleans())
    def unpublish(self, lease: Lease | None, revoke: bool) -> None:
        if lease is None or not self.publications[lease]:
            return
        before = self.slab.generation(lease.slot)
        lease.unpublish(revoke=revoke)
        self.references[lease] -= 1
        self.publications[lease] -= 1
        ended = self.publications[lease] == 0
        changed = self.slab.generation(lease.slot) > before
        assert changed == (self.references[lease] == 0 or (ended and revoke))

    @invariant()
    def blocks_live_exactly_as_long_as_they_are_referred_to(self) -> None:
        live = [lease for lease, count in self.references.items() if count]
        found = self.slab.statistics()
        assert found.live_leases == len(live)
        assert found.leased_bytes == sum(lease.nbytes for lease in live)
        assert found.published_bytes == sum(lease.nbytes for lease in live if self.publications[lease])
        ends = 0
        for lease in sorted(live, key=lambda lease: lease.offset):
            assert lease.offset >= ends
            ends = lease.offset + lease.nbytes
            assert lease.references == self.references[lease]
            assert self.slab.generation(lease.slot) == lease.generation
            self.highest[lease.slot] = max(self.highest.get(lease.slot, 0), lease.generation)

    def teardown(self) -> None:
        for lease, count in self.references.items():
            for _ in range(count):
                lease.release()
        self.slab.close()


TestLease = LeaseAgainstCounts.TestCase
