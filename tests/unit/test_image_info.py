"""What an image's header says, against Pillow; and that a broken one is refused before any decoder sees it."""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from PIL import ImageOps

from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.probe import check_image, image_info, sniff
from gpuflow.codecs.probe.tiff import lone_page
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError, LimitExceeded, UnsupportedFormat
from tests.unit.image_files import HEIC, animation, encoded, png, scene, turned, with_alpha
from tests.unit.tiff_files import Numbers, Order, page, tiff

GRAY = Picture.fromarray(scene()).convert("L")
FILES: dict[str, Any] = {
    "jpeg 4:2:0": lambda: encoded(scene(), "JPEG"),
    "jpeg 4:4:4": lambda: encoded(scene(), "JPEG", subsampling=0),
    "jpeg progressive": lambda: encoded(scene(), "JPEG", progressive=True),
    "jpeg gray": lambda: encoded(GRAY, "JPEG"),
    "jpeg cmyk": lambda: encoded(Picture.fromarray(scene()).convert("CMYK"), "JPEG"),
    "png": lambda: encoded(scene(), "PNG"),
    "png alpha": lambda: encoded(with_alpha(), "PNG"),
    "png palette": lambda: encoded(Picture.fromarray(scene()).quantize(16), "PNG"),
    "png palette, transparent": lambda: encoded(Picture.fromarray(scene()).quantize(16), "PNG", transparency=2),
    "png animated": lambda: animation("PNG"),
    "webp lossy": lambda: encoded(scene(), "WEBP"),
    "webp lossless": lambda: encoded(scene(), "WEBP", lossless=True),
    "webp alpha": lambda: encoded(with_alpha(), "WEBP"),
    "webp lossless alpha": lambda: encoded(with_alpha(), "WEBP", lossless=True),
    "webp animated": lambda: animation("WEBP"),
    "gif": lambda: encoded(Picture.fromarray(scene()).quantize(16), "GIF"),
    "gif animated": lambda: animation("GIF", 5),
    "bmp": lambda: encoded(scene(), "BMP"),
    "avif": lambda: encoded(scene(), "AVIF", speed=10),
    "avif alpha": lambda: encoded(with_alpha(), "AVIF", speed=10),
    "tiff": lambda: encoded(scene(), "TIFF"),
    "tiff alpha": lambda: encoded(with_alpha(), "TIFF", compression="tiff_lzw"),
}


def _info(data: bytes) -> ImageInfo:
    return image_info(data, sniff(data))


@pytest.mark.parametrize("name", FILES)
def test_the_header_says_what_pillow_says(name: str) -> None:
    data = FILES[name]()
    info = _info(data)
    with Picture.open(io.BytesIO(data)) as image:
        assert (info.width, info.height) == image.size
        assert info.num_frames == getattr(image, "n_frames", 1)
        assert info.has_alpha == image.has_transparency_data
        assert info.format == (image.format or "").lower()
        assert info.progressive == bool(image.info.get("progressive"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_size_is_that_of_the_turned_picture(file_format: str, orientation: int) -> None:
    data = turned(file_format, orientation)
    info = _info(data)
    with Picture.open(io.BytesIO(data)) as image:
        assert (info.width, info.height) == ImageOps.exif_transpose(image).size
    assert info.orientation == orientation


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_decoder_sees_one_page_of_a_tiff_and_no_tag_that_was_not_looked_at(order: Order) -> None:
    """Not its EXIF, GPS and other directories, whose places say what they like, nor XMP, nor another page."""
    others: dict[int, tuple[int, Numbers]] = {tag: (4, [0xFFFFFF00]) for tag in (330, 34_665, 34_853, 40_965)} | {
        700: (1, b"<xmp/>"),
        274: (3, [6]),
        65_000: (7, bytes(5_000)),
        305: (2, b"a program\0"),
    }
    first, second = page(scene(8, 12), 2, order=order), page(scene(20, 16), 2, order=order, rows=3)
    second.extra = others
    data = tiff(first, second, order=order)
    info = image_info(data, sniff(data), frame=1)
    assert (info.width, info.height, info.orientation, info.num_frames) == (20, 16, 6, 2)
    with Picture.open(io.BytesIO(lone_page(data, 1))) as image:
        assert getattr(image, "n_frames", 1) == 1
        assert not set(others) & set(image.tag_v2)  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(image), scene(20, 16))
    with pytest.raises(CorruptMedia, match="no page 2"):
        lone_page(data, 2)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_there_is_not_turns_nothing(orientation: int) -> None:
    made = tiff(page(scene(8, 12), 2, tags={274: [orientation]}))
    assert _info(made).orientation == 1


def test_a_16_bit_png_is_known() -> None:
    levels = np.zeros((4, 5, 3), np.uint16)
    assert _info(png(levels, 2, depth=16)).bit_depth == 16


@pytest.mark.parametrize("name", FILES)
def test_a_header_that_breaks_off_is_corrupt_media(name: str) -> None:
    data = FILES[name]()
    for length in (12, 20, 24):
        with pytest.raises(GpuflowError) as caught:
            _info(data[:length])
        assert caught.value.http_status in (415, 422)


@pytest.mark.parametrize("name", ["jpeg 4:2:0", "png", "webp lossy", "gif animated", "bmp", "tiff", "heic"])
def test_the_header_is_read_in_microseconds(name: str) -> None:
    data = HEIC if name == "heic" else FILES[name]()
    kind = sniff(data)
    times = []
    for _ in range(50):
        started = time.perf_counter()
        image_info(data, kind)
        times.append(time.perf_counter() - started)
    assert sorted(times)[5] < 1e-3


def test_a_broken_exif_block_turns_nothing() -> None:
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff"
    assert _info(encoded(scene(), "JPEG", exif=exif)).orientation == 1


def test_a_png_chunk_of_2_gib_is_corrupt_media() -> None:
    data = encoded(scene(), "PNG")
    with pytest.raises(CorruptMedia, match="claims"):
        _info(data[:33] + b"\x80\x00\x00\x01tEXt" + data[33:])


def test_a_gif_frame_outside_its_screen_is_corrupt_media() -> None:
    data = bytearray(encoded(Picture.fromarray(scene()).quantize(16), "GIF"))
    at = data.index(b"\x2c\x00\x00\x00\x00")
    data[at + 3] = 1
    with pytest.raises(CorruptMedia, match="screen"):
        _info(bytes(data))


def test_next_to_no_bytes_that_claim_13000_pixels_a_side_are_a_bomb() -> None:
    data = bytearray(encoded(scene(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (13_000).to_bytes(2, "big") * 2
    with pytest.raises(LimitExceeded, match="pixels"):
        _info(bytes(data))


@pytest.mark.parametrize(
    ("info", "name"),
    [
        (ImageInfo("png", 16_385, 1), "max_image_side"),
        (ImageInfo("png", 10_000, 6_000), "max_image_pixels"),
        (ImageInfo("gif", 10, 10, num_frames=1_025), "max_animation_frames"),
        (ImageInfo("gif", 4_000, 4_000, num_frames=400), "max_animation_pixels"),
    ],
)
def test_a_claim_above_a_limit_is_refused_and_named(info: ImageInfo, name: str) -> None:
    with pytest.raises(LimitExceeded, match=name):
        check_image(info, Limits())


def test_a_picture_within_the_limits_passes() -> None:
    check_image(ImageInfo("png", 8_000, 6_000), Limits())


@given(st.sampled_from(sorted(set(FILES) - {"avif", "avif alpha"})), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_header_raises_nothing_but_our_errors(name: str, draw: st.DataObject) -> None:
    data = bytearray(FILES[name]())
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, min(len(data), 200) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(CorruptMedia, LimitExceeded, UnsupportedFormat):
        _info(bytes(data))
