"""Media as safetensors files in one directory that publisher and readers share.

Each of ``links`` names is one reader's: taking it away is the acknowledgement, so that the publisher learns how many
have read from the file's own link count.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from pathlib import Path
from typing import Any

from gpuflow.errors import InvalidDescriptor, PeerUnavailable, StaleDescriptor
from gpuflow.media import Media
from gpuflow.memory import Lease
from gpuflow.transfer.descriptor import Descriptor
from gpuflow.transfer.local import deserialize, serialize

CHECKSUM_BYTES = 16
LEFT_SECONDS = 600.0  # twice the longest time that anything is on offer
_OURS = re.compile(r"(\d+\.|\.)?[0-9a-f]{32}\.safetensors(\.partial)?")
HEADER_BYTES = 1 << 20  # of a safetensors file: more than our longest metadata


class Directory:
    """The shared directory: made with mode 0700 where it is not there; nothing outside it is ever opened.

    Raises:
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def write(self, media: Media, *, links: int) -> StoredFile:
        """Write a medium under a name of its own, readable by its owner only: whole or not at all.

        Raises:
            OSError: the directory is full or cannot be written to.
        """
        whole = serialize(media)
        name = f"{secrets.token_hex(16)}.safetensors"
        partial = f".{name}.partial"
        file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._file)
        stored = StoredFile(self._file, file, name, max(1, links), _checksum(whole), len(whole))
        try:
            with open(file, "wb", closefd=False) as out:
                out.write(whole)
            for position in range(1, max(1, links)):
                os.link(partial, _name(name, position), src_dir_fd=self._file, dst_dir_fd=self._file)
            os.rename(partial, name, src_dir_fd=self._file, dst_dir_fd=self._file)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=self._file)
            stored.unpublish()
            raise
        return stored

    def read(self, descriptor: Descriptor, lease: Lease) -> None:
        """Read a medium's tensors into a block, and take one of its names away.

        Raises:
            StaleDescriptor: it was withdrawn, or read by as many as were expected.
            InvalidDescriptor: the file is not what the descriptor says.
            PeerUnavailable: it cannot be read.
        """
        for position in range(max(1, descriptor.links)):
            name = _name(descriptor.file, position)
            try:
                whole = self._content(name, descriptor.nbytes)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise PeerUnavailable("the published file cannot be read") from error
            if _checksum(whole) != descriptor.checksum:
                raise InvalidDescriptor("the published file is damaged: its checksum does not match")
            _place(whole, descriptor, lease)
            self._take(descriptor, position)
            return
        raise StaleDescriptor("the published file is gone")

    def close(self) -> None:
        """Close the directory; harmless when repeated."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def sweep(self) -> None:
        """Remove what publishers that were killed have left: nothing is on offer for so long."""
        oldest = time.time() - LEFT_SECONDS
        for name in os.listdir(self._file):
            with contextlib.suppress(OSError):  # somebody else sweeps too
                if _OURS.fullmatch(name) and os.stat(name, dir_fd=self._file, follow_symlinks=False).st_mtime < oldest:
                    os.unlink(name, dir_fd=self._file)

    def _take(self, descriptor: Descriptor, position: int) -> None:
        """Take a name away; the next one, where another reader has taken the same one meanwhile."""
        for other in range(position, descriptor.links):
            with contextlib.suppress(OSError):
                os.unlink(_name(descriptor.file, other), dir_fd=self._file)
                return

    def _content(self, name: str, nbytes: int) -> bytes:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._file)
        with open(file, "rb") as stream:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > nbytes + HEADER_BYTES:
                raise InvalidDescriptor("the published file is not what the descriptor says")
            return stream.read(nbytes + HEADER_BYTES)


class StoredFile:
    """A file that was published, under one or more names."""

    def __init__(self, directory: int, file: int, name: str, links: int, checksum: bytes, nbytes: int) -> None:
        self.name = name
        self.checksum = checksum
        self.nbytes = nbytes
        self._directory = directory
        self._file = file
        self._links = links

    @property
    def reads_left(self) -> int | None:
        """How many names are left; ``None`` once it was unpublished."""
        return os.fstat(self._file).st_nlink if self._file >= 0 else None

    def unpublish(self, *, revoke: bool = True) -> None:
        """Take away all names that are left; harmless when repeated."""
        if self._file < 0:
            return
        for position in range(self._links):
            with contextlib.suppress(OSError):
                os.unlink(_name(self.name, position), dir_fd=self._directory)
        os.close(self._file)
        self._file = -1


def _name(name: str, position: int) -> str:
    return f"{position}.{name}" if position else name


def _checksum(whole: bytes) -> bytes:
    from blake3 import blake3

    return blake3(whole).digest(length=CHECKSUM_BYTES)


def _place(whole: bytes, descriptor: Descriptor, lease: Lease) -> None:
    tensors: dict[str, Any] = deserialize(whole)
    for spec in descriptor.specs:
        tensor = tensors.get(spec.name)
        if tensor is None or tuple(tensor.shape) != spec.shape or str(tensor.dtype) != f"torch.{spec.dtype}":
            raise InvalidDescriptor("the published file holds other tensors than the descriptor says")
        lease.tensor(spec).copy_(tensor)
