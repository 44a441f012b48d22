"""A JPEG's header: the frame header of any process, and the EXIF orientation."""

from __future__ import annotations

import itertools
import re

from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.probe.exif import exif_orientation
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat

_MAX_MARKERS = 4_096
_SOS = 0xDA
_APP1 = 0xE1
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are DHT, JPG and DAC
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_BOMB_PIXELS = 4_000_000  # only above as many are pixels held against bytes; a flat baseline image has 341 a byte
_SCAN = re.compile(rb"\xff\xda")


def jpeg_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. A file of very many scans, or of next to no data, counts as a bomb.

    Source: ITU-T T.81 annex B.
    """
    frame, orientation = _headers(data)
    if frame is None:
        raise CorruptMedia("the JPEG ends before its frame header")
    marker, bits, height, width, channels = frame
    if not (width and height):
        raise CorruptMedia(f"the JPEG claims {width}x{height} pixels")
    if not 2 <= bits <= 16:
        raise CorruptMedia(f"the JPEG claims {bits} bits a sample")
    if channels not in (1, 3, 4):
        raise UnsupportedFormat(f"a JPEG has 1, 3 or 4 channels here; got {channels}")
    _check_bomb(data, width * height, limits)
    if orientation > 4:
        width, height = height, width
    return ImageInfo(
        "jpeg",
        width,
        height,
        channels=channels,
        bit_depth=bits,
        orientation=orientation,
        progressive=marker in _PROGRESSIVE,
    )


def _headers(data: bytes) -> tuple[tuple[int, int, int, int, int] | None, int]:
    """``(marker, bits, height, width, channels)`` of the frame header, and the orientation; up to the first scan."""
    frame, orientation, at = None, 1, 2
    for _ in range(_MAX_MARKERS):
        at = data.find(b"\xff", at)  # like libjpeg, step over junk between segments
        if at < 0 or at + 4 > len(data):
            return frame, orientation
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _SOS:
            return frame, orientation
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise CorruptMedia(f"the JPEG's segment {marker:#04x} claims {length} bytes, more or less than there are")
        body = data[at + 4 : at + 2 + length]
        if marker in _FRAME_HEADERS and frame is None:
            frame = (marker, *_frame(body))
        elif marker == _APP1 and body.startswith(b"Exif\x00\x00") and orientation == 1:
            orientation = exif_orientation(body)
        at += 2 + length
    raise CorruptMedia(f"more than {_MAX_MARKERS} markers before the JPEG's first scan")


def _frame(body: bytes) -> tuple[int, int, int, int]:
    if len(body) < 6:
        raise CorruptMedia("the JPEG's frame header is too short")
    return body[0], int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]


def _check_bomb(data: bytes, pixels: int, limits: Limits) -> None:
    allowed = limits.max_jpeg_pixels_per_byte
    if pixels > _BOMB_PIXELS and pixels > allowed * len(data):
        raise LimitExceeded(f"{len(data)} bytes of JPEG claim {pixels} pixels: more than {allowed} a byte")
    scans = sum(1 for _ in itertools.islice(_SCAN.finditer(data), limits.max_jpeg_scans + 1))
    if scans > limits.max_jpeg_scans:
        raise LimitExceeded(f"the JPEG has {scans} scans or more; Limits.max_jpeg_scans is {limits.max_jpeg_scans}")
