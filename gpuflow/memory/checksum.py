"""Checksums of blocks, against disks and memories that change bytes; not against people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Protocol

from gpuflow.memory.backing import device_id
from gpuflow.memory.lease import Lease

BESIDE_BYTES = 4 << 20
_CHUNK_WORDS = 2 << 20
_ODD = 0x9E3779B97F4A7C15


def checksum_of(data: memoryview) -> int:
    """XXH3, 64 bits; without the GIL."""
    import xxhash

    return int(xxhash.xxh3_64_intdigest(data))


class Sum(Protocol):
    """XXH3 of pieces, in the order in which they are added."""

    def add(self, piece: memoryview) -> None: ...
    def result(self) -> int: ...


class _SumHere:
    def __init__(self) -> None:
        import xxhash

        self._digest = xxhash.xxh3_64()

    def add(self, piece: memoryview) -> None:
        self._digest.update(piece)

    def result(self) -> int:
        return int(self._digest.intdigest())


class _SumBeside:
    """On another core, while the next piece is moved: a checksum in turn costs a third of a copy through the page
    cache."""

    def __init__(self, pool: Executor) -> None:
        self._pieces: SimpleQueue[memoryview | None] = SimpleQueue()
        self._sum = pool.submit(self._run)

    def add(self, piece: memoryview) -> None:
        self._pieces.put(piece)

    def result(self) -> int:
        self._pieces.put(None)  # harmless when repeated
        return self._sum.result()

    def _run(self) -> int:
        digest = _SumHere()
        while (piece := self._pieces.get()) is not None:
            digest.add(piece)
        return digest.result()


def summing_pool() -> ThreadPoolExecutor:
    """Threads for ``summed``."""
    return ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))), thread_name_prefix="gpuflow-sum")


@contextmanager
def summed(nbytes: int, pool: Executor) -> Iterator[Sum]:
    """The checksum of ``nbytes`` that come in pieces; of many, on a thread of ``pool``."""
    if nbytes < BESIDE_BYTES:
        yield _SumHere()
        return
    beside = _SumBeside(pool)
    try:
        yield beside
    finally:
        beside.result()  # nothing reads the pieces after this


def block_checksum(lease: Lease, nbytes: int) -> int:
    """The checksum of a block's first ``nbytes``, computed where they lie: XXH3 on the host, ``word_checksum`` on a
    GPU."""
    if lease.device == "cpu":
        return checksum_of(lease.memory()[:nbytes])
    import cupy

    with cupy.cuda.Device(device_id(lease.device)):
        return word_checksum(cupy.asarray(lease)[:nbytes], cupy)


def word_checksum(array: Any, xp: Any) -> int:
    """A 64-bit checksum that a GPU computes as a few sums: over the little-endian words, ``(word + i) * (i * odd | 1)``
    modulo 2**64, where ``i`` is the word's number; what is left at the end, if anything, counts as the last word.

    ``xp`` is numpy or CuPy, ``array`` a vector of uint8.
    """
    total, whole = 0, array.size // 8 * 8
    for first in range(0, whole // 8, _CHUNK_WORDS):
        words = array[8 * first : min(whole, 8 * (first + _CHUNK_WORDS))].view(xp.uint64)
        number = xp.arange(first, first + words.size, dtype=xp.uint64)
        total += int(((words + number) * (number * xp.uint64(_ODD) | xp.uint64(1))).sum(dtype=xp.uint64))
    tail, last = int.from_bytes(array[whole:].tobytes(), "little"), whole // 8
    return int((total + (tail + last) * (last * _ODD | 1)) % 2**64)
