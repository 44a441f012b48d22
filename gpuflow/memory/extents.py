"""Best-fit allocation of a range of bytes, with immediate coalescing; pure bookkeeping, no memory.

Source: among thirteen allocators simulated on the request mix of a multimodal server, best fit with a 64 KiB granule
failed least (DESIGN decision 5).
"""

from __future__ import annotations

from bisect import bisect_left, insort

GRANULE_BYTES = 64 << 10


class Extents:
    """Free extents of ``capacity`` bytes: by start, by end, and sorted by (size, start). Not thread-safe."""

    def __init__(self, capacity: int, *, granule: int = GRANULE_BYTES) -> None:
        self.granule = granule
        self.capacity = capacity // granule * granule
        self._by_start: dict[int, int] = {}
        self._by_end: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []
        self.free_bytes = 0
        if self.capacity:
            self._add(0, self.capacity)

    @property
    def largest_free_bytes(self) -> int:
        """The largest block that can be allocated now."""
        return self._by_size[-1][0] if self._by_size else 0

    def round_up(self, nbytes: int) -> int:
        """``nbytes`` in whole granules, at least one."""
        return max(1, -(-nbytes // self.granule)) * self.granule

    def allocate(self, nbytes: int) -> int | None:
        """The start of a block of ``round_up(nbytes)``, taken from the smallest extent that holds it; or ``None``."""
        size = self.round_up(nbytes)
        position = bisect_left(self._by_size, (size, 0))
        if position == len(self._by_size):
            return None
        extent, start = self._by_size[position]
        self._remove(start, extent)
        if extent > size:
            self._add(start + size, extent - size)
        return start

    def free(self, start: int, nbytes: int) -> None:
        """Return a block, and join it with its free neighbours."""
        size = self.round_up(nbytes)
        left = self._by_end.get(start)
        if left is not None:
            size += start - left
            self._remove(left, start - left)
            start = left
        right = self._by_start.get(start + size)
        if right is not None:
            self._remove(start + size, right)
            size += right
        self._add(start, size)

    def _add(self, start: int, size: int) -> None:
        self._by_start[start] = size
        self._by_end[start + size] = start
        insort(self._by_size, (size, start))
        self.free_bytes += size

    def _remove(self, start: int, size: int) -> None:
        del self._by_start[start], self._by_end[start + size]
        del self._by_size[bisect_left(self._by_size, (size, start))]
        self.free_bytes -= size
