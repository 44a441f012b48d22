"""BMP of run lengths: by FFmpeg, held to Pillow's plain reading, which takes Python seconds of what lies here."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from gpuflow.codecs.images import decode_image
from gpuflow.codecs.probe import image_info, sniff
from gpuflow.errors import CorruptMedia
from tests.unit.image_files import by_pillow
from tests.unit.image_variants import PALETTE, variant
from tests.unit.raw_images import bmp

COLORS = b"".join(bytes((*color[::-1], 0)) for color in PALETTE)
OF_BITS: dict[int, dict[str, Any]] = {
    8: {"palette": COLORS + bytes(4 * 240), "compression": 1},
    4: {"palette": COLORS, "compression": 2},
}


def rows(bits: int, width: int, height: int) -> bytes:
    """Rows of every kind of step, at random: runs, levels as they are, steps to the right, the end of a row before it."""
    rng = np.random.default_rng(bits)
    out = b""
    for _ in range(height):
        left = width
        while left > 3:
            # A row of nothing but its end is one that Pillow overlooks
            kind, count = rng.integers(0, 10 if left < width else 9), int(rng.integers(3, min(left, 60) + 1))
            if kind < 5:
                out += bytes((count, rng.integers(0, 16) * (17 if bits == 4 else 1)))
            elif kind < 8:
                levels = rng.integers(0, 16, count + count % 2).astype(np.uint8)
                stored = (levels[::2] << 4 | levels[1::2]).tobytes() if bits == 4 else levels[:count].tobytes()
                out += bytes((0, count)) + stored + bytes(len(stored) % 2)
            elif kind == 8:
                out += bytes((0, 2, count, 0))
            else:
                break
            left -= count
        out += b"\0\0"
    return out + b"\0\1"


def pixels(data: bytes, *, torch_free: bool = False) -> Any:
    """What is decoded of a file."""
    return decode_image(data, image_info(data, sniff(data)), torch_free=torch_free).pixels


@pytest.mark.parametrize("torch_free", [False, True], ids=["here", "in a worker"])
@pytest.mark.parametrize("bits", [8, 4])
def test_runs_of_every_kind_are_what_pillow_reads(bits: int, torch_free: bool) -> None:
    data = bmp(bits, rows(bits, 211, 90), 211, 90, **OF_BITS[bits])
    expected = by_pillow(data)
    assert len(np.unique(expected.reshape(-1, 3), axis=0)) == 16
    assert np.array_equal(pixels(data, torch_free=torch_free), expected)


def test_what_the_runs_leave_out_has_the_first_colour() -> None:
    data = bmp(8, b"\x05\x03\0\1", 40, 30, **OF_BITS[8])
    expected = np.full((30, 40, 3), PALETTE[0])
    expected[-1, :5] = PALETTE[3]
    assert np.array_equal(pixels(data), expected)


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("name", ["bmp run lengths", "bmp run lengths of 4 bits"])
def test_runs_that_break_off_are_corrupt_media(name: str, tenth: int) -> None:
    data = variant(name).data
    with pytest.raises(CorruptMedia):
        pixels(data[: tenth * len(data) // 10])


def test_a_million_runs_are_read_at_once() -> None:
    data = bmp(8, b"\1\3" * 1_000_000 + b"\0\1", 1_000, 1_000, **OF_BITS[8])
    started = time.process_time()
    read = pixels(data)
    assert time.process_time() - started < 0.1
    assert read.shape == (1_000, 1_000, 3)
