"""Which scans of a JPEG count, and that no picture which people have is refused for them."""

from __future__ import annotations

import numpy as np
import pytest

from gpuflow.codecs.images import decode_image
from gpuflow.codecs.probe import image_info, sniff
from gpuflow.codecs.probe.jpeg_scans import scans_of_picture
from gpuflow.config import Limits
from gpuflow.errors import LimitExceeded
from tests.faults.bomb_parts import jpeg_in_tiff, jpeg_with_scans, passing_over
from tests.unit.image_files import by_pillow, encoded, scene


@pytest.mark.parametrize("scans", [10, 12, 14])
def test_a_progressive_photograph_of_50_megapixels_is_let_through(scans: int) -> None:
    data = passing_over(8_192, 6_103, scans - 9)  # nine of its scans are others than the last
    assert scans_of_picture(data) == scans
    assert image_info(data, sniff(data)).progressive


def test_a_picture_of_four_inks_of_38_megapixels_is_let_through() -> None:
    data = passing_over(6_200, 6_200, 9)
    assert scans_of_picture(data) == 18
    assert image_info(data, sniff(data)).progressive


def test_small_pictures_may_have_as_many_scans_as_the_limit_says() -> None:
    data = jpeg_with_scans(40)
    image_info(data, sniff(data))
    with pytest.raises(LimitExceeded, match="max_jpeg_scans"):
        image_info(data, sniff(data), Limits(max_jpeg_scans=48))


def test_an_operator_who_allows_larger_pictures_allows_their_scans() -> None:
    data = passing_over(10_000, 10_000, 1)
    with pytest.raises(LimitExceeded):
        image_info(data, sniff(data))
    image_info(data, sniff(data), Limits(max_image_pixels=100_000_000, max_jpeg_pixels_per_byte=2_000))


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_like_scans_behind_the_picture_or_in_a_segment_are_none(progressive: bool) -> None:
    """A telephone's film of four megabytes has some sixty of them, and a thumbnail its own."""
    plain = encoded(scene(), "JPEG", progressive=progressive)
    film = b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(1 << 20) + b"\xff\xda\0\x08\1\1" * 500
    data = plain[:2] + b"\xff\xe5\x10\x02" + b"\xff\xda" * 2_048 + plain[2:] + film
    assert scans_of_picture(data) == (10 if progressive else 1)
    decoded = decode_image(data, image_info(data, sniff(data))).pixels
    assert np.array_equal(decoded, by_pillow(plain))


def test_restarts_within_a_scan_are_no_markers_that_are_counted() -> None:
    data = encoded(scene(400, 600), "JPEG", restart_marker_blocks=1) + b"\xff\xda" * 100
    assert scans_of_picture(data) == 1
    assert image_info(data, sniff(data)).width == 600


@pytest.mark.parametrize(("scans", "allowed"), [(1, True), (50, True), (60, False)])
def test_a_tiffs_strips_are_held_to_the_same(scans: int, allowed: bool) -> None:
    data = jpeg_in_tiff(jpeg_with_scans(scans))
    if allowed:
        assert image_info(data, sniff(data)).color == "ycbcr"
        return
    with pytest.raises(LimitExceeded, match="scans"):
        image_info(data, sniff(data))
