"""A BMP's header. Source: the BITMAPFILEHEADER and BITMAPINFOHEADER family of structures."""

from __future__ import annotations

from gpuflow.codecs.base import ImageInfo
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_CORE_HEADER = 12  # the OS/2 header, with 16-bit sides
_ALPHA_MASK = 66
_DEPTHS = (1, 2, 4, 8, 16, 24, 32)
_PLAIN = (0, 3, 6)  # compressions that are none: RGB and its bit fields


def bmp_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. Rows that are not compressed must lie in the file."""
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
    if compression in _PLAIN and width * height <= limits.max_image_pixels:  # larger ones have their own error
        _check_rows(len(data) - int.from_bytes(data[10:14], "little"), width * bits, height)
    has_alpha = size >= 56 and data[_ALPHA_MASK : _ALPHA_MASK + 4] not in (b"", bytes(4))
    return ImageInfo("bmp", width, height, channels=4 if has_alpha else 3, has_alpha=has_alpha)


def _check_rows(there: int, row_bits: int, rows: int) -> None:
    """Rows are padded to four bytes; of the last one the padding may be missing."""
    needed = (rows - 1) * ((row_bits + 31) // 32 * 4) + (row_bits + 7) // 8
    if there < needed:
        raise CorruptMedia(f"the BMP claims {needed} bytes of rows where {max(there, 0)} are left")
