"""Tables of the antialiased resize against torchvision's uint8 path, over sizes that no picture of a test has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from gpuflow.errors import InvalidOptions
from gpuflow.ops.taps import Taps, has_taps, taps

MODES: dict[Any, InterpolationMode] = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
SIDES = st.one_of(st.integers(1, 300), st.sampled_from([1_079, 2_160, 7_680, 16_384]))


def _gathered(levels: NDArray[np.uint8], table: Taps) -> NDArray[np.uint8]:
    sums = [
        (table.weights[i, :count].astype(np.int64) * levels[first : first + count]).sum()
        for i, (first, count) in enumerate(table.spans)
    ]
    return (np.array(sums) + (1 << (table.precision - 1)) >> table.precision).clip(0, 255).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(SIDES, st.one_of(st.integers(1, 300), st.just(2_048)), st.sampled_from(sorted(MODES)), st.integers(0, 2**32))
def test_a_line_gathered_by_the_table_equals_torchvisions(source: int, target: int, resample: Any, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, source, dtype=np.uint8)
    picture = torch.from_numpy(levels).expand(3, 2, source).contiguous()
    expected = functional.resize(picture, [2, target], MODES[resample], antialias=True)
    np.testing.assert_array_equal(_gathered(levels, taps(source, target, resample)), expected[0, 0].numpy())


@pytest.mark.parametrize("resample", MODES)
@pytest.mark.parametrize(("source", "target"), [(1, 65_536), (65_536, 1), (65_536, 3), (2, 40_000)])
def test_the_largest_sides_stay_in_range_and_keep_a_flat_picture_flat(source: int, target: int, resample: Any) -> None:
    table = taps(source, target, resample)
    firsts, counts = table.spans[:, 0].astype(int), table.spans[:, 1].astype(int)
    assert firsts.min() >= 0
    assert (firsts + counts).max() <= source
    assert (np.diff(firsts) >= 0).all()
    assert (np.diff(firsts + counts) >= 0).all()
    largest = 255 * np.abs(table.weights.astype(int)).sum(1).max() + (1 << (table.precision - 1))
    assert largest < 2**31, "the kernel sums in 32 bits"
    flat = 255 * table.weights.astype(int).sum(1) + (1 << (table.precision - 1)) >> table.precision
    assert (np.abs(flat.clip(0, 255) - 255) <= 2).all()


def test_the_same_size_is_a_copy() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(_gathered(levels, taps(256, 256, "bicubic")), levels)


def test_what_is_no_table_is_refused() -> None:
    assert [has_taps(resample) for resample in ("bilinear", "bicubic", "nearest", "lanczos")] == [
        True,
        True,
        False,
        False,
    ]
    for wrong in ((0, 5, "bicubic"), (5, 65_537, "bicubic"), (5, 6, "lanczos")):
        with pytest.raises(InvalidOptions):
            taps(*wrong)
