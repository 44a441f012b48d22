"""Extents against a bitmap: the simplest model that cannot be wrong."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gpuflow.memory.extents import Extents

GRANULE = 64
GRANULES = 64


class ExtentsAgainstABitmap(RuleBasedStateMachine):
    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.extents = Extents(GRANULES * GRANULE, granule=GRANULE)
        self.used = [False] * GRANULES

    @rule(target=blocks, nbytes=st.integers(1, GRANULES * GRANULE // 3))
    def allocate(self, nbytes: int) -> tuple[int, int] | None:
        count = -(-nbytes // GRANULE)
        start = self.extents.allocate(nbytes)
        if start is None:
            assert count > self._longest_gap()
            return None
        first = start // GRANULE
        assert not any(self.used[first : first + count]), "two live blocks overlap"
        assert self._gap_at(first) == min(gap for gap in self._gaps() if gap >= count), "not the best fit"
        self.used[first : first + count] = [True] * count
        return start, nbytes

    @rule(block=consumes(blocks))
    def free(self, block: tuple[int, int] | None) -> None:
        if block is None:
            return
        start, nbytes = block
        self.extents.free(start, nbytes)
        first, count = start // GRANULE, -(-nbytes // GRANULE)
        self.used[first : first + count] = [False] * count

    @invariant()
    def free_bytes_and_largest_block_agree_with_the_bitmap(self) -> None:
        assert self.extents.free_bytes == self.used.count(False) * GRANULE
        assert self.extents.largest_free_bytes == self._longest_gap() * GRANULE

    def _gaps(self) -> list[int]:
        text = "".join("x" if used else "." for used in self.used)
        return [len(gap) for gap in text.split("x") if gap]

    def _gap_at(self, first: int) -> int:
        end = first
        while end < GRANULES and not self.used[end]:
            end += 1
        return end - first

    def _longest_gap(self) -> int:
        return max(self._gaps(), default=0)


TestExtents = ExtentsAgainstABitmap.TestCase
