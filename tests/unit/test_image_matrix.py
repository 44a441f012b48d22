"""Every variant of every format: what the header says, what comes out, and that workers without torch give the same."""

from __future__ import annotations

import numpy as np
import pytest

from gpuflow.codecs.images import decode_image
from gpuflow.codecs.probe import check_image, image_info, sniff
from gpuflow.config import Limits
from tests.unit.image_variants import VARIANTS, variant


@pytest.mark.parametrize("name", VARIANTS)
def test_the_header_says_what_comes_out(name: str) -> None:
    made = variant(name)
    info = image_info(made.data, sniff(made.data), frame=made.frame)
    check_image(info, Limits())
    assert {fact: getattr(info, fact) for fact in made.facts} == made.facts
    pixels = decode_image(made.data, info, frame=made.frame).pixels
    assert (info.height, info.width, 4 if info.has_alpha else 3) == pixels.shape
    assert pixels.shape == made.pixels.shape


@pytest.mark.parametrize("torch_free", [False, True], ids=["here", "in a worker"])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_pixels_are_those_of_another_reader(name: str, torch_free: bool) -> None:
    made = variant(name)
    info = image_info(made.data, sniff(made.data), frame=made.frame)
    pixels = decode_image(made.data, info, frame=made.frame, torch_free=torch_free).pixels
    assert pixels.dtype == np.uint8
    if made.tolerance == 0:
        assert np.array_equal(pixels, made.pixels)
    else:
        assert np.abs(pixels.astype(float) - made.pixels).max() <= made.tolerance


@pytest.mark.parametrize("name", VARIANTS)
def test_both_ways_give_the_same_pixels(name: str) -> None:
    made = variant(name)
    info = image_info(made.data, sniff(made.data), frame=made.frame)
    here, there = (decode_image(made.data, info, frame=made.frame, torch_free=free).pixels for free in (False, True))
    assert np.array_equal(here, there)
