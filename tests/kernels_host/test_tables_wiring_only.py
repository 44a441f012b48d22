"""Tables of kernels, asked for by several threads: who waits for whom. What is between them and a GPU is wiring only."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from gpuflow.errors import BackendUnavailable
from gpuflow.ops import kernels, tables
from gpuflow.ops.kernels import Launch
from gpuflow.ops.tables import DeviceTables, Tables
from tests.waiting import LONGEST_SECONDS

NOTHING = Launch("audio/pcm", (), (1, 1), (1, 1), (np.uint64(0), np.uint64(0), np.int32(0), np.int32(1)))


def test_a_batch_that_is_made_ready_stops_no_other_wiring_only(cupy: Any) -> None:
    kept, begun, other = DeviceTables(0), threading.Event(), threading.Event()
    waited: list[bool] = []

    def slow(address: Tables) -> list[Launch]:
        begun.set()
        waited.append(other.wait(LONGEST_SECONDS / 6))
        return [NOTHING]

    def slow_table() -> Any:
        begun.set()
        waited.append(other.wait(LONGEST_SECONDS / 6))
        return np.ones(3, np.float32)

    def of_a_slow_table(address: Tables) -> list[Launch]:
        address("slow", slow_table)
        return [NOTHING]

    for launches in (slow, of_a_slow_table):
        begun.clear()
        other.clear()
        thread = threading.Thread(target=kept.queue, args=(launches,), kwargs={"stream": cupy.cuda.Stream.ptds})
        thread.start()
        assert begun.wait(LONGEST_SECONDS)
        kept.queue(lambda address: [NOTHING], stream=cupy.cuda.Stream.ptds)
        other.set()
        thread.join()
    assert waited == [True, True]


def test_no_launch_is_queued_where_one_kernel_cannot_be_compiled_wiring_only(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = kernels.kernel

    def broken(name: str, defines: Any = ()) -> Any:
        if name == "audio/resample":
            raise BackendUnavailable("it cannot be compiled")
        return compiled(name, defines)

    monkeypatch.setattr(kernels, "kernel", broken)
    other = Launch("audio/resample", (), (1, 1), (1, 1), NOTHING.arguments[:3])
    with pytest.raises(BackendUnavailable, match="it cannot be compiled"):
        DeviceTables(0).queue(lambda address: [NOTHING, other], stream=cupy.cuda.Stream.ptds)
    assert cupy.launched == []


def test_tables_are_let_go_behind_all_that_reads_them_and_nobody_waits_wiring_only(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1_000)
    kept, stream = DeviceTables(0), cupy.cuda.Stream.ptds
    found: list[Any] = []

    def large(address: Tables) -> list[Launch]:
        address("large", lambda: np.ones(2_000, np.uint8))
        found.append(kept._shelf)
        return [NOTHING]

    def meanwhile(address: Tables) -> list[Launch]:
        """Another call finds too much, before what this one has asked for is queued."""
        large(address)
        kept.queue(lambda address: [NOTHING], stream=stream)
        assert found[0].tables, "somebody is about to queue what reads them"
        assert kept.nbytes == 0
        return [NOTHING]

    kept.queue(meanwhile, stream=stream)
    assert not found[0].tables
    assert stream.recorded[-1] in kept._stream.awaited, "the memory is used again behind the launch"
    kept.queue(large, stream=stream)
    assert kept.nbytes == 2_000


def test_two_threads_that_make_a_table_at_once_share_one_wiring_only(cupy: Any) -> None:
    kept, barrier, addresses = DeviceTables(0), threading.Barrier(2), list[int]()

    def make() -> Any:
        barrier.wait(LONGEST_SECONDS)
        return np.ones(500, np.uint8)

    def launches(address: Tables) -> list[Launch]:
        addresses.append(address("one", make))
        return [NOTHING]

    threads = [
        threading.Thread(target=kept.queue, args=(launches,), kwargs={"stream": cupy.cuda.Stream()}) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(addresses)) == 1
    assert kept.nbytes == 500
