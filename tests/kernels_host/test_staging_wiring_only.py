"""Uploads through pinned blocks, where copies happen as late as CUDA may do them: when somebody waits for them."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.errors import BackendUnavailable
from gpuflow.ops.staging import Staging
from tests.kernels_host.cupy_wiring_only import _copy


class _Event:
    def __init__(self, stream: LateStream) -> None:
        self._stream, self._count = stream, len(stream.copies)

    def synchronize(self) -> None:
        self._stream.run(self._count)


class LateStream:
    """``copies``: all that were queued; ``done``: how many have happened."""

    ptr = 7

    def __init__(self) -> None:
        self.copies: list[tuple[int, int, int]] = []
        self.done = 0

    def record(self) -> Any:
        return _Event(self)

    def run(self, count: int) -> None:
        for copy in self.copies[self.done : count]:
            _copy(*copy, 1, self.ptr)
        self.done = max(self.done, count)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[LateStream]:
    """Two, to which copies go by their numbers."""
    made = [LateStream(), LateStream()]
    for number, stream in enumerate(made):
        stream.ptr = number

    def queue(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
        assert kind == 1
        made[stream].copies.append((target, source, nbytes))

    fake: Any = ModuleType("cupy")
    fake.cuda = SimpleNamespace(
        alloc_pinned_memory=lambda nbytes: bytearray(nbytes),
        runtime=SimpleNamespace(memcpyAsync=queue, memcpyHostToDevice=1, CUDARuntimeError=OSError),
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return made


def _bytes(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8)


def test_arrays_are_copied_at_once_and_may_be_changed_then_wiring_only(streams: list[LateStream]) -> None:
    arrays, starts = [_bytes(count, count) for count in (100, 1, 300)], (0, 256, 512)
    expected, target = [array.copy() for array in arrays], np.zeros(812, np.uint8)
    made = Staging([(1, 1_024)])
    made.copy(arrays, starts, target.ctypes.data, stream=streams[0])
    for array in arrays:
        array[:] = 0
    assert [nbytes for _, _, nbytes in streams[0].copies] == [812]
    streams[0].run(1)
    for start, array in zip(starts, expected, strict=True):
        np.testing.assert_array_equal(target[start : start + len(array)], array)


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_what_is_larger_than_all_blocks_goes_through_them_again_wiring_only(
    num_blocks: int, streams: list[LateStream]
) -> None:
    array, target = _bytes(1_000, num_blocks), np.zeros(1_000, np.uint8)
    made = Staging([(num_blocks, 64)])
    made.copy([array], [0], target.ctypes.data, stream=streams[0])
    assert len({source for _, source, _ in streams[0].copies}) == num_blocks, "no more is pinned"
    streams[0].run(len(streams[0].copies))
    np.testing.assert_array_equal(target, array)


def test_threads_share_the_blocks_wiring_only(streams: list[LateStream]) -> None:
    made, arrays = Staging([(2, 64)]), [_bytes(5_000, seed) for seed in (1, 2)]
    targets = [np.zeros(5_000, np.uint8) for _ in arrays]
    threads = [
        threading.Thread(target=made.copy, args=([array], [0], target.ctypes.data), kwargs={"stream": stream})
        for array, target, stream in zip(arrays, targets, streams, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stream in streams:
        stream.run(len(stream.copies))
    np.testing.assert_array_equal(targets, arrays)


def test_memory_that_cannot_be_pinned_is_told_and_asked_for_again_wiring_only(
    streams: list[LateStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, target = Staging([(1, 64)]), np.zeros(10, np.uint8)

    def refuse(nbytes: int) -> bytearray:
        raise OSError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(sys.modules["cupy"].cuda, "alloc_pinned_memory", refuse)
        with pytest.raises(BackendUnavailable, match="does not pin 64 bytes"):
            made.copy([_bytes(10, 1)], [0], target.ctypes.data, stream=streams[0])
    made.copy([_bytes(10, 1)], [0], target.ctypes.data, stream=streams[0])
    assert len(streams[0].copies) == 1


def test_nothing_is_nothing_wiring_only(streams: list[LateStream]) -> None:
    Staging().copy([], [], 64, stream=streams[0])
    Staging().copy([np.zeros(0, np.uint8)], [0], 64, stream=streams[0])
    assert streams[0].copies == []


def test_small_arrays_have_blocks_of_their_own_wiring_only(streams: list[LateStream]) -> None:
    made, targets = Staging([(2, 64), (1, 256)]), [np.zeros(count, np.uint8) for count in (600, 64, 64, 65)]
    arrays = [_bytes(len(target), len(target)) for target in targets]
    for array, target in zip(arrays[:3], targets[:3], strict=True):
        made.copy([array], [0], target.ctypes.data, stream=streams[0])
    assert streams[0].done == 2, "the two last waited for nobody"
    made.copy([arrays[3]], [0], targets[3].ctypes.data, stream=streams[1])
    assert streams[0].done == 3
    for stream in streams:
        stream.run(len(stream.copies))
    for array, target in zip(arrays, targets, strict=True):
        np.testing.assert_array_equal(target, array)
