"""A PNG's header chunks: size, depth, transparency, animation, EXIF orientation; and the chunks that a decoder is given."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from gpuflow.codecs.base import Color, ImageInfo
from gpuflow.codecs.probe.exif import exif_orientation
from gpuflow.errors import CorruptMedia

_MAX_CHUNKS = 65_536
_MAX_CHUNK_BYTES = (1 << 31) - 1
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_PALETTE = 3
_COLORS: dict[int, Color] = {0: "gray", 2: "rgb", 3: "palette", 4: "gray", 6: "rgb"}
_HEADER = struct.Struct(">I4s").unpack_from
_ANCILLARY = 0x20  # this bit of a name's first letter: what may be left out
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_READ = (*_ANIMATION[:2], b"eXIf")  # the chunks whose bodies are looked at


def png_info(data: bytes) -> ImageInfo:
    """See ``image_info``. ``channels`` counts what a palette gives; a colour key (tRNS without a palette) leaves it at
    1 or 3 with ``has_alpha`` set.

    Source: PNG third edition, sections 5.3 and 11.
    """
    width, height, depth, color = _ihdr(data)
    seen: dict[bytes, bytes] = {}
    animated_default = False
    for name, first, end in _chunks(data):
        if name == b"IHDR" and first > 8:
            raise CorruptMedia("the PNG has two IHDR chunks")  # of which some decoders believe the second
        body = data[first + 8 : end - 4] if name in _READ else b""
        if name == b"fcTL":
            _check_frame(body, width, height)
        if name == b"fcTL" and b"IDAT" not in seen:
            animated_default = True
        seen.setdefault(name, body)
    if b"IDAT" not in seen:
        raise CorruptMedia("the PNG ends before its pixels")
    has_alpha = color in (4, 6) or b"tRNS" in seen
    orientation = exif_orientation(seen.get(b"eXIf", b""))
    if orientation > 4:
        width, height = height, width
    return ImageInfo(
        "png",
        width,
        height,
        channels=4 if color == _PALETTE and has_alpha else _CHANNELS[color],
        bit_depth=depth,
        orientation=orientation,
        has_alpha=has_alpha,
        num_frames=_num_frames(seen.get(b"acTL", b""), animated_default),
        color=_COLORS[color],
        icc=b"iCCP" in seen,
    )


def shown_parts(data: bytes, frame: int = 0) -> Sequence[bytes | memoryview]:
    """The file without what does not show: critical chunks and tRNS, and for a later frame those of the animation. Parts
    to be joined, one where all is kept. Texts and profiles are compressed: decoders expand gigabytes of them.
    """
    kept = (b"tRNS", *_ANIMATION) if frame else (b"tRNS",)
    view, parts, start = memoryview(data), [], 0
    for name, first, end in _chunks(data):
        if name[0] & _ANCILLARY and name not in kept:
            if first > start:
                parts.append(view[start:first])
            start = end
    return [*parts, view[start:]] if start else [data]


def _ihdr(data: bytes) -> tuple[int, int, int, int]:
    if len(data) < 33 or data[8:16] != b"\x00\x00\x00\rIHDR":
        raise CorruptMedia("the PNG does not begin with a whole IHDR chunk")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, color = data[24], data[25]
    if not (0 < width <= _MAX_CHUNK_BYTES and 0 < height <= _MAX_CHUNK_BYTES):
        raise CorruptMedia(f"the PNG claims {width}x{height} pixels")
    if depth not in _DEPTHS.get(color, ()):
        raise CorruptMedia(f"the PNG claims {depth} bits of colour type {color}")
    if data[26:28] != b"\0\0" or data[28] > 1:
        raise CorruptMedia("the PNG claims a compression, filter or interlacing that there is not")
    return width, height, depth, color


def _check_frame(body: bytes, width: int, height: int) -> None:
    """A frame outside the picture makes some decoders write outside their memory."""
    if len(body) < 20:
        raise CorruptMedia("a frame header of the PNG is too short")
    sides = [int.from_bytes(body[at : at + 4], "big") for at in (4, 8, 12, 16)]
    if not (sides[0] and sides[1]) or sides[0] + sides[2] > width or sides[1] + sides[3] > height:
        raise CorruptMedia(f"a frame of the PNG does not lie within its {width}x{height} pixels")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Names, and where chunks begin and end, up to IEND or where the file breaks off.

    A length of 2 GiB and more makes some decoders zero as much memory: it is refused wherever it stands.
    """
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        length, name = _HEADER(data, at)
        if length > _MAX_CHUNK_BYTES:
            raise CorruptMedia(f"a PNG chunk claims {length} bytes")
        if name == b"IEND":
            return
        end = at + 12 + length
        if end > len(data) and name not in (b"IDAT", b"fdAT"):
            return
        yield name, at, end
        at = end
    raise CorruptMedia(f"more than {_MAX_CHUNKS} chunks in one PNG")


def _num_frames(animation: bytes, with_default: bool) -> int:
    """Frames that can be asked for: those of the animation, and the default image where it is none of them."""
    frames = int.from_bytes(animation[:4], "big")
    return max(1, frames + (0 if with_default else 1)) if frames else 1
