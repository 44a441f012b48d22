"""Resampling on the CPU is librosa's default."""

from __future__ import annotations

import numpy as np
import pytest

from gpuflow.ops.audio import resample
from tests.parity.mel_signals import RATE, noise
from tests.parity.tolerances import TOLERANCES


@pytest.mark.parametrize("from_hz", [8_000, 22_050, 44_100, 48_000])
def test_resampling_equals_librosas_default(from_hz: int) -> None:
    import librosa

    signal = np.stack([noise(from_hz), noise(from_hz + 1)[:-1]])
    expected = librosa.resample(signal, orig_sr=from_hz, target_sr=RATE, res_type="soxr_hq")
    got = resample(signal, from_hz, RATE)
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    assert np.abs(got - expected).max() <= TOLERANCES["resample/soxr"].max_abs
