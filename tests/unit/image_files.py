"""Images made at run time with real encoders, and the plain reading of them by Pillow that decoders are held to."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from gpuflow.demo import samples
from gpuflow.media import Blob

Pixels = NDArray[np.uint8]
# 16x16 pixels of one colour, written by libheif 1.23 and x265, which are not on every machine
HEIC_COLOR = (200, 80, 40)
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAA"
    "AERAAAEAAQAAAAABoAABAAAAAAAAACsAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADc"
    "aXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAA"
    "AwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFw"
    "AAAAEAAAAAEAAAAQAAAAAf///9AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAM21kYXQAAAAn"
    "KAGvUhYFJOb86r/+wr//FJkOvN0yJUegpEpbLaqAllpuq1CLS2yz"
)
ORIENTATION = 0x0112


def blob(data: bytes) -> Blob:
    """Bytes as the fetch stage hands them over."""
    return Blob(data, "0" * 64)


def scene(height: int = 48, width: int = 64) -> Pixels:
    """A picture with edges, shades and texture; no two of its corners alike."""
    return np.array(Picture.open(io.BytesIO(samples.picture("PNG", width=width, height=height))).convert("RGB"))


def encoded(picture: Any, file_format: str, **options: Any) -> bytes:
    """Encode an array or a Pillow image by Pillow."""
    out = io.BytesIO()
    image = Picture.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(out, file_format, **options)
    return out.getvalue()


def with_alpha(height: int = 48, width: int = 64) -> Pixels:
    """A picture whose transparency runs from left to right."""
    opacity = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8), (height, width))
    return np.dstack([scene(height, width), opacity])


def turned(file_format: str, orientation: int) -> bytes:
    """A picture that is to be shown in this orientation."""
    exif = Picture.Exif()
    exif[ORIENTATION] = orientation
    return encoded(scene(), file_format, exif=exif, **({"lossless": True} if file_format == "WEBP" else {}))


def animation(file_format: str, frames: int = 3) -> bytes:
    """An animation whose frames are of one colour each."""
    first, *rest = [Picture.new("RGB", (32, 24), (80 * n, 255 - 80 * n, 40)) for n in range(frames)]
    return encoded(first, file_format, save_all=True, append_images=rest, duration=50)


def png(
    levels: NDArray[Any], color: int, *, depth: int, key: bytes = b"", size: tuple[int, int] | None = None
) -> bytes:
    """A PNG of raw samples, ``(H, W, channels)``, or with a header that claims another ``(width, height)``."""
    height, width = levels.shape[:2]
    rows = b"".join(b"\x00" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(_chunk(name, data) for name, data in chunks if data or name == b"IEND")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def by_pillow(data: bytes, frame: int = 0) -> Pixels:
    """The picture as Pillow shows it, unturned, transparency kept."""
    with Picture.open(io.BytesIO(data)) as image:
        image.seek(frame)
        return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
