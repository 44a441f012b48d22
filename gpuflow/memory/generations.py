"""The table beside a slab: 16 bytes a slot, the block's generation and its state.

The generation is odd while a block is free or being written and even while it is sealed; it only grows. A reader
compares it after its read, because NIXL reports a read of a recycled block as a success. The second word holds the
block's size and state, for statistics.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpuflow.memory.backing import HostMemory

SLOT_BYTES = 16
MAX_SLOTS = 65_536
FREE, WRITING, SEALED, PUBLISHED, DRAINING, QUARANTINED = range(6)
STATES = ("free", "writing", "sealed", "published", "draining", "quarantined")


class Generations:
    """The words of ``MAX_SLOTS`` slots, and which slots are unused. Not thread-safe."""

    def __init__(self) -> None:
        self.memory = HostMemory(MAX_SLOTS * SLOT_BYTES, name="gpuflow-generations")
        self._words = self.memory.buffer(0, self.memory.nbytes).cast("Q")
        self._unused: list[int] = []
        self._used = 0  # slots that were ever taken

    def take(self) -> int | None:
        """An unused slot, or ``None``."""
        if self._unused:
            return self._unused.pop()
        if self._used == MAX_SLOTS:
            return None
        self._used += 1
        return self._used - 1

    def give_back(self, slot: int) -> None:
        """The slot's block is free, or was never made."""
        self._words[2 * slot + 1] = FREE
        self._unused.append(slot)

    def __getitem__(self, slot: int) -> int:
        return self._words[2 * slot]

    def advance(self, slot: int, *, odd: bool) -> int:
        """The next generation of that parity, written to the table and returned."""
        word = self._words[2 * slot] + 1
        word += (word % 2 == 1) != odd
        self._words[2 * slot] = word
        return word

    def set_state(self, slot: int, state: int, nbytes: int) -> None:
        """Note what became of a block of ``nbytes``."""
        self._words[2 * slot + 1] = nbytes << 8 | state

    def bytes_by_state(self) -> Mapping[str, int]:
        """Bytes of all blocks, by the name of their state."""
        import numpy as np

        words = np.frombuffer(self._words, np.uint64)[1 : 2 * self._used : 2]
        sums = np.bincount(
            (words & np.uint64(0xFF)).astype(np.int64), (words >> np.uint64(8)).astype(np.float64), len(STATES)
        )
        return dict(zip(STATES, map(int, sums), strict=True))

    def close(self) -> None:
        """Unmap the table."""
        self._words.release()
        self.memory.close()
