"""An AVIF's items: the picture that is shown, its size, alpha, orientation, grid; and the frames of a sequence.

Only boxes are read. libavif allocates by the sizes that they claim, and a grid of 256 x 256 tiles takes some 300 bytes.
Source: ISO/IEC 23008-12 (HEIF), ISO/IEC 14496-12, the AVIF specification 1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.probe.boxes import movie_claims
from gpuflow.codecs.probe.claims import check_count, check_room
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError

_HEADER = struct.Struct(">I4s").unpack_from
_MAX_ITEMS = 4_096  # a grid of 64 x 64 tiles
_MAX_EXTENTS = 4_096
_ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"
_ALPHA_OLD = b"urn:mpeg:hevc:2015:auxid:1"
# Orientation 1..8 by quarter turns counter-clockwise (irot) and mirroring after it (imir; axis 1 swaps left and right)
_ORIENTATIONS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5, (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
}  # fmt: skip


@dataclass(slots=True)
class _Items:
    """What ``meta`` says of its items."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # method, first byte, length
    references: list[tuple[bytes, int, int]] = field(default_factory=list)  # kind, from, to
    properties: list[tuple[bytes, int, int]] = field(default_factory=list)  # kind, first byte, end
    owned: dict[int, list[int]] = field(default_factory=dict)
    data: tuple[int, int] = (0, 0)


def avif_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. ``irot`` and ``imir`` are the orientation; an EXIF block says nothing."""
    try:
        return _info(data, limits)
    except GpuflowError:
        raise
    except (IndexError, ValueError, struct.error) as error:
        raise CorruptMedia("the AVIF's boxes break off") from error


def _info(data: bytes, limits: Limits) -> ImageInfo:
    items = _read_meta(data, limits)
    frames, size = _sequence(data, limits)
    if items.primary == 0 and size is None:
        raise CorruptMedia("the AVIF names no picture to show")
    width, height = size or _size(data, items, items.primary)
    grid = _grid(data, items, items.primary)
    if grid is not None:
        check_count(grid[0] * grid[1], limits.max_image_pixels, "pixels in a grid", "max_image_pixels")
    orientation = _orientation(data, items)
    has_alpha = any(
        kind == b"auxl" and to == items.primary and _is_alpha(data, items, item) for kind, item, to in items.references
    )
    if orientation > 4:
        width, height = height, width
    return ImageInfo(
        "avif",
        width,
        height,
        channels=4 if has_alpha else 3,
        orientation=orientation,
        has_alpha=has_alpha,
        num_frames=frames,
    )


def _children(data: bytes, at: int, end: int, limits: Limits) -> Iterator[tuple[bytes, int, int]]:
    """``(name, first byte of the body, end)``; a box larger than what holds it is refused."""
    for count in range(limits.max_boxes + 1):
        if at + 8 > end:
            return
        check_count(count + 1, limits.max_boxes, "boxes", "max_boxes")
        size, name = _HEADER(data, at)
        first = at + 8
        if size == 1:
            size, first = struct.unpack_from(">Q", data, first)[0], first + 8
        stop = end if size == 0 else at + size
        if stop < first:
            raise CorruptMedia(f"a box claims {size} bytes: fewer than its own header has")
        check_room(stop - at, end - at, "a box")
        yield name, first, stop
        at = stop


def _read_meta(data: bytes, limits: Limits) -> _Items:
    items = _Items()
    for name, first, end in _children(data, 0, len(data), limits):
        if name == b"meta":
            for inner, start, stop in _children(data, first + 4, end, limits):
                _read(inner, data, start, stop, items, limits)
            break
    return items


def _read(name: bytes, data: bytes, at: int, end: int, items: _Items, limits: Limits) -> None:
    if name == b"pitm":
        items.primary = _number(data, at + 4, 4 if data[at] else 2)
    elif name == b"iinf":
        _read_kinds(data, at, end, items, limits)
    elif name == b"iloc":
        _read_places(data, at, end, items)
    elif name == b"iref":
        _read_references(data, at, end, items, limits)
    elif name == b"idat":
        items.data = (at, end)
    elif name == b"iprp":
        for inner, first, stop in _children(data, at, end, limits):
            if inner == b"ipco":
                items.properties = list(_children(data, first, stop, limits))
            elif inner == b"ipma":
                _read_owners(data, first, stop, items)


def _read_kinds(data: bytes, at: int, end: int, items: _Items, limits: Limits) -> None:
    wide = 4 if data[at] else 2
    check_count(_number(data, at + 4, wide), _MAX_ITEMS, "items")
    for _, first, _ in _children(data, at + 4 + wide, end, limits):
        size = 4 if data[first] >= 3 else 2
        items.kinds[_number(data, first + 4, size)] = data[first + 6 + size : first + 10 + size]


def _read_places(data: bytes, at: int, end: int, items: _Items) -> None:
    """Where items lie. A length of 0 is up to the end of the file; no item may lie outside."""
    version, sizes = data[at], data[at + 4 : at + 6]
    offset, length, base = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    index = sizes[1] & 15 if version else 0
    wide = 4 if version == 2 else 2
    count, at = _number(data, at + 6, wide), at + 6 + wide
    check_count(count, _MAX_ITEMS, "items")
    for _ in range(count):
        item, at = _number(data, at, wide), at + wide
        method, at = (_number(data, at, 2) & 15, at + 2) if version else (0, at)
        start = _number(data, at + 2, base)
        extents, at = _number(data, at + 2 + base, 2), at + 4 + base
        check_count(extents, _MAX_EXTENTS, "extents of an item")
        check_room(extents * (index + offset + length), end - at, "a table of extents")
        for extent in range(extents):
            place = start + _number(data, at + index, offset), _number(data, at + index + offset, length)
            if method == 0:
                check_room(place[1], len(data) - place[0], "an item")
            if extent == 0:
                items.places[item] = (method, *place)
            at += index + offset + length


def _read_references(data: bytes, at: int, end: int, items: _Items, limits: Limits) -> None:
    wide = 4 if data[at] else 2
    for kind, first, stop in _children(data, at + 4, end, limits):
        source, count = _number(data, first, wide), _number(data, first + wide, 2)
        check_room(count * wide, stop - first - wide - 2, "a list of references")
        check_count(len(items.references) + count, limits.max_boxes, "references", "max_boxes")
        items.references += [(kind, source, _number(data, first + wide + 2 + wide * n, wide)) for n in range(count)]


def _read_owners(data: bytes, at: int, end: int, items: _Items) -> None:
    wide, each = (4 if data[at] else 2), (2 if data[at + 3] & 1 else 1)
    count, at = _number(data, at + 4, 4), at + 8
    check_count(count, _MAX_ITEMS, "items")
    for _ in range(count):
        item, owned = _number(data, at, wide), data[at + wide]
        at += wide + 1
        check_room(owned * each, end - at, "a list of properties")
        items.owned.setdefault(item, []).extend(
            _number(data, at + each * n, each) & ((1 << 8 * each - 1) - 1) for n in range(owned)
        )
        at += owned * each


def _property(items: _Items, item: int, kind: bytes) -> tuple[int, int] | None:
    """First byte and end of an item's property."""
    for number in items.owned.get(item, ()):
        if 0 < number <= len(items.properties) and items.properties[number - 1][0] == kind:
            return items.properties[number - 1][1:]
    return None


def _size(data: bytes, items: _Items, item: int) -> tuple[int, int]:
    found = _property(items, item, b"ispe")
    if found is None:
        raise CorruptMedia("the AVIF does not say the size of its picture")
    width, height = _number(data, found[0] + 4, 4), _number(data, found[0] + 8, 4)
    if not (width and height):
        raise CorruptMedia(f"the AVIF claims {width}x{height} pixels")
    return width, height


def _grid(data: bytes, items: _Items, item: int) -> tuple[int, int] | None:
    """``(width, height)`` of a picture put together from others, which must be as many as it has places."""
    if items.kinds.get(item) != b"grid":
        return None
    method, at, length = items.places.get(item, (0, 0, 0))
    if method == 1:
        at += items.data[0]
    elif method != 0:
        raise CorruptMedia("the AVIF's grid does not lie in the file")
    wide = 4 if data[at + 1] & 1 else 2
    if length < 4 + 2 * wide:
        raise CorruptMedia(f"the AVIF's grid takes {length} bytes")
    tiles, there = (
        (data[at + 2] + 1) * (data[at + 3] + 1),
        sum(kind == b"dimg" and source == item for kind, source, _ in items.references),
    )
    if tiles != there:
        raise CorruptMedia(f"the AVIF's grid has {tiles} places and {there} tiles")
    return _number(data, at + 4, wide), _number(data, at + 4 + wide, wide)


def _orientation(data: bytes, items: _Items) -> int:
    turned, mirrored = (_property(items, items.primary, kind) for kind in (b"irot", b"imir"))
    quarters = data[turned[0]] & 3 if turned else 0
    return _ORIENTATIONS[quarters, data[mirrored[0]] & 1 if mirrored else None]


def _is_alpha(data: bytes, items: _Items, item: int) -> bool:
    found = _property(items, item, b"auxC")
    return found is not None and data[found[0] + 4 : found[1]].split(b"\0")[0] in (_ALPHA, _ALPHA_OLD)


def _sequence(data: bytes, limits: Limits) -> tuple[int, tuple[int, int] | None]:
    """Frames and size of an image sequence; one frame and no size of a still picture."""
    if b"avis" not in data[8:12] or data.find(b"moov") < 0:
        return 1, None
    claims = movie_claims(data, limits)
    pictures = [track for track in claims.tracks if track.width and track.height]
    if not pictures:
        raise CorruptMedia("the AVIF's sequence has no pictures")
    return max(1, pictures[0].num_samples or 1), (pictures[0].width, pictures[0].height)


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise CorruptMedia("the AVIF's boxes break off")
    return int.from_bytes(data[at : at + size], "big")
