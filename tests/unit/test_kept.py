"""Decoded samples in one array that grows, whatever a header claimed."""

from __future__ import annotations

import numpy as np
import pytest

from gpuflow.codecs.kept import Kept, mean_into


@pytest.mark.parametrize("expected", [0, 70_000, 10**15])
@pytest.mark.parametrize("rows", [1, 2, 64])
def test_blocks_stand_one_after_another_whatever_was_claimed(rows: int, expected: int) -> None:
    rng, kept = np.random.default_rng(rows), Kept(rows, np.dtype(np.int16), expected)
    blocks = [rng.integers(-9, 9, (rows, count), dtype=np.int16) for count in (1, 20_000, 3, 50_000, 200_000)]
    for block in blocks:
        kept.room(block.shape[1])[...] = block
    assert kept.count == 270_004
    assert kept.samples().flags.c_contiguous
    assert np.array_equal(kept.samples(), np.concatenate(blocks, axis=1))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", [1, 2, 3, 9, 64])
def test_the_mean_of_channels_is_exactly_that_of_numpy(channels: int, order: str) -> None:
    rng = np.random.default_rng(channels)
    samples = (rng.standard_normal((channels, 10_007)) * 10.0 ** rng.integers(-30, 9, 10_007)).astype(np.float32)
    out = np.empty(10_007, np.float32)
    mean_into(out, samples if order == "C" else np.asfortranarray(samples))
    assert np.array_equal(out, samples.mean(axis=0))
