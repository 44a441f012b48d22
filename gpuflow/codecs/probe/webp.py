"""A WebP's chunks: canvas, transparency, frames, EXIF orientation."""

from __future__ import annotations

from collections.abc import Iterator

from gpuflow.codecs.base import Color, ImageInfo
from gpuflow.codecs.probe.exif import MAX_BLOCKS, first_orientation
from gpuflow.errors import CorruptMedia

_MAX_CHUNKS = 16_384  # of the longest animation that is allowed, sixteen times as many
_PROFILE, _ALPHA, _ANIMATION = 0x20, 0x10, 0x02
_STORED: dict[bytes, tuple[Color, str]] = {b"VP8 ": ("ycbcr", "420"), b"VP8L": ("rgb", "")}


def webp_info(data: bytes) -> ImageInfo:
    """See ``image_info``. Source: RFC 9649."""
    chunks = _chunks(data)
    name, body = next(chunks, (b"", b""))
    if name == b"VP8X":
        return _extended(body, chunks)
    width, height, has_alpha = _bitstream(name, body)
    color, chroma = _STORED[name]
    return ImageInfo(
        "webp", width, height, channels=4 if has_alpha else 3, has_alpha=has_alpha, color=color, chroma=chroma
    )


def _extended(header: bytes, chunks: Iterator[tuple[bytes, bytes]]) -> ImageInfo:
    if len(header) < 10:
        raise CorruptMedia("the WebP's VP8X chunk is too short")
    width, height = 1 + int.from_bytes(header[4:7], "little"), 1 + int.from_bytes(header[7:10], "little")
    frames, pictures, exif = 0, 0, list[bytes]()
    stored: tuple[Color, str] | None = None
    for name, body in chunks:
        frames += name == b"ANMF"
        if name == b"ANMF":
            _check_frame(body, width, height)
            stored = stored or _STORED[b"VP8L" if body[16:20] == b"VP8L" else b"VP8 "]
        elif name in (b"VP8 ", b"VP8L"):
            pictures += 1
            _check_picture(name, body, width, height)
            stored = stored or _STORED[name]
        if name == b"EXIF" and len(exif) < MAX_BLOCKS:
            exif.append(body)
    animated = bool(header[0] & _ANIMATION)
    if (frames if animated else pictures) == 0:
        raise CorruptMedia("the WebP ends before its pixels")
    has_alpha = bool(header[0] & _ALPHA)
    orientation = first_orientation(exif)
    if orientation > 4:
        width, height = height, width
    return ImageInfo(
        "webp",
        width,
        height,
        channels=4 if has_alpha else 3,
        orientation=orientation,
        has_alpha=has_alpha,
        num_frames=frames if animated else 1,
        color=stored[0] if stored else "ycbcr",
        chroma=stored[1] if stored else "420",
        icc=bool(header[0] & _PROFILE),
    )


def _check_frame(body: bytes, width: int, height: int) -> None:
    left, top, wide, high = (int.from_bytes(body[at : at + 3], "little") for at in (0, 3, 6, 9))
    if len(body) < 16 or 2 * left + wide + 1 > width or 2 * top + high + 1 > height:
        raise CorruptMedia(f"a frame of the WebP does not lie on its canvas of {width}x{height}")


def _check_picture(name: bytes, body: bytes, width: int, height: int) -> None:
    found = _bitstream(name, body)[:2]
    if found != (width, height):
        raise CorruptMedia(f"the WebP's picture of {found[0]}x{found[1]} does not fill its canvas of {width}x{height}")


def _bitstream(name: bytes, body: bytes) -> tuple[int, int, bool]:
    """Width, height and transparency of a file without VP8X."""
    if name == b"VP8 " and len(body) >= 10 and body[3:6] == b"\x9d\x01\x2a" and not body[0] & 1:
        width = int.from_bytes(body[6:8], "little") & 0x3FFF
        height = int.from_bytes(body[8:10], "little") & 0x3FFF
        has_alpha = False
    elif name == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        width, height, has_alpha = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    else:
        raise CorruptMedia("the WebP does not begin with a whole VP8, VP8L or VP8X chunk")
    if not (width and height):
        raise CorruptMedia(f"the WebP claims {width}x{height} pixels")
    return width, height, has_alpha


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and as much of the bodies as a header needs (EXIF whole), up to the end of the file."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        yield name, data[at + 8 : at + 8 + (size if name == b"EXIF" else min(size, 32))]
        at += 8 + size + (size & 1)
    raise CorruptMedia(f"more than {_MAX_CHUNKS} chunks in one WebP")
