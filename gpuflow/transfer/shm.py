"""Readers on the same host map the publisher's slab, read-only, and copy from it, or look at it where it lies.

The memory goes over a Unix socket in the abstract namespace, which containers that share a network have in common,
while NIXL's one-sided copy needs one PID, IPC and user namespace and falls back to TCP without. The socket asks for the
secret that the descriptor carries. It stays open: acknowledgements go over it, and a dead publisher is seen at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import mmap
import os
import secrets
import selectors
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gpuflow.errors import GpuflowError, InvalidDescriptor, PeerUnavailable, TransferTimeout
from gpuflow.forks import disown_in_children
from gpuflow.memory import Slab
from gpuflow.memory.backing import HostMemory
from gpuflow.observe import log

SECRET_BYTES = 16
MAX_MESSAGE_BYTES = 256
MAX_SLABS = 8
MAX_STRANGERS = 64  # connections that have not shown the secret
MAX_READERS = 1024
HELLO_SECONDS = 2.0
_ADDRESS_END = 1 << 57  # of user space, with five levels of page tables
_REFUSED_SECONDS = 0.05
_SEQUENCED = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC


class SharedRegion(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A slab and its generation table, as addresses in the publishing process."""

    address: int
    nbytes: int
    table_address: int
    table_nbytes: int

    @property
    def makes_sense(self) -> bool:
        """Whether every field lies in its range."""
        sizes = 0 < self.nbytes < _ADDRESS_END and 0 < self.table_nbytes < _ADDRESS_END and self.table_nbytes % 8 == 0
        return sizes and 0 < self.address < _ADDRESS_END and 0 < self.table_address < _ADDRESS_END


class ShmServer:
    """Hands read-only descriptors of host slabs to readers that know the secret. One thread.

    ``on_message`` gets what readers send later, in that thread.
    """

    def __init__(self, slabs: Sequence[Slab], on_message: Callable[[bytes], object]) -> None:
        self.secret = secrets.token_bytes(SECRET_BYTES)
        self.name = f"gpuflow-{uuid.uuid4().hex[:16]}".encode()
        self._on_message = on_message
        self._regions, self._files = _regions(slabs)
        self._listener = socket.socket(socket.AF_UNIX, _SEQUENCED)
        self._listener.setblocking(False)
        self._listener.bind(b"\0" + self.name)
        self._listener.listen(64)
        self._wake, waker = socket.socketpair()
        self._waker = waker
        self._selector = selectors.DefaultSelector()
        for source in (self._listener, self._wake):
            self._selector.register(source, selectors.EVENT_READ)
        self._strangers: dict[socket.socket, float] = {}
        self._readers: set[socket.socket] = set()
        disown_in_children(self)
        self._thread = threading.Thread(target=self._serve, name="gpuflow-shm", daemon=True)
        self._thread.start()

    @property
    def num_readers(self) -> int:
        """Readers that are connected."""
        return len(self._readers)

    def close(self) -> None:
        """Stop and close every connection; harmless when repeated."""
        if self._waker.fileno() >= 0:
            self.stop()
            self._thread.join()

    def stop(self) -> None:
        """Have the thread end, without waiting for it."""
        with contextlib.suppress(OSError):  # a message, because a child that was forked may hold the other end
            self._waker.send(b"x", socket.MSG_DONTWAIT)

    def disown(self) -> None:
        """In a forked child: let go of every socket, so that the parent's end is the end of its connections."""
        for source in (self._listener, self._wake, self._waker, *self._strangers, *self._readers):
            source.close()

    def _serve(self) -> None:
        with contextlib.ExitStack() as cleanup:
            for part in (self._selector, self._listener, self._wake, self._waker):
                cleanup.callback(part.close)
            for file in self._files:
                cleanup.callback(os.close, file)
            while True:
                for key, _ in self._selector.select(HELLO_SECONDS if self._strangers else None):
                    if key.fileobj is self._wake:
                        for connection in [*self._strangers, *self._readers]:
                            connection.close()
                        return
                    if key.fileobj.fileno() < 0:  # type: ignore[union-attr]
                        continue  # dropped since
                    self._accept() if key.fileobj is self._listener else self._receive(key.fileobj)  # type: ignore[arg-type]
                self._drop_silent_strangers()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # say for want of file descriptors: it stays ready, and must not take a core
            time.sleep(_REFUSED_SECONDS)
            return
        if len(self._readers) >= MAX_READERS:
            connection.close()
            return
        if len(self._strangers) >= MAX_STRANGERS:  # the one that has been silent longest makes room
            self._drop(next(iter(self._strangers)))
        connection.setblocking(False)
        self._strangers[connection] = time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> None:
        try:
            message = connection.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._drop(connection)
        elif connection in self._readers:
            try:
                self._on_message(message)
            except Exception:  # noqa: BLE001 - one message must not end the thread that hears all readers
                log.exception("a reader's message could not be taken")
        else:
            self._greet(connection, message)

    def _greet(self, connection: socket.socket, secret: bytes) -> None:
        if not hmac.compare_digest(secret, self.secret):
            self._drop(connection)
            return
        del self._strangers[connection]
        self._readers.add(connection)
        try:
            socket.send_fds(connection, [msgspec.msgpack.encode(self._regions)], self._files)
        except OSError:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._strangers.pop(connection, None)
        self._readers.discard(connection)
        connection.close()

    def _drop_silent_strangers(self) -> None:
        now = time.monotonic()
        for connection, since in list(self._strangers.items()):
            if now - since >= HELLO_SECONDS:
                self._drop(connection)


def _connect(connection: socket.socket, address: bytes, timeout_seconds: float) -> None:
    """Connect, waiting while others stand in the listener's queue: with a timeout of its own Python does not wait for
    that, but is told at once that it would have to."""
    seconds, fraction = divmod(max(timeout_seconds, 1e-3), 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(seconds), int(1e6 * fraction)))
    try:
        connection.connect(address)
    except BlockingIOError as error:
        raise TimeoutError("the listener's queue is full") from error


class ShmConnection:
    """One publisher's host slabs, mapped read-only. Thread-safe.

    Raises:
        PeerUnavailable: there is no such socket here, or it refuses.
        TransferTimeout: it does not answer in time.
    """

    def __init__(self, name: bytes, secret: bytes, *, timeout_seconds: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, _SEQUENCED)
        self._closed = False
        try:
            _connect(self._socket, b"\0" + name, timeout_seconds)
            self._socket.settimeout(timeout_seconds)
            self._socket.send(secret)
            answer, files, _, _ = socket.recv_fds(self._socket, 4096, 2 * MAX_SLABS)
            self._socket.setblocking(False)
        except TimeoutError as error:
            self._socket.close()
            raise TransferTimeout("the publishing process did not answer in time") from error
        except OSError as error:
            self._socket.close()
            raise PeerUnavailable("the publishing process cannot be reached on this host") from error
        try:
            self._mapped = _map_regions(answer, files)
        except BaseException:
            self._socket.close()
            raise
        finally:
            for file in files:
                os.close(file)

    def locate(self, address: int, nbytes: int) -> int:
        """Where the publisher's bytes are mapped here; raises as ``block``."""
        mapped, offset = self._find(address, nbytes)
        return mapped.address + offset

    def block(self, address: int, nbytes: int) -> Any:
        """A read-only numpy view of the publisher's bytes, which keeps them mapped.

        Raises:
            InvalidDescriptor: the range lies in none of its slabs.
        """
        mapped, offset = self._find(address, nbytes)
        return mapped.block[offset : offset + nbytes]

    def generation(self, table_address: int) -> int:
        """The publisher's generation word at that address."""
        for mapped in self._mapped:
            offset = table_address - mapped.region.table_address
            if offset >= 0 and offset + 8 <= mapped.region.table_nbytes:
                return mapped.words[offset // 8]
        raise InvalidDescriptor("the generation does not lie in the publisher's table")

    def _find(self, address: int, nbytes: int) -> tuple[_Mapped, int]:
        for mapped in self._mapped:
            offset = address - mapped.region.address
            if offset >= 0 and offset + nbytes <= mapped.region.nbytes:
                return mapped, offset
        raise InvalidDescriptor("the block does not lie in the publisher's memory")

    @property
    def alive(self) -> bool:
        """Whether the publisher still holds the other end."""
        if self._closed:
            return False
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def send(self, message: bytes) -> None:
        """Send a short message, without waiting.

        Raises:
            PeerUnavailable: the publisher is gone, or does not take messages now.
        """
        try:
            self._socket.send(message)
        except OSError as error:
            raise PeerUnavailable("the publishing process takes no acknowledgement") from error

    def close(self) -> None:
        """Close the connection; what was mapped goes with its last view."""
        self._closed = True
        self._socket.close()


def _regions(slabs: Sequence[Slab]) -> tuple[list[SharedRegion], list[int]]:
    regions, files = [], []
    for slab in slabs:
        if isinstance(slab.backing, HostMemory):
            table = slab.generations.memory
            regions.append(SharedRegion(slab.address, slab.nbytes, table.address, table.nbytes))
            files += [
                os.open(f"/proc/self/fd/{memory.file}", os.O_RDONLY | os.O_CLOEXEC) for memory in (slab.backing, table)
            ]
    return regions, files


@dataclass(frozen=True, slots=True)
class _Mapped:
    region: SharedRegion
    block: Any  # numpy, uint8
    address: int
    words: memoryview


def _map_regions(answer: bytes, files: list[int]) -> list[_Mapped]:
    import numpy as np

    try:
        regions = msgspec.msgpack.decode(answer, type=list[SharedRegion])
    except msgspec.MsgspecError as error:
        raise PeerUnavailable("the publishing process refuses, or is of another version") from error
    if len(files) != 2 * len(regions) or not all(region.makes_sense for region in regions):
        raise PeerUnavailable("the publishing process sent other memory than it says")
    mapped = []
    for position, region in enumerate(regions):
        block = np.frombuffer(_map(files[2 * position], region.nbytes), np.uint8)
        words = memoryview(_map(files[2 * position + 1], region.table_nbytes)).cast("Q")
        mapped.append(_Mapped(region, block, int(block.ctypes.data), words))
    return mapped


def _map(file: int, nbytes: int) -> mmap.mmap:
    try:
        if os.fstat(file).st_size < nbytes or not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise PeerUnavailable("the publishing process sent less memory than it says, or could cut it short")
        return mmap.mmap(file, nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError) as error:
        if isinstance(error, GpuflowError):
            raise
        raise PeerUnavailable(f"the publisher's memory cannot be mapped: {error}") from error
