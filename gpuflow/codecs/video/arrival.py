"""What is said of a clip whose bytes still come: of the bytes, and of its packets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gpuflow.codecs.video.plan import Segment
from gpuflow.errors import GpuflowError


class GrowingBytes(Protocol):
    """Bytes that are there in part."""

    @property
    def announced(self) -> int | None:
        """How many there will be, by the sender's word."""
        ...

    @property
    def in_parts(self) -> bool:
        """Whether any of them can be waited for without those before."""
        ...

    def expect(self, extents: Iterable[tuple[int, int]]) -> None:
        """These will be waited for, in this order."""
        ...

    def has(self, first: int, end: int) -> bool:
        """Whether the bytes from ``first`` to before ``end`` are there."""
        ...

    def wait(self, first: int, end: int) -> bool:
        """Wait for them; false where there are not so many. Raises what ends the wait."""
        ...

    def read(self, first: int, end: int) -> bytes:
        """Those of them that are there."""
        ...


class Arrival(Protocol):
    """The packets of a clip that still come; each is waited for when it is read."""

    def expect(self, segments: Iterable[Segment]) -> None:
        """These segments will be decoded, in this order."""
        ...

    def ready(self, segment: Segment) -> bool:
        """Whether its packets are all here."""
        ...

    def prepared(self, segment: Segment) -> Segment:
        """The segment without the packets that its pictures do not need, where they can be looked at already."""
        ...


class Uncertain(GpuflowError):
    """The bytes contradict the header: only all of them tell. Never seen outside."""
