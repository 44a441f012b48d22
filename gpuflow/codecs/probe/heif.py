"""The items of a HEIF (AVIF, HEIC): which picture is shown, and what its properties say.

Only boxes are read. Decoders allocate by the sizes that they claim, and a grid of 256 x 256 tiles takes some 300 bytes.
Source: ISO/IEC 23008-12 (HEIF), ISO/IEC 14496-12.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from gpuflow.codecs.base import Color, ImageInfo
from gpuflow.codecs.probe.claims import check_count, check_room
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError

_HEADER = struct.Struct(">I4s").unpack_from
_MAX_ITEMS = 4_096  # a grid of 64 x 64 tiles
_MAX_EXTENTS = 16_384  # of all items together: an extent may take no bytes in its table
_MAX_OWNED = 65_536  # properties of all items
BEGINNING_BYTES = 64  # of a property: all that is read of it
_TABLES = (b"pitm", b"iinf", b"iloc", b"iref", b"idat", b"iprp")
ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
# Orientation 1..8 by quarter turns counter-clockwise (irot) and mirroring after it (imir; axis 1 swaps left and right)
_ORIENTATIONS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5, (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
}  # fmt: skip
_T = TypeVar("_T")


@dataclass(slots=True)
class Items:
    """What ``meta`` says of its items."""

    data: bytes
    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)  # method, first byte, length
    references: dict[tuple[bytes, int], list[int]] = field(default_factory=dict)  # by kind and source: to which
    properties: list[tuple[bytes, int, int]] = field(default_factory=list)  # kind, first byte, end
    owned: dict[int, list[int]] = field(default_factory=dict)
    idat: tuple[int, int] = (0, 0)
    boxes: int = 0  # that were passed, at any depth
    num_references: int = 0
    _places: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)

    def index(self) -> None:
        """Look up every item's properties once, of which one may be owned by thousands."""
        for item, owned in self.owned.items():
            if len(set(owned)) < len(owned):
                raise CorruptMedia("an item of the HEIF owns a property twice")
            for place in owned:
                if 0 < place <= len(self.properties):
                    self._places.setdefault((item, self.properties[place - 1][0]), []).append(place - 1)

    @property
    def kind(self) -> bytes:
        """Of the picture that is shown."""
        return self.kinds.get(self.primary, b"")

    def tiles(self, item: int) -> list[int]:
        """The items that a picture is put together from, in their order."""
        return self.references.get((b"dimg", item), [])

    def bodies(self, item: int, kind: bytes) -> Iterator[bytes]:
        """How the bodies of an item's properties of one kind begin: their first 64 bytes."""
        for place in self._places.get((item, kind), ()):
            _, first, end = self.properties[place]
            yield self.data[first : min(end, first + BEGINNING_BYTES)]

    def owns(self, item: int) -> set[bytes]:
        """The kinds of an item's properties; ``b""`` of one that there is not."""
        known = range(1, len(self.properties) + 1)
        return {self.properties[n - 1][0] if n in known else b"" for n in self.owned.get(item, ())}

    def body(self, kind: bytes) -> bytes | None:
        """That of the picture, or else of its first tile."""
        for item in (self.primary, *self.tiles(self.primary)[:1]):
            for found in self.bodies(item, kind):
                return found
        return None

    def payload(self, item: int) -> bytes:
        """The bytes of an item that lies in the file, no byte of which it takes twice."""
        return b"".join(self.data[at:end] for at, end in self.extents(item))

    def extents(self, item: int) -> list[tuple[int, int]]:
        """First byte and end of each piece of an item, all of which lie in the file and do not exceed it together."""
        found = []
        for method, at, length in self.places.get(item, ()):
            if method > 1:
                raise CorruptMedia("a picture of the HEIF does not lie in the file")
            start, end = self.idat if method else (0, len(self.data))
            check_room(at + length, end - start, "an item")
            found.append((start + at, start + at + length if length else end))
        check_room(sum(end - at for at, end in found), len(self.data), "an item")
        return found

    def size(self, item: int) -> tuple[int, int]:
        """Width and height."""
        found = next(self.bodies(item, b"ispe"), None)
        if found is None:
            raise CorruptMedia("the HEIF does not say the size of its picture")
        width, height = number(found, 4, 4), number(found, 8, 4)
        if not (width and height):
            raise CorruptMedia(f"the HEIF claims {width}x{height} pixels")
        return width, height

    def orientation(self) -> int:
        """As EXIF counts, by ``irot`` and ``imir``; an EXIF block says nothing."""
        turned, mirrored = (next(self.bodies(self.primary, kind), None) for kind in (b"irot", b"imir"))
        quarters = turned[0] & 3 if turned else 0
        return _ORIENTATIONS[quarters, mirrored[0] & 1 if mirrored else None]

    def alphas(self) -> Iterator[tuple[int, list[int]]]:
        """The items that say of themselves that they are an alpha, and of which others."""
        for (kind, item), targets in self.references.items():
            if kind == b"auxl" and any(body[4:].split(b"\0")[0] in ALPHA for body in self.bodies(item, b"auxC")):
                yield item, targets

    def has_alpha(self) -> bool:
        """Whether another picture is its alpha."""
        return any(self.primary in targets for _, targets in self.alphas())

    def has_icc(self) -> bool:
        """Whether a colour profile is there."""
        return any(body[:4] in (b"prof", b"rICC") for body in self.bodies(self.primary, b"colr"))

    def facts(
        self,
        name: str,
        size: tuple[int, int],
        stored: tuple[int, Color, str],
        *,
        has_alpha: bool,
        num_frames: int = 1,
    ) -> ImageInfo:
        """Of a picture of this (width, height) as it is stored, with so many bits, these colours and that chroma."""
        (width, height), (bits, color, chroma) = size, stored
        orientation = self.orientation()
        if orientation > 4:
            width, height = height, width
        return ImageInfo(
            name,
            width,
            height,
            channels=(1 if color == "gray" else 3) + has_alpha,
            bit_depth=bits,
            orientation=orientation,
            has_alpha=has_alpha,
            num_frames=num_frames,
            color=color,
            chroma=chroma,
            icc=self.has_icc(),
        )

    def check_grids(self, limits: Limits) -> None:
        """Of pictures put together from others: as many as they have places, and neither they nor all too large."""
        for item, kind in self.kinds.items():
            if kind == b"grid":
                self._check_grid(item, limits)

    def _check_grid(self, item: int, limits: Limits) -> None:
        start, end = next(iter(self.extents(item)), (0, 0))
        data = self.data[start : min(end, start + BEGINNING_BYTES)]
        wide = 4 if data[1:2] and data[1] & 1 else 2
        if len(data) < 4 + 2 * wide:
            raise CorruptMedia(f"the HEIF's grid takes {end - start} bytes")
        places, tiles = (data[2] + 1) * (data[3] + 1), self.tiles(item)
        if places != len(tiles):
            raise CorruptMedia(f"the HEIF's grid has {places} places and {len(tiles)} tiles")
        width, height = number(data, 4, wide), number(data, 4 + wide, wide)
        check_count(width * height, limits.max_image_pixels, "pixels in a grid", "max_image_pixels")
        pixels = sum(width * height for width, height in map(self.size, tiles))
        check_count(pixels, 4 * limits.max_image_pixels, "pixels in a grid's tiles")


def reading(data: bytes, limits: Limits, read: Callable[[Items, Limits], _T]) -> _T:
    """``read`` of the file's items; that it breaks off is an error of ours.

    Raises:
        CorruptMedia: it does, or ``read`` says so.
        GpuflowError: whatever else ``read`` raises.
    """
    try:
        return read(_read_meta(data, limits), limits)
    except GpuflowError:
        raise
    except (IndexError, ValueError, struct.error) as error:
        raise CorruptMedia("the HEIF's boxes break off") from error


def number(data: bytes, at: int, size: int) -> int:
    """A big-endian number.

    Raises:
        CorruptMedia: the bytes end before it does.
    """
    if at + size > len(data):
        raise CorruptMedia("the HEIF's boxes break off")
    return int.from_bytes(data[at : at + size], "big")


def children(items: Items, at: int, end: int, limits: Limits) -> Iterator[tuple[bytes, int, int]]:
    """``(name, first byte of the body, end)``; a box larger than what holds it is refused."""
    while at + 8 <= end:
        items.boxes += 1
        check_count(items.boxes, limits.max_boxes, "boxes", "max_boxes")
        size, name = _HEADER(items.data, at)
        first = at + 8
        if size == 1:
            size, first = struct.unpack_from(">Q", items.data, first)[0], first + 8
        stop = end if size == 0 else at + size
        if stop < first:
            raise CorruptMedia(f"a box claims {size} bytes: fewer than its own header has")
        check_room(stop - at, end - at, "a box")
        yield name, first, stop
        at = stop


def _read_meta(data: bytes, limits: Limits) -> Items:
    """The first ``meta``, each of whose tables may be there once."""
    items, seen = Items(data), set[bytes]()
    for name, first, end in children(items, 0, len(data), limits):
        if name == b"meta":
            for inner, start, stop in children(items, first + 4, end, limits):
                if inner in seen and inner in _TABLES:
                    raise CorruptMedia(f"the HEIF has two tables {inner!r}")
                seen.add(inner)
                _read(inner, data, start, stop, items, limits)
            break
    items.index()
    return items


def _read(name: bytes, data: bytes, at: int, end: int, items: Items, limits: Limits) -> None:
    if name == b"pitm":
        items.primary = number(data, at + 4, 4 if data[at] else 2)
    elif name == b"iinf":
        _read_kinds(data, at, end, items, limits)
    elif name == b"iloc":
        _read_places(data, at, end, items)
    elif name == b"iref":
        _read_references(data, at, end, items, limits)
    elif name == b"idat":
        items.idat = at, end
    elif name == b"iprp":
        for inner, first, stop in children(items, at, end, limits):
            if inner == b"ipco":
                items.properties = list(children(items, first, stop, limits))
            elif inner == b"ipma":
                _read_owners(data, first, stop, items)


def _read_kinds(data: bytes, at: int, end: int, items: Items, limits: Limits) -> None:
    wide = 4 if data[at] else 2
    check_count(number(data, at + 4, wide), _MAX_ITEMS, "items")
    for _, first, _ in children(items, at + 4 + wide, end, limits):
        size = 4 if data[first] >= 3 else 2
        items.kinds[number(data, first + 4, size)] = data[first + 6 + size : first + 10 + size]


def _read_places(data: bytes, at: int, end: int, items: Items) -> None:
    """Where items lie. A length of 0 is up to the end of the file; no item may lie outside."""
    version, sizes = data[at], data[at + 4 : at + 6]
    offset, length, base = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    index = sizes[1] & 15 if version else 0
    wide = 4 if version == 2 else 2
    count, at = number(data, at + 6, wide), at + 6 + wide
    check_count(count, _MAX_ITEMS, "items")
    total = 0
    for _ in range(count):
        item, at = number(data, at, wide), at + wide
        method, at = (number(data, at, 2) & 15, at + 2) if version else (0, at)
        start = number(data, at + 2, base)
        extents, at = number(data, at + 2 + base, 2), at + 4 + base
        total += extents
        check_count(total, _MAX_EXTENTS, "extents of items")
        check_room(extents * (index + offset + length), end - at, "a table of extents")
        for _ in range(extents):
            place = start + number(data, at + index, offset), number(data, at + index + offset, length)
            if method == 0:
                check_room(place[1], len(data) - place[0], "an item")
            items.places.setdefault(item, []).append((method, *place))
            at += index + offset + length


def _read_references(data: bytes, at: int, end: int, items: Items, limits: Limits) -> None:
    wide = 4 if data[at] else 2
    for kind, first, stop in children(items, at + 4, end, limits):
        source, count = number(data, first, wide), number(data, first + wide, 2)
        check_room(count * wide, stop - first - wide - 2, "a list of references")
        items.num_references += count
        check_count(items.num_references, limits.max_boxes, "references", "max_boxes")
        items.references.setdefault((kind, source), []).extend(
            number(data, first + wide + 2 + wide * n, wide) for n in range(count)
        )


def _read_owners(data: bytes, at: int, end: int, items: Items) -> None:
    wide, each = (4 if data[at] else 2), (2 if data[at + 3] & 1 else 1)
    count, at = number(data, at + 4, 4), at + 8
    check_count(count, _MAX_ITEMS, "items")
    total = sum(map(len, items.owned.values()))
    for _ in range(count):
        item, owned = number(data, at, wide), data[at + wide]
        at += wide + 1
        total += owned
        check_count(total, _MAX_OWNED, "properties of items")
        check_room(owned * each, end - at, "a list of properties")
        items.owned.setdefault(item, []).extend(
            number(data, at + each * n, each) & ((1 << 8 * each - 1) - 1) for n in range(owned)
        )
        at += owned * each
