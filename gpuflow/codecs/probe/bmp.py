"""A BMP's header. Source: the BITMAPFILEHEADER and BITMAPINFOHEADER family of structures."""

from __future__ import annotations

from gpuflow.codecs.base import ImageInfo
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat

_CORE_HEADER = 12  # the OS/2 header, with 16-bit sides
_FIRST_MASK = 54
_COLOR_SPACE, _PROFILES = 70, (b"DEBM", b"KNIL")  # PROFILE_EMBEDDED and PROFILE_LINKED, as they lie
_DEPTHS = (1, 4, 8, 16, 24, 32)
_PLAIN, _RUNS, _FIELDS = 0, (1, 2), 3  # compressions: none, run lengths of 8 and 4 bits, none and masks of the channels
_RUN_BITS = {1: 8, 2: 4}
_MAX_RUN = 255  # pixels that two bytes stand for
_SMALL_PIXELS = 4_000_000  # only above as many are pixels held against runs: the rest of a picture may be left out
_END, _END_BYTES = b"\0\1", 64  # the mark, and what it is looked for in: zeros may follow it
_MASKS = {  # red, green, blue, alpha: the layouts that Pillow reads, by bits
    16: ((0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)),
    24: ((0xFF0000, 0xFF00, 0xFF, 0),),
    32: (
        (0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0), (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
    ),
}  # fmt: skip


def bmp_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. Rows that are not compressed must lie in the file, and runs have an end. A JPEG or PNG within a
    BMP is refused."""
    size = int.from_bytes(data[14:18], "little")
    if len(data) < 14 + size or size < _CORE_HEADER:
        raise CorruptMedia("the BMP ends before its header does")
    if size == _CORE_HEADER:
        width, height = int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
        bits, compression = int.from_bytes(data[24:26], "little"), 0
    else:
        width = int.from_bytes(data[18:22], "little", signed=True)
        height = abs(int.from_bytes(data[22:26], "little", signed=True))  # below 0: rows run top down
        bits, compression = int.from_bytes(data[28:30], "little"), int.from_bytes(data[30:34], "little")
    if width <= 0 or height <= 0 or bits not in _DEPTHS:
        raise CorruptMedia(f"the BMP claims {width}x{height} pixels of {bits} bits")
    if compression not in (_PLAIN, *_RUNS, _FIELDS):
        raise UnsupportedFormat(f"a BMP of compression {compression} is not read: send what it holds, or a PNG")
    if compression not in _RUNS and width * height <= limits.max_image_pixels:  # larger ones have their own error
        _check_rows(len(data) - int.from_bytes(data[10:14], "little"), width * bits, height)
    if compression in _RUNS:
        _check_runs(data, width * height, bits, compression)
    has_alpha = compression == _FIELDS and _alpha_mask(data, size, bits) != 0
    return ImageInfo(
        "bmp",
        width,
        height,
        channels=4 if has_alpha else 3,
        bit_depth=bits if bits < 8 else 8,
        has_alpha=has_alpha,
        color="palette" if bits <= 8 else "rgb",
        icc=size >= 124 and data[_COLOR_SPACE : _COLOR_SPACE + 4] in _PROFILES,
    )


def has_runs(data: bytes) -> bool:
    """Whether the rows of a BMP that ``bmp_info`` let through are run lengths."""
    return int.from_bytes(data[14:18], "little") > _CORE_HEADER and int.from_bytes(data[30:34], "little") in _RUNS


def _alpha_mask(data: bytes, size: int, bits: int) -> int:
    """Headers of 52 bytes and more hold the masks, that of alpha from 56 on; shorter ones have three behind them."""
    count = 4 if size >= 56 else 3
    masks = [int.from_bytes(data[at : at + 4], "little") for at in range(_FIRST_MASK, _FIRST_MASK + 4 * count, 4)]
    masks += [0] * (4 - count)
    if bits < 32:
        masks[3] = 0  # as Pillow
    if tuple(masks) not in _MASKS.get(bits, ()):
        raise UnsupportedFormat(f"a BMP of {bits} bits with channels at {', '.join(map(hex, masks))} is not read")
    return masks[3]


def _check_runs(data: bytes, pixels: int, bits: int, compression: int) -> None:
    """Runs of the right depth, with the mark that ends them, and enough of them: what they leave out is as long as it
    likes."""
    if bits != _RUN_BITS[compression]:
        raise CorruptMedia(f"the BMP claims runs of {_RUN_BITS[compression]} bits and {bits} bits a pixel")
    first, size = (int.from_bytes(data[at : at + 4], "little") for at in (10, 34))
    end = first + size if size and first + size <= len(data) else len(data)
    if not data[max(first, end - _END_BYTES) : end].rstrip(b"\0").endswith(_END):
        raise CorruptMedia("the BMP's run lengths break off before the mark that ends them")
    if pixels > _SMALL_PIXELS and 2 * pixels > _MAX_RUN * (end - first):
        raise LimitExceeded(f"{end - first} bytes of run lengths claim {pixels} pixels: more than {_MAX_RUN} in two")


def _check_rows(there: int, row_bits: int, rows: int) -> None:
    """Rows are padded to four bytes; of the last one the padding may be missing."""
    needed = (rows - 1) * ((row_bits + 31) // 32 * 4) + (row_bits + 7) // 8
    if there < needed:
        raise CorruptMedia(f"the BMP claims {needed} bytes of rows where {max(there, 0)} are left")
