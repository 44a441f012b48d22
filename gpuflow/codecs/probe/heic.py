"""A HEIC: its still picture. Source: ISO/IEC 23008-12, ISO/IEC 14496-15 section 8.3 (the record of HEVC)."""

from __future__ import annotations

from gpuflow.codecs.base import Color, ImageInfo
from gpuflow.codecs.probe.claims import check_count, check_room
from gpuflow.codecs.probe.heif import Items, number, reading
from gpuflow.codecs.probe.hevc import RECORD_BYTES, check_units, picture_sizes
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_KINDS = (b"hvc1", b"grid")
_MAX_UNITS = 65_536  # slices of all pictures together
_MAX_SETS = 1_024  # of all records together
_CHROMA = ("", "420", "422", "444")


def heic_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. Of several pictures the primary one; frames of a sequence are not read.

    ``irot`` and ``imir`` are the orientation; an EXIF block says nothing.
    """
    return reading(data, limits, _info)


def _info(items: Items, limits: Limits) -> ImageInfo:
    if not items.kinds:
        raise CorruptMedia("the HEIC ends before its items")
    if items.primary == 0:
        raise UnsupportedFormat("the HEIC names no picture to show; sequences alone are not read")
    if items.kind not in _KINDS:
        raise UnsupportedFormat(f"a HEIC whose picture is {items.kind!r} is not read: only HEVC, and grids of it")
    items.check_grids(limits)
    _check_streams(items, limits)
    width, height = _shown(items, limits)
    return items.facts("heic", (width, height), _stored(items), has_alpha=items.has_alpha())


def _shown(items: Items, limits: Limits) -> tuple[int, int]:
    """Width and height within the clean aperture (``clap``), which encoders use for odd sides."""
    width, height = items.size(items.primary)
    check_count(width * height, limits.max_image_pixels, "pixels", "max_image_pixels")
    aperture = next(items.bodies(items.primary, b"clap"), None)
    if aperture is None:
        return width, height
    wide, wide_of, high, high_of = (number(aperture, at, 4) for at in (0, 4, 8, 12))
    if not (wide_of and high_of and 0 < wide <= width * wide_of and 0 < high <= height * high_of):
        raise CorruptMedia("the HEIC's clean aperture does not lie in its picture")
    shown = round(wide / wide_of), round(high / high_of)
    if not all(shown):
        raise CorruptMedia("the HEIC's clean aperture has no pixels")
    return shown


def _check_streams(items: Items, limits: Limits) -> None:
    """Hold the streams' own sizes to the limit: libde265 allocates by them, whatever the boxes say."""
    view, sets = memoryview(items.data), 0
    for kind, first, end in items.properties:
        if kind == b"hvcC":
            for width, height in picture_sizes(view[first:end]):
                sets += 1
                check_count(sets, _MAX_SETS, "parameter sets")
                check_count(width * height, limits.max_image_pixels, "pixels in a picture", "max_image_pixels")
    nbytes = units = 0
    for item, kind in items.kinds.items():
        if kind == b"hvc1":
            record = next(items.bodies(item, b"hvcC"), b"").ljust(RECORD_BYTES, b"\0")
            nbytes += sum(end - at for at, end in items.extents(item))
            check_room(nbytes, len(items.data), "the pictures together")
            payload = items.payload(item)
            units += check_units(payload, 1 + (record[21] & 3), _MAX_UNITS - units)


def _stored(items: Items) -> tuple[int, Color, str]:
    """Bits, colours and chroma, by the decoder's record."""
    record = items.body(b"hvcC")
    if record is None or len(record) < RECORD_BYTES:
        raise CorruptMedia("the HEIC lacks the record of its codec")
    chroma = _CHROMA[record[16] & 3]
    return 8 + (record[17] & 7), "ycbcr" if chroma else "gray", chroma
