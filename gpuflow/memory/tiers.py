"""Where blocks go when memory is short, and the first such place: a second slab, on the host."""

from __future__ import annotations

import ctypes
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from gpuflow.errors import GpuflowError, SlabExhausted, SpillError
from gpuflow.memory.checksum import block_checksum, summed, summing_pool
from gpuflow.memory.copying import copy_block
from gpuflow.memory.lease import Lease
from gpuflow.memory.slab import Slab

PIECE_BYTES = 512 << 10  # fits a core's cache


class TierFull(SpillError):
    """No room for a block of that size now."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A block that a tier holds: its size, the XXH3 of its bytes, and where it lies there."""

    nbytes: int
    checksum: int
    place: Any


class Tier(Protocol):
    """Holds copies of blocks. Thread-safe."""

    name: str
    capacity_bytes: int

    @property
    def free_bytes(self) -> int: ...

    def takes(self, lease: Lease) -> bool:
        """Whether the empty tier would take this block."""

    def put(self, lease: Lease) -> Ticket:
        """Copy a sealed block in.

        Raises:
            TierFull: no room.
            SpillError: it could not be written.
        """

    def get(self, ticket: Ticket, into: Lease) -> None:
        """Copy a block back, verified.

        Raises:
            SpillError: it could not be read, or its bytes have changed.
        """

    def lease_of(self, ticket: Ticket) -> Lease | None:
        """The block itself, if it lies in memory, so that it can go on to a lower tier."""

    def drop(self, ticket: Ticket) -> None:
        """Forget a block; harmless when repeated."""

    def close(self) -> None: ...


class HostTier:
    """A slab on the host, of ``nbytes``, page-locked where there is a GPU (``pin`` as for ``Slab``)."""

    name = "host"

    def __init__(self, nbytes: int | str, *, pin: bool | None = None) -> None:
        self.slab = Slab(nbytes, pin=pin)
        self.capacity_bytes = self.slab.nbytes
        self._summing = summing_pool()

    @property
    def free_bytes(self) -> int:
        """Bytes that no block takes."""
        return self.slab.free_bytes

    def takes(self, lease: Lease) -> bool:
        """Whether it is large enough."""
        return lease.nbytes <= self.capacity_bytes

    def put(self, lease: Lease) -> Ticket:
        """Copy a block in; see ``Tier``."""
        try:
            copy = self.slab.allocate(lease.nbytes)
        except SlabExhausted as error:
            raise TierFull(f"no block of {lease.nbytes} bytes in the host tier") from error
        try:
            lease.synchronize()
            checksum = _copy_summed(lease, copy, lease.nbytes, self._summing)
            copy.seal()
            return Ticket(lease.nbytes, checksum, copy)
        except BaseException as error:
            copy.release()
            raise as_spill_error(error) from error

    def get(self, ticket: Ticket, into: Lease) -> None:
        """Copy a block back, verified; see ``Tier``."""
        if ticket.place.released:
            raise SpillError("the block was dropped from the host tier")
        try:
            checksum = _copy_summed(ticket.place, into, ticket.nbytes, self._summing)
        except Exception as error:
            raise as_spill_error(error) from error
        if checksum != ticket.checksum:
            raise SpillError("a block in the host tier has changed: its checksum does not match")

    def lease_of(self, ticket: Ticket) -> Lease | None:
        """The block in this tier's slab."""
        lease: Lease = ticket.place
        return lease

    def drop(self, ticket: Ticket) -> None:
        """Forget a block; harmless when repeated."""
        ticket.place.release()

    def close(self) -> None:
        """Free the memory; harmless when repeated."""
        self._summing.shutdown()
        self.slab.close(force=True)


def _copy_summed(source: Lease, target: Lease, nbytes: int, pool: Executor) -> int:
    """Copy a block of which one end is on the host; returns the checksum of its bytes there."""
    if source.device != "cpu" or target.device != "cpu":
        copy_block(source, target, nbytes)
        return block_checksum(source if source.device == "cpu" else target, nbytes)
    source.require(nbytes)
    target.require(nbytes)
    data = source.memory()
    with summed(nbytes, pool) as checksum:
        for offset in range(0, nbytes, PIECE_BYTES):
            size = min(PIECE_BYTES, nbytes - offset)
            ctypes.memmove(target.address + offset, source.address + offset, size)
            checksum.add(data[offset : offset + size])
        return checksum.result()


def as_spill_error(error: BaseException) -> BaseException:
    """A failure of the disk (``OSError``) or of CUDA (``RuntimeError``) as ``SpillError``; ours, and interruptions, as
    they are."""
    if isinstance(error, (OSError, RuntimeError)) and not isinstance(error, GpuflowError):
        reason = error.strerror if isinstance(error, OSError) else None
        return SpillError(f"a block could not be spilled or restored: {reason or error}")
    return error
