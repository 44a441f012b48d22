"""A TIFF's page: what it is, whether it may be decoded, and the page alone for the decoder.

libtiff reads some fifty compressions and layouts, most of them for nobody: what is not on the lists below is refused
with 415. These are old-style JPEG, LogLuv, PixarLog, ThunderScan, NeXT, JPEG 2000, JBIG, LZMA, Zstandard, WebP and LERC;
samples of 2, 12, 24, 32 and 64 bits, signed or of floating point (nobody says which of their values is white); Lab,
LogLuv, masks, and YCbCr other than in JPEG; more than four samples, or several that are of 16 bits and in planes of their
own; BigTIFF, which no image within ``Limits.max_image_bytes`` needs. Directories beside the page (thumbnails, EXIF, GPS)
are never read, neither here nor by the decoder: it is given ``lone_page``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gpuflow.codecs.base import Color, ImageInfo
from gpuflow.codecs.probe.claims import check_count, check_room
from gpuflow.codecs.probe.ifd import Directory, byte_order, directory, page_places
from gpuflow.codecs.probe.jpeg_scans import check_strips, scans_of_picture
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANES = 273, 274, 277, 278, 279, 284
_GROUP_3, _GROUP_4, _PREDICTOR, _PALETTE, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = (
    292,
    293,
    317,
    320,
    322,
    323,
    324,
    325,
)
_INKS, _EXTRA, _SAMPLE_FORMAT, _JPEG_TABLES, _SUBSAMPLING, _ICC = 332, 338, 339, 347, 530, 34_675
_KEPT = (
    _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES,
    _PLANES, _GROUP_3, _GROUP_4, _PREDICTOR, _PALETTE, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _INKS, _EXTRA,
    _SAMPLE_FORMAT, _JPEG_TABLES, _SUBSAMPLING,
)  # fmt: skip
_PLAIN, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32_946, 32_773
_FAX = (2, 3, 4)
_COMPRESSIONS = (_PLAIN, *_FAX, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS)
_YCBCR = 6
_LAYOUTS: dict[tuple[int, int, int, tuple[int, ...]], tuple[Color, int, bool]] = {
    # photometric, bits, samples, what the extra ones are (0 nothing, 1 and 2 alpha): colour, channels, alpha
    **{(white, bits, 1, ()): ("gray", 1, False) for white in (0, 1) for bits in (1, 4, 8)},
    (1, 16, 1, ()): ("gray", 1, False),
    (1, 8, 2, (0,)): ("gray", 1, False),
    (1, 8, 2, (2,)): ("gray", 2, True),
    **{(2, bits, 3, ()): ("rgb", 3, False) for bits in (8, 16)},
    **{(2, bits, 4, (0,)): ("rgb", 3, False) for bits in (8, 16)},
    **{(2, bits, 4, extra): ("rgb", 4, True) for bits in (8, 16) for extra in ((), (2,))},
    (2, 8, 4, (1,)): ("rgb", 4, True),
    **{(3, bits, 1, ()): ("palette", 3, False) for bits in (1, 4, 8)},
    (5, 8, 4, ()): ("cmyk", 4, False),
    (_YCBCR, 8, 3, ()): ("ycbcr", 3, False),
}
_MAX_TILE_PIXELS = 1 << 22  # of an image that is smaller
_MAX_TABLES_BYTES = 1 << 16
_ALL_ROWS = (1 << 32) - 1
_BYTES = (1, 7)  # the types BYTE and UNDEFINED


@dataclass(frozen=True, slots=True)
class _Page:
    """What decides about a page's storage."""

    tags: Directory
    width: int
    height: int
    bits: int
    samples: int
    compression: int
    photometric: int
    planes: int  # 1, or as many as there are samples


def tiff_info(data: bytes, limits: Limits, frame: int = 0) -> ImageInfo:
    """See ``image_info``; of the first page where there is no page ``frame``."""
    places = page_places(data, limits.max_animation_frames)
    tags = directory(data, places[frame if frame < len(places) else 0])
    page, color, channels, has_alpha = _described(tags)
    if page.width * page.height <= limits.max_image_pixels:  # larger ones have their own error
        _check_storage(page, limits)
    orientation = tags.number(_ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    turned = orientation > 4
    return ImageInfo(
        "tiff",
        page.height if turned else page.width,
        page.width if turned else page.height,
        channels=channels,
        bit_depth=page.bits,
        orientation=orientation,
        has_alpha=has_alpha,
        num_frames=len(places),
        color=color,
        chroma=_chroma(tags) if color == "ycbcr" else "",
        icc=_ICC in tags.entries,
    )


def lone_page(data: bytes, frame: int) -> bytes:
    """A TIFF of one page, and of no tags but those that were looked at; not its orientation either.

    The new directory lies behind the old bytes, which its entries point into.
    """
    places = page_places(data, frame + 1)
    if frame >= len(places):
        raise CorruptMedia(f"the TIFF has {len(places)} pages: there is no page {frame}")
    tags = directory(data, places[frame])
    kept = [tags.entries[tag] for tag in _KEPT if tag in tags.entries]
    order, start = byte_order(data), len(data) + (len(data) & 1)
    return b"".join(
        (
            data[:4], struct.pack(f"{order}I", start), data[8:], bytes(start - len(data)),
            struct.pack(f"{order}H", len(kept)), *kept, bytes(4),
        )
    )  # fmt: skip


def _described(tags: Directory) -> tuple[_Page, Color, int, bool]:
    """The page, its colours, channels, and whether one is alpha."""
    width, height = tags.number(_WIDTH), tags.number(_HEIGHT)
    if not (width and height):
        raise CorruptMedia(f"the TIFF claims {width}x{height} pixels")
    compression, photometric = tags.number(_COMPRESSION, _PLAIN), tags.number(_PHOTOMETRIC)
    if compression not in _COMPRESSIONS:
        raise UnsupportedFormat(f"a TIFF of compression {compression} is not read: store it with LZW, deflate or JPEG")
    samples, bits = tags.number(_SAMPLES, 1), set(tags.numbers(_BITS)[:8].tolist()) or {1}
    extra = tuple(tags.numbers(_EXTRA)[:8].tolist())
    layout = _LAYOUTS.get((photometric, min(bits), samples, extra)) if len(bits) == 1 else None
    if layout is None or set(tags.numbers(_SAMPLE_FORMAT)[:8].tolist()) - {1}:
        raise UnsupportedFormat(
            f"a TIFF of {samples} samples of {min(bits)} bits, photometric {photometric}, is not read: "
            "store it as 8-bit RGB"
        )
    planes = samples if samples > 1 and tags.number(_PLANES, 1) == 2 else 1
    page = _Page(tags, width, height, min(bits), samples, compression, photometric, planes)
    _check_combination(page)
    return page, *layout


def _check_combination(page: _Page) -> None:
    """What each alone may be, and together may not."""
    tags, jpeg = page.tags, page.compression == _JPEG
    refused = {
        "CCITT of other than one bit": page.compression in _FAX and (page.bits, page.samples) != (1, 1),
        "JPEG of other than 8 bits": jpeg and page.bits != 8,
        "YCbCr without JPEG": page.photometric == _YCBCR and not jpeg,
        "JPEG of a palette, with alpha or in planes": jpeg and (page.photometric == 3 or page.planes > 1 or _EXTRA in tags.entries),
        "16 bits in planes": page.planes > 1 and page.bits == 16,
        "alpha in planes": page.planes > 1 and _EXTRA in tags.entries,
        "turned bits": tags.number(_FILL_ORDER, 1) != 1 and page.bits != 1,
        "a predictor for floating point": tags.number(_PREDICTOR, 1) not in (1, 2),
        "inks other than CMYK": page.photometric == 5 and tags.number(_INKS, 1) != 1,
    }  # fmt: skip
    for name, found in refused.items():
        if found:
            raise UnsupportedFormat(f"a TIFF of {name} is not read: store it as 8-bit RGB")
    colours = 3 << page.bits if page.photometric == 3 else 0
    if colours and page.tags.numbers(_PALETTE).size != colours:
        raise CorruptMedia(f"the TIFF's palette of {page.bits} bits has not {colours} levels")


def _check_storage(page: _Page, limits: Limits) -> None:
    """Every strip or tile lies in the file; they are as many as the page needs, and share no bytes."""
    tags = page.tags
    if (_STRIPS in tags.entries) == (_TILES in tags.entries):
        raise CorruptMedia("the TIFF needs either strips or tiles")
    tiled = _TILES in tags.entries
    wide, high = _tile(page, limits) if tiled else (page.width, _strip_rows(page))
    across, down = -(-page.width // wide), -(-page.height // high)
    check_count(across * wide * down * high, 2 * limits.max_image_pixels, "pixels in all tiles")
    count = across * down * page.planes
    places, sizes = (tags.numbers(tag) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))
    if not places.size == sizes.size == count:
        raise CorruptMedia(f"the TIFF has {places.size} places and {sizes.size} sizes of {count} strips or tiles")
    if int((places + sizes).max()) > len(tags.data) or int(sizes.sum()) > len(tags.data):
        raise CorruptMedia(f"the TIFF's strips or tiles claim more than its {len(tags.data)} bytes")
    if page.compression == _PLAIN:
        rows = count * high if tiled else page.height * page.planes
        row_bytes = (wide * page.bits * (page.samples // page.planes) + 7) // 8
        if int(sizes.sum()) < rows * row_bytes:
            raise CorruptMedia(f"the TIFF claims {rows * row_bytes} bytes of rows and has {int(sizes.sum())}")
    if _JPEG_TABLES in tags.entries:
        _check_tables(tags)
    if page.compression == _JPEG:
        strips = zip(places.tolist(), (places + sizes).tolist(), strict=True)
        check_strips(tags.data, strips, wide * min(high, page.height), limits)


def _tile(page: _Page, limits: Limits) -> tuple[int, int]:
    """Width and height of a tile: a decoder allocates one."""
    wide, high = page.tags.number(_TILE_WIDTH), page.tags.number(_TILE_HEIGHT)
    if not (wide and high) or wide % 16 or high % 16:
        raise CorruptMedia(f"the TIFF has tiles of {wide}x{high}; sides are multiples of 16")
    allowed = min(limits.max_image_pixels, max(page.width * page.height, _MAX_TILE_PIXELS))
    check_count(wide * high, allowed, "pixels in a tile")
    return wide, high


def _strip_rows(page: _Page) -> int:
    rows = min(page.tags.number(_STRIP_ROWS, _ALL_ROWS), page.height)
    if rows == 0:
        raise CorruptMedia("the TIFF has strips of no rows")
    return rows


def _check_tables(tags: Directory) -> None:
    """The tables that all JPEG strips share lie in the file, and hold no scans."""
    kind, count = struct.unpack_from(f"{tags.order}HI", tags.entries[_JPEG_TABLES], 2)
    if kind not in _BYTES:
        raise CorruptMedia(f"the TIFF's table of JPEG is of type {kind}")
    source, at = tags.place(_JPEG_TABLES, count)
    check_room(count, _MAX_TABLES_BYTES, "the TIFF's table of JPEG")
    if scans_of_picture(source[at : at + count]):
        raise CorruptMedia("the TIFF's table of JPEG holds a scan")


def _chroma(tags: Directory) -> str:
    factors = tuple(tags.numbers(_SUBSAMPLING).tolist()) or (2, 2)
    return {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}.get(factors, "")
