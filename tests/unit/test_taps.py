"""Tables of the resize against torchvision's uint8 path and Pillow's, over sizes that no picture of a test has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from gpuflow.errors import InvalidOptions
from gpuflow.ops.resize import resize_planar
from gpuflow.ops.taps import Taps, axis_table, taps

MODES: dict[Any, InterpolationMode] = {
    "nearest": InterpolationMode.NEAREST_EXACT,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
TABLES: list[Any] = [
    *(("torchvision", resample) for resample in MODES),
    *(("pillow", resample) for resample in FILTERS),
]
SIDES = st.one_of(st.integers(1, 300), st.sampled_from([1_079, 2_160, 7_680, 16_384]))
TARGETS = st.one_of(st.integers(1, 300), st.just(2_048))


def _gathered(levels: NDArray[np.uint8], table: Taps) -> NDArray[np.uint8]:
    """Along the first axis."""
    sums = [
        np.tensordot(table.weights[i, :count].astype(np.int64), levels[first : first + count].astype(np.int64), 1)
        for i, (first, count) in enumerate(table.spans)
    ]
    return (np.stack(sums) + (1 << (table.precision - 1)) >> table.precision).clip(0, 255).astype(np.uint8)


@settings(max_examples=200, deadline=None)
@given(SIDES, TARGETS, st.sampled_from(sorted(MODES)), st.integers(0, 2**32))
def test_a_line_gathered_by_the_table_equals_torchvisions(source: int, target: int, resample: Any, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, source, dtype=np.uint8)
    picture = torch.from_numpy(levels).expand(3, 2, source).contiguous()
    expected = functional.resize(picture, [2, target], MODES[resample], antialias=True)
    np.testing.assert_array_equal(_gathered(levels, taps(source, target, resample)), expected[0, 0].numpy())


@settings(max_examples=300, deadline=None)
@given(SIDES, TARGETS, st.sampled_from(FILTERS), st.integers(0, 2**32))
def test_a_line_gathered_by_the_table_equals_pillows(source: int, target: int, resample: Any, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, source, dtype=np.uint8)
    expected = Image.fromarray(levels[None]).resize((target, 1), Image.Resampling[resample.upper()])
    found = _gathered(levels, taps(source, target, resample, reference="pillow"))
    np.testing.assert_array_equal(found, np.array(expected)[0])


@settings(max_examples=120, deadline=None)
@given(*[st.integers(1, 120)] * 4, st.sampled_from(FILTERS), st.integers(0, 2**32))
def test_two_passes_by_the_tables_equal_pillow_in_both_orders(
    height: int, width: int, down: int, across: int, resample: Any, seed: int
) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = (taps(*sides, resample, reference="pillow") for sides in ((height, down), (width, across)))
    planar = torch.from_numpy(levels).permute(2, 0, 1)
    wanted = {
        passes: resize_planar(planar, (down, across), resample, reference="pillow", passes=passes)
        .permute(1, 2, 0)
        .numpy()
        for passes in ("horizontal_first", "vertical_first", "pillow")
    }
    turned = _gathered(levels.swapaxes(0, 1), columns).swapaxes(0, 1)
    horizontal_first = _gathered(turned, rows)
    vertical_first = _gathered(_gathered(levels, rows).swapaxes(0, 1), columns).swapaxes(0, 1)
    np.testing.assert_array_equal(horizontal_first, wanted["horizontal_first"])
    np.testing.assert_array_equal(vertical_first, wanted["vertical_first"])
    in_its_own_order = Image.fromarray(levels).resize((across, down), Image.Resampling[resample.upper()])
    np.testing.assert_array_equal(np.array(in_its_own_order), wanted["pillow"])


@pytest.mark.parametrize(("reference", "resample"), TABLES, ids=str)
@pytest.mark.parametrize(("source", "target"), [(1, 65_536), (65_536, 1), (65_536, 3), (2, 40_000), (7, 65_000)])
def test_the_largest_sides_stay_in_range_and_keep_a_flat_picture_flat(
    source: int, target: int, reference: Any, resample: Any
) -> None:
    table = taps(source, target, resample, reference=reference)
    firsts, counts = table.spans[:, 0].astype(int), table.spans[:, 1].astype(int)
    assert firsts.min() >= 0
    assert counts.min() >= 1
    assert (firsts + counts).max() <= source
    assert (np.diff(firsts) >= 0).all()
    assert (np.diff(firsts + counts) >= 0).all()
    flat = 255 * table.weights.astype(int).sum(1) + (1 << (table.precision - 1)) >> table.precision
    assert (np.abs(flat.clip(0, 255) - 255) <= 2).all()


@pytest.mark.parametrize(("reference", "resample"), TABLES, ids=str)
def test_sums_have_room_in_32_bits(reference: Any, resample: Any) -> None:
    largest = 0.0
    for source in (*range(1, 65), 100, 1_079, 4_000):
        for target in (*range(1, 65), 224, 1_000, 5_001):
            table = taps(source, target, resample, reference=reference)
            half = 1 << (table.precision - 1)
            largest = max(largest, 255 * int(np.abs(table.weights.astype(int)).sum(1).max()) + half)
    assert largest <= 0.8 * 2**31, "the bound that kernels/resize.cuh names"


@pytest.mark.parametrize("resample", FILTERS)
def test_the_same_size_is_a_copy(resample: Any) -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(_gathered(levels, taps(256, 256, resample)), levels)


@pytest.mark.parametrize(("canvas", "offset"), [(9, 0), (5, 0), (5, -2), (14, 3), (5, 3), (7, -6), (4, 9), (3, -20)])
def test_a_table_on_a_canvas_has_no_samples_where_the_picture_does_not_reach(canvas: int, offset: int) -> None:
    whole = taps(20, 9, "bicubic")
    placed = whole.placed(canvas, offset, 20)
    for sample in range(canvas):
        inside = 0 <= sample - offset < 9
        assert (placed.spans[sample, 1] > 0) == inside
        if inside:
            np.testing.assert_array_equal(placed.spans[sample], whole.spans[sample - offset])
            np.testing.assert_array_equal(placed.weights[sample], whole.weights[sample - offset])
    assert (np.diff(placed.spans[:, 0]) >= 0).all()
    assert (np.diff(placed.spans.sum(1)) >= 0).all()


def test_a_packed_table_is_the_step_the_precision_and_each_samples_span_and_weights() -> None:
    table = taps(20, 9, "lanczos")
    packed = axis_table(20, 9, "lanczos", canvas=9, offset=0)
    assert packed.dtype == np.int32
    assert packed[:2].tolist() == [2 + table.weights.shape[1], 22]
    samples = packed[2:].reshape(9, -1)
    np.testing.assert_array_equal(samples[:, :2], table.spans)
    np.testing.assert_array_equal(samples[:, 2:], table.weights)


def test_a_side_that_no_table_has_is_refused() -> None:
    for wrong in ((0, 5), (5, 65_537)):
        with pytest.raises(InvalidOptions, match="a side lies in"):
            taps(*wrong, "bicubic")
