"""What decoders do with their pixels at the end, and pixels that are not what the header says."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gpuflow.codecs._backends.pixels import handed_over, in_colors, to_8_bits
from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.images import decode_image
from gpuflow.codecs.probe import image_info, sniff
from gpuflow.errors import CorruptMedia
from tests.faults.bomb_parts import chunk, riff
from tests.unit.image_files import encoded, with_alpha


@pytest.mark.parametrize("most", [65_535, 4_095, 1_023])
def test_every_level_is_divided_and_rounded(most: int) -> None:
    levels = np.arange(most + 1, dtype=np.uint16).reshape(-1, 64, 1)
    expected = np.round(levels.astype(np.float64) * 255 / most)
    assert np.array_equal(to_8_bits(levels, most=most), expected)
    assert np.array_equal(to_8_bits(levels.astype(">u2").swapaxes(0, 1), most=most), expected.swapaxes(0, 1))


def test_16_bits_become_8_in_next_to_no_memory() -> None:
    levels = np.zeros((1_000, 1_000, 4), np.uint16)
    tracemalloc.start()
    try:
        pixels = to_8_bits(levels)
        assert tracemalloc.get_traced_memory()[1] < pixels.nbytes + (1 << 20)
    finally:
        tracemalloc.stop()


def test_gray_becomes_colours_and_keeps_its_alpha() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (5, 7, 2), dtype=np.uint8)
    gray, opacity = levels[:, :, 0], levels[:, :, 1]
    assert np.array_equal(in_colors(levels), np.dstack([gray, gray, gray, opacity]))
    assert np.array_equal(in_colors(levels[:, :, :1]), np.dstack([gray] * 3))


@pytest.mark.parametrize("shape", [(6, 8, 4), (6, 9, 3), (8, 6, 3), (6, 8)])
def test_pixels_of_another_shape_than_the_header_says_are_corrupt_media(shape: tuple[int, ...]) -> None:
    out = np.zeros((6, 8, 3), np.uint8)
    for place in (None, out):
        with pytest.raises(CorruptMedia, match="8x6x3"):
            handed_over(np.ones(shape, np.uint8), ImageInfo("avif", 8, 6), place)
    assert not out.any()


@pytest.mark.parametrize("torch_free", [False, True], ids=["here", "in a worker"])
def test_transparency_that_the_header_does_not_announce_is_dropped(torch_free: bool) -> None:
    picture = encoded(with_alpha(), "WEBP", lossless=True, exact=True)
    at = picture.index(b"VP8L")
    body = picture[at + 8 : at + 8 + int.from_bytes(picture[at + 4 : at + 8], "little")]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (64, 48))
    data = riff(b"WEBP", chunk(b"VP8X", bytes(4) + sides), chunk(b"VP8L", body))
    info = image_info(data, sniff(data))
    out = np.zeros((48, 64, 3), np.uint8)
    decode_image(data, info, torch_free=torch_free, place=lambda shape: out)
    assert np.array_equal(out, with_alpha()[:, :, :3])
