"""A JPEG's header: the frame header of any process, how its colours are stored, and the EXIF orientation."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpuflow.codecs.base import Color, ImageInfo
from gpuflow.codecs.probe.exif import MAX_BLOCKS, first_orientation
from gpuflow.codecs.probe.jpeg_scans import check_scans
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat

_MAX_MARKERS = 4_096
_SOS = 0xDA
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are DHT, JPG and DAC
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_CHROMA = {
    (1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 2): "410", (1, 4): "441",
}  # fmt: skip
_BOMB_PIXELS = 4_000_000  # only above as many are pixels held against bytes; a flat baseline image has 341 a byte


@dataclass(slots=True)
class _Headers:
    """What stands before the first scan. ``adobe``: the colour transform that Adobe's marker names."""

    marker: int = 0
    frame: bytes = b""
    exif: list[bytes] = field(default_factory=list)
    has_jfif: bool = False
    adobe: int | None = None
    icc: bool = False


def jpeg_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. A file of very many scans, or of next to no data, counts as a bomb.

    Source: ITU-T T.81 annex B.
    """
    found = _headers(data)
    bits, height, width, channels = _frame(found.frame)
    if not (width and height):
        raise CorruptMedia(f"the JPEG claims {width}x{height} pixels")
    if not 2 <= bits <= 16:
        raise CorruptMedia(f"the JPEG claims {bits} bits a sample")
    if channels not in (1, 3, 4):
        raise UnsupportedFormat(f"a JPEG has 1, 3 or 4 channels here; got {channels}")
    _check_bomb(data, width * height, limits)
    orientation = first_orientation(found.exif)
    if orientation > 4:
        width, height = height, width
    color = _color(found, channels)
    return ImageInfo(
        "jpeg",
        width,
        height,
        channels=channels,
        bit_depth=bits,
        orientation=orientation,
        progressive=found.marker in _PROGRESSIVE,
        color=color,
        chroma=_chroma(found.frame) if color in ("ycbcr", "ycck") else "",
        icc=found.icc,
    )


def _headers(data: bytes) -> _Headers:
    found, at = _Headers(), 2
    for _ in range(_MAX_MARKERS):
        at = data.find(b"\xff", at)  # like libjpeg, step over junk between segments
        if at < 0 or at + 4 > len(data):
            return found
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _SOS:
            return found
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise CorruptMedia(f"the JPEG's segment {marker:#04x} claims {length} bytes, more or less than there are")
        _note(found, marker, data[at + 4 : at + 2 + length])
        at += 2 + length
    raise CorruptMedia(f"more than {_MAX_MARKERS} markers before the JPEG's first scan")


def _note(found: _Headers, marker: int, body: bytes) -> None:
    if marker in _FRAME_HEADERS and not found.marker:
        found.marker, found.frame = marker, body
    elif marker == _APP0 and body.startswith(b"JFIF\x00"):
        found.has_jfif = True
    elif marker == _APP1 and body.startswith(b"Exif\x00\x00") and len(found.exif) < MAX_BLOCKS:
        found.exif.append(body)
    elif marker == _APP2 and body.startswith(b"ICC_PROFILE\x00"):
        found.icc = True
    elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        found.adobe = body[11]


def _frame(body: bytes) -> tuple[int, int, int, int]:
    """Bits, height, width and channels of the frame header."""
    if not body:
        raise CorruptMedia("the JPEG ends before its frame header")
    if len(body) < 6:
        raise CorruptMedia("the JPEG's frame header is too short")
    return body[0], int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]


def _color(found: _Headers, channels: int) -> Color:
    """As libjpeg decides. Source: ``default_decompress_parms`` in its jdapimin.c."""
    if channels == 1:
        return "gray"
    if channels == 4:
        return "ycck" if found.adobe == 2 else "cmyk"
    if found.has_jfif or found.adobe is not None:
        return "rgb" if found.adobe == 0 and not found.has_jfif else "ycbcr"
    return "rgb" if found.frame[6::3][:3] == b"RGB" else "ycbcr"


def _chroma(frame: bytes) -> str:
    """How often the second channel is sampled against the first; ``""`` where the two factors are no usual ones."""
    factors = frame[7::3]
    if len(factors) < 2 or not all(factor >> 4 and factor & 15 for factor in factors[:2]):
        return ""
    (across, down), (other_across, other_down) = ((factor >> 4, factor & 15) for factor in factors[:2])
    return _CHROMA.get((across // other_across, down // other_down), "")


def _check_bomb(data: bytes, pixels: int, limits: Limits) -> None:
    allowed = limits.max_jpeg_pixels_per_byte
    if pixels > _BOMB_PIXELS and pixels > allowed * len(data):
        raise LimitExceeded(f"{len(data)} bytes of JPEG claim {pixels} pixels: more than {allowed} a byte")
    check_scans(data, pixels, limits)
