"""Valid images of a few bytes with much behind them that does not show, and what they are without it."""

from __future__ import annotations

import functools
import io
import struct
import zlib

import numpy as np

from tests.unit.image_files import animation, encoded, png, scene

EXIF = b"II*\0\x08\0\0\0" + struct.pack("<H", 511) + struct.pack("<HHII", 1, 3, 1, 0) * 511


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@functools.cache
def _megabytes(number: int) -> bytes:
    """So many of one letter, compressed."""
    stream, letters = zlib.compressobj(), b"a" * 1_000_000
    return b"".join(stream.compress(letters) for _ in range(number)) + stream.flush()


def _png_with(plain: bytes, *chunks: bytes) -> bytes:
    return plain[:33] + b"".join(chunks) + plain[33:]


def _webp_with(plain: bytes, blocks: int) -> bytes:
    body = plain[8:] + (b"EXIF" + struct.pack("<I", len(EXIF)) + EXIF) * blocks
    return b"RIFF" + struct.pack("<I", len(body)) + body


@functools.cache
def hidden_loads() -> dict[str, tuple[bytes, bytes, int]]:
    """With what does not show, without it, and the frame that is asked for."""
    eight, deep = encoded(scene(), "PNG"), png(scene().astype(np.uint16) * 257, 2, depth=16)
    keyed = png(scene().astype(np.uint16) * 257, 2, depth=16, key=bytes(6))
    jpeg, webp = encoded(scene(), "JPEG"), encoded(scene(), "WEBP", exif=b"Exif\0\0" + EXIF[:8])
    text, texts = _chunk(b"zTXt", b"k\0\0" + _megabytes(300)), _megabytes(7)
    many = [_chunk(b"zTXt", b"k%d\0\0" % n + texts) for n in range(100)]
    more = [_chunk(b"iTXt", b"k%d\0\1\0\0\0" % n + texts) for n in range(100)]
    profile = _chunk(b"iCCP", b"k\0\0" + _megabytes(300))
    segment = b"\xff\xe1" + struct.pack(">H", len(EXIF) + 8) + b"Exif\0\0" + EXIF
    return {
        "png: 16 bits, a colour key and a text of 300 MB": (_png_with(keyed, text), keyed, 0),
        "png: 16 bits and a text of 300 MB": (_png_with(deep, text), deep, 0),
        "png: a text of 300 MB": (_png_with(eight, text), eight, 0),
        "png: 100 texts of 7 MB": (_png_with(eight, *many), eight, 0),
        "png: 100 international texts of 7 MB": (_png_with(eight, *more), eight, 0),
        "png: a profile of 300 MB": (_png_with(eight, profile), eight, 0),
        "png: a later frame and 100 texts of 7 MB": (_png_with(animation("PNG"), *many), animation("PNG"), 2),
        "jpeg: 1,000 blocks of EXIF": (jpeg[:2] + segment * 1_000 + jpeg[2:], jpeg, 0),
        "webp: 1,000 blocks of EXIF": (_webp_with(webp, 1_000), webp, 0),
    }


def transparent_where_it_does_not_say() -> bytes:
    """An AVIF of two frames whose transparency is nobody's: its link has another name."""
    from PIL import Image as Picture

    first, second = (Picture.new("RGBA", (32, 32), (level, 2, 3, 9)) for level in (1, 9))
    out = io.BytesIO()
    first.save(out, "AVIF", save_all=True, append_images=[second])
    return out.getvalue().replace(b"auxl", b"xuxl", 1)
