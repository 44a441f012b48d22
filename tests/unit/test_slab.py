"""Slabs and leases: what is leased, what is seen of it, and what happens to what nobody gives back."""

from __future__ import annotations

import gc
import pickle
import threading
import time

import numpy as np
import pytest
import torch

from gpuflow.errors import LeaseExpired, SlabClosed, SlabExhausted
from gpuflow.media import TensorSpec, block_bytes, lay_out
from gpuflow.memory import Slab

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
    assert slab.statistics().reclaimed_leases == 1


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
