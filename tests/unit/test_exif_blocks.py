"""Several blocks of EXIF in one image: the first that can be read says how it is turned."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import pytest

from gpuflow.codecs.probe import image_info, sniff
from tests.faults.bomb_parts import chunk
from tests.unit.image_files import encoded, scene

BROKEN, EMPTY = b"II*\0\xff\xff\0\0", b"II*\0\x08\0\0\0\0\0\0\0\0\0"


def block(orientation: int) -> bytes:
    """A block that says so and no more."""
    return struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def jpeg(blocks: Sequence[bytes]) -> bytes:
    """A JPEG with these blocks."""
    data = encoded(scene(), "JPEG")
    segments = (b"\xff\xe1" + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body for body in blocks)
    return data[:2] + b"".join(segments) + data[2:]


def webp(blocks: Sequence[bytes]) -> bytes:
    """A WebP with these blocks."""
    data = encoded(scene(), "WEBP", exif=b"Exif\0\0" + EMPTY)
    body = data[8 : data.index(b"EXIF")] + b"".join(chunk(b"EXIF", body) for body in blocks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("file", [jpeg, webp])
@pytest.mark.parametrize(
    ("blocks", "orientation"),
    [
        ([], 1),
        ([block(6)], 6),
        ([block(3), block(6)], 3),
        ([EMPTY, block(6)], 1),
        ([BROKEN, b"", block(8)], 8),
        ([BROKEN] * 7 + [block(5)], 5),
        ([BROKEN] * 8 + [block(5)], 1),
    ],
    ids=["none", "one", "the first of two", "one without", "behind broken ones", "the eighth", "the ninth"],
)
def test_the_first_that_can_be_read_counts(
    file: Callable[[Sequence[bytes]], bytes], blocks: list[bytes], orientation: int
) -> None:
    data = file(blocks)
    info = image_info(data, sniff(data))
    assert info.orientation == orientation
    assert (info.width, info.height) == ((48, 64) if orientation > 4 else (64, 48))
