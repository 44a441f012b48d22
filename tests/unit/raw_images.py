"""PNG and BMP written by hand, of every depth and layout."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def png_file(
    levels: NDArray[Any],
    color: int,
    depth: int,
    *,
    interlaced: bool = False,
    chunks: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """A PNG of raw samples ``(H, W, channels)`` of any depth; ``chunks`` stand before its pixels."""
    passes = [(0, 0, 1, 1)]
    if interlaced:  # first column, first row, steps of both: the seven of Adam7
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for left, top, across, down in passes:
        part = levels[top::down, left::across]
        rows += b"".join(b"\0" + _packed(row.reshape(-1), depth) for row in part) if part.size else b""
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], depth, color, 0, 0, int(interlaced))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, body) for name, body in parts)


def _packed(samples: NDArray[Any], depth: int) -> bytes:
    if depth == 16:
        return samples.astype(">u2").tobytes()
    bits = np.unpackbits(samples.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bmp(
    bits: int,
    rows: bytes,
    width: int,
    height: int,
    *,
    palette: bytes = b"",
    masks: tuple[int, ...] = (),
    compression: int = 0,
) -> bytes:
    """A BMP with its header, of the size that its masks need; a height below 0 is top down."""
    size = 40 if not masks else 56
    offset = 14 + size + len(palette)
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(rows), 0, 0, len(palette) // 4, 0)
    fields = struct.pack("<4I", *masks) if masks else b""
    return (
        b"BM"
        + struct.pack("<IIII", offset + len(rows), 0, 0, 0)[:8]
        + struct.pack("<I", offset)
        + info
        + fields
        + palette
        + rows
    )


def bmp_rows(levels: NDArray[Any]) -> bytes:
    """Rows as a BMP stores them: bottom up, padded to four bytes."""
    return b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in levels.reshape(levels.shape[0], -1)[::-1])
