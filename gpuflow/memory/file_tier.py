"""Blocks in a file, when memory is short."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from gpuflow.errors import SpillError
from gpuflow.memory.backing import HostMemory
from gpuflow.memory.checksum import summed, summing_pool
from gpuflow.memory.copying import copy_on_gpu
from gpuflow.memory.extents import Extents
from gpuflow.memory.lease import Lease
from gpuflow.memory.tiers import PIECE_BYTES, Ticket, TierFull, as_spill_error
from gpuflow.values import parse_bytes

PAGE_BYTES = 4096  # what O_DIRECT and GPUDirect Storage want: offsets, lengths and addresses in whole pages
DIRECT_PIECE_BYTES = 8 << 20


class FileTier:
    """One file of ``nbytes`` in ``directory``, allocated at once, without a name, readable by nobody else.

    Args:
        direct: past the page cache (``O_DIRECT``): slower for what fits into memory, right for what does not.

    Raises:
        SpillError: the directory cannot be written to, or the disk has no room.
    """

    name = "file"

    def __init__(self, directory: str | os.PathLike[str], nbytes: int | str, *, direct: bool = False) -> None:
        self.capacity_bytes = max(PAGE_BYTES, parse_bytes(nbytes)) // PAGE_BYTES * PAGE_BYTES
        self.direct = direct
        self.file = self._open(Path(directory), os.O_DIRECT if direct else 0)
        try:
            os.posix_fallocate(self.file, 0, self.capacity_bytes)
        except OSError as error:
            self.close()
            raise SpillError(f"no room for a file of {self.capacity_bytes} bytes: {error.strerror}") from error
        self._extents = Extents(self.capacity_bytes, granule=PAGE_BYTES)
        self._held: set[Ticket] = set()
        self._summing = summing_pool()
        self._lock = threading.Lock()

    @property
    def free_bytes(self) -> int:
        """Bytes that no block takes."""
        return self._extents.free_bytes

    def takes(self, lease: Lease) -> bool:
        """Whether it is large enough."""
        return lease.nbytes <= self.capacity_bytes

    def put(self, lease: Lease) -> Ticket:
        """Write a block; see ``Tier``."""
        with self._lock:
            start = self._extents.allocate(lease.nbytes)
        if start is None:
            raise TierFull(f"no room for a block of {lease.nbytes} bytes in the file")
        try:
            lease.synchronize()
            ticket = Ticket(lease.nbytes, self._write(lease, start), start)
        except BaseException as error:
            with self._lock:
                self._extents.free(start, lease.nbytes)
            raise as_spill_error(error) from error
        with self._lock:
            self._held.add(ticket)
        return ticket

    def get(self, ticket: Ticket, into: Lease) -> None:
        """Read a block back, verified; see ``Tier``."""
        into.require(ticket.nbytes)
        if ticket not in self._held:
            raise SpillError("the block was dropped from the file")
        try:
            checksum = self._read(into, ticket.place, ticket.nbytes)
        except Exception as error:
            raise as_spill_error(error) from error
        if checksum != ticket.checksum:
            raise SpillError("a spilled block has changed on the disk: its checksum does not match")

    def lease_of(self, ticket: Ticket) -> Lease | None:
        """``None``: it does not lie in memory."""
        return None

    def drop(self, ticket: Ticket) -> None:
        """Forget a block; harmless when repeated."""
        with self._lock:
            if ticket in self._held:
                self._held.remove(ticket)
                self._extents.free(ticket.place, ticket.nbytes)

    def close(self) -> None:
        """Close the file, which ends with that; harmless when repeated."""
        if self.file >= 0:
            if hasattr(self, "_summing"):
                self._summing.shutdown()
            os.close(self.file)
            self.file = -1

    def _open(self, directory: Path, flags: int) -> int:
        flags |= os.O_RDWR | os.O_CLOEXEC
        try:
            with contextlib.suppress(OSError):  # a filesystem without nameless files
                return os.open(directory, flags | os.O_TMPFILE, 0o600)
            file, name = tempfile.mkstemp(prefix=".gpuflow-", suffix=".spill", dir=directory)
            try:
                os.close(file)
                return os.open(name, flags)
            finally:
                os.unlink(name)
        except OSError as error:
            raise SpillError(f"no file can be made in the directory of the file tier: {error.strerror}") from error

    def _write(self, lease: Lease, start: int) -> int:
        """Write a block at ``start``; returns its checksum. Piece by piece, so that it is summed while it is cached."""
        with summed(_stable_bytes(lease, lease.nbytes), self._summing) as checksum:
            for offset, size, data, address in self._pieces(lease, lease.nbytes):
                if address is not None:
                    copy_on_gpu(_address(data), address, len(data), device=lease.device)
                self._write_all(data, start + offset)
                checksum.add(data[:size])
            return checksum.result()

    def _read(self, into: Lease, start: int, nbytes: int) -> int:
        """Read a block; returns the checksum of what came."""
        with summed(_stable_bytes(into, nbytes), self._summing) as checksum:
            for offset, size, data, address in self._pieces(into, nbytes):
                self._read_all(data, start + offset)
                checksum.add(data[:size])
                if address is not None:
                    copy_on_gpu(address, _address(data), len(data), device=into.device)
            return checksum.result()

    def _pieces(self, lease: Lease, nbytes: int) -> Iterator[tuple[int, int, memoryview, int | None]]:
        """A block in pieces: offset, size, host memory in whole pages where the file wants them, and for a block on a
        GPU the address there, to copy from or to."""
        piece = DIRECT_PIECE_BYTES if self.direct else PIECE_BYTES
        backing = lease.slab.backing
        if isinstance(backing, HostMemory):  # whole pages lie within the block's granule
            for offset in range(0, nbytes, piece):
                size = min(piece, nbytes - offset)
                yield offset, size, backing.buffer(lease.offset + offset, self._rounded(size)), None
            return
        bounce = HostMemory(_whole_pages(min(nbytes, piece)), name="gpuflow-bounce")
        try:
            for offset in range(0, nbytes, piece):
                size = min(piece, nbytes - offset)
                yield offset, size, bounce.buffer(0, self._rounded(size)), lease.address + offset
        finally:
            bounce.close()

    def _rounded(self, nbytes: int) -> int:
        return _whole_pages(nbytes) if self.direct else nbytes

    def _write_all(self, data: memoryview, start: int) -> None:
        done = 0
        while done < len(data):
            written = os.pwrite(self.file, data[done:], start + done)
            if written == 0:
                raise SpillError("the disk takes no more")
            done += written

    def _read_all(self, data: memoryview, start: int) -> None:
        done = 0
        while done < len(data):
            came = os.preadv(self.file, [data[done:]], start + done)
            if came == 0:
                raise SpillError("the file of spilled blocks is shorter than it was")
            done += came


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // PAGE_BYTES) * PAGE_BYTES


def _stable_bytes(lease: Lease, nbytes: int) -> int:
    """How many bytes can be summed beside the copy: none where all pieces pass through the same memory."""
    return nbytes if lease.device == "cpu" else 0


def _address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))
