"""A TIFF's directories: entries of a tag, a type and numbers, one after another. Source: TIFF 6.0, section 2."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.probe.claims import check_count, check_room
from gpuflow.errors import CorruptMedia

ENTRY_BYTES = 12
_MAX_ENTRIES = 1_024
_MAX_NUMBERS = 65_536  # strips or tiles of one page
_SIZES = {1: 1, 3: 2, 4: 4}  # bytes of BYTE, SHORT and LONG: the types of the tags that are read


@dataclass(frozen=True, slots=True)
class Directory:
    """One page's entries, as they lie in the file, by tag; of a tag that is there twice the first. ``order``: ``"<"`` or
    ``">"``."""

    data: bytes
    order: Literal["<", ">"]
    entries: dict[int, bytes]

    def numbers(self, tag: int) -> NDArray[np.int64]:
        """The numbers of a tag; none where it is not there.

        Raises:
            CorruptMedia: they are no whole numbers, or do not lie in the file.
            LimitExceeded: very many.
        """
        entry = self.entries.get(tag)
        if entry is None:
            return np.empty(0, np.int64)
        kind, count = struct.unpack_from(f"{self.order}HI", entry, 2)
        size = _SIZES.get(kind)
        if size is None:
            raise CorruptMedia(f"tag {tag} of the TIFF has numbers of type {kind}")
        check_count(count, _MAX_NUMBERS, f"numbers in tag {tag} of the TIFF")
        source, at = self.place(tag, size * count)
        return np.frombuffer(source, f"{self.order}u{size}", count, at).astype(np.int64)

    def number(self, tag: int, default: int | None = None) -> int:
        """The one number of a tag.

        Raises:
            CorruptMedia: it is not there and has no default, or there are several.
        """
        found = self.numbers(tag)
        if found.size == 0 and default is not None:
            return default
        if found.size != 1:
            raise CorruptMedia(f"tag {tag} of the TIFF has {found.size} numbers where it needs one")
        return int(found[0])

    def place(self, tag: int, nbytes: int) -> tuple[bytes, int]:
        """Where so many bytes of a tag lie: in the entry itself, or in the file."""
        entry = self.entries[tag]
        if nbytes <= 4:
            return entry, 8
        at = struct.unpack_from(f"{self.order}I", entry, 8)[0]
        check_room(nbytes, len(self.data) - at, f"tag {tag} of the TIFF")
        return self.data, at


def byte_order(data: bytes) -> Literal["<", ">"]:
    """How numbers lie."""
    return "<" if data.startswith(b"II") else ">"


def page_places(data: bytes, max_pages: int) -> list[int]:
    """Where the pages' directories lie; at most one more than ``max_pages``.

    Raises:
        CorruptMedia: there is none, one lies outside of the file, or they follow each other in a circle.
    """
    number = struct.Struct(f"{byte_order(data)}I").unpack_from
    if len(data) < 8:
        raise CorruptMedia("the TIFF ends before its header does")
    places: list[int] = []
    seen: set[int] = set()
    at = number(data, 4)[0]
    while at and len(places) <= max_pages:
        if at in seen:
            raise CorruptMedia("the TIFF's pages follow each other in a circle")
        seen.add(at)
        places.append(at)
        end = at + 2 + ENTRY_BYTES * _count(data, at)
        at = number(data, end)[0] if end + 4 <= len(data) else 0
    if not places:
        raise CorruptMedia("the TIFF has no pages")
    return places


def directory(data: bytes, at: int) -> Directory:
    """The directory that lies there."""
    order = byte_order(data)
    entries: dict[int, bytes] = {}
    for first in range(at + 2, at + 2 + ENTRY_BYTES * _count(data, at), ENTRY_BYTES):
        tag = struct.unpack_from(f"{order}H", data, first)[0]
        entries.setdefault(tag, data[first : first + ENTRY_BYTES])
    return Directory(data, order, entries)


def _count(data: bytes, at: int) -> int:
    """How many entries a directory has; they must lie in the file."""
    check_room(2, len(data) - at, "a directory of the TIFF")
    count = int(struct.unpack_from(f"{byte_order(data)}H", data, at)[0])
    check_count(count, _MAX_ENTRIES, "entries in a directory")
    check_room(ENTRY_BYTES * count, len(data) - at - 2, "a directory of the TIFF")
    return count
