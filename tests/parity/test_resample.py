"""Resampling: soxr by itself on the CPU, and soxr's filter as a table, against soxr and against tones."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.errors import LimitExceeded, NoSuchStream
from gpuflow.ops import resample_table as tables
from gpuflow.ops.audio import resample, result_count, to_rate
from gpuflow.ops.resample_table import NoTable, ResampleTable, resample_table, resampled_count
from tests.parity.tolerances import TOLERANCES

PAIRS = (
    (8_000, 16_000), (11_025, 16_000), (12_000, 16_000), (22_050, 16_000), (24_000, 16_000), (32_000, 16_000),
    (44_100, 16_000), (48_000, 16_000), (96_000, 16_000), (192_000, 16_000), (16_000, 8_000), (16_000, 24_000),
    (16_000, 44_100), (16_000, 48_000), (44_100, 48_000), (48_000, 44_100), (8_000, 48_000), (96_000, 44_100),
    (192_000, 44_100), (4_000, 192_000), (192_000, 4_000),
)  # fmt: skip
LEAST_SNR_DB = 110.0
RATES = st.sampled_from(
    [*range(4_000, 48_001, 1_000), 11_025, 22_050, 44_100, 88_200, 176_400, 96_000, 192_000, 5_512, 18_900]
)
NO_LIMITS = Limits(min_sample_rate_hz=1, max_sample_rate_hz=655_350, max_pcm_bytes=1 << 40)


def noise(count: int) -> NDArray[np.float32]:
    """White, at a fifth of full scale."""
    return (0.2 * np.random.default_rng(count).standard_normal(count)).astype(np.float32)


def by_soxr(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float64]:
    return np.asarray(soxr.resample(samples, from_hz, to_hz, quality="HQ"), np.float64)


def by_table(samples: NDArray[np.float32], table: ResampleTable, count: int) -> NDArray[np.float64]:
    """The sums that the table's docstring has, in float64."""
    after = np.zeros(table.taps + count * table.down // table.up)
    padded = np.concatenate([np.zeros(table.before), samples, after])
    columns = [k if k < table.starts else table.starts + k % table.up for k in range(count)]
    rows = table.weights.transpose(1, 0, 2).reshape(table.starts + table.up, -1)
    return np.array(
        [rows[column] @ padded[k * table.down // table.up :][: table.taps] for k, column in enumerate(columns)]
    )


def snr_db(found: NDArray[Any], expected: NDArray[np.float64]) -> float:
    error = float(((np.asarray(found, np.float64) - expected) ** 2).sum())
    return 10 * math.log10(float((expected**2).sum()) / max(error, 1e-300))


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_the_table_gives_what_soxr_gives_from_the_first_sample_to_the_last(from_hz: int, to_hz: int) -> None:
    samples = noise(max(3_000, 12 * from_hz // 192))
    expected = by_soxr(samples, from_hz, to_hz)[:20_000]
    table = resample_table(from_hz, to_hz)
    assert isinstance(table, ResampleTable)
    found = by_table(samples, table, len(expected))
    assert snr_db(found, expected) >= LEAST_SNR_DB
    for part in (slice(0, 8), slice(0, 100), slice(-100, None)):
        assert snr_db(found[part], expected[part]) >= LEAST_SNR_DB - 10, "fewer samples, of less power"


def test_without_rows_of_their_own_the_first_outputs_would_be_a_thousandth_off() -> None:
    table = resample_table(192_000, 16_000)
    assert isinstance(table, ResampleTable)
    assert table.starts > 8
    samples = noise(12_000)
    expected = by_soxr(samples, 192_000, 16_000)
    periodic = ResampleTable(table.up, table.down, table.before, 0, table.weights[:, table.starts :])
    found = by_table(samples, periodic, len(expected))
    assert snr_db(found[8:100], expected[8:100]) < 100
    assert np.abs(found - expected)[:100].max() > 1e-4
    assert snr_db(found[2 * table.starts :], expected[2 * table.starts :]) >= LEAST_SNR_DB


@settings(max_examples=25, deadline=None)
@given(from_hz=RATES, to_hz=RATES, count=st.integers(1, 4_000))
@example(from_hz=18_900, to_hz=11_025, count=1)
@example(from_hz=47_000, to_hz=46_000, count=700)
@example(from_hz=192_000, to_hz=11_025, count=2_000)
@example(from_hz=5_512, to_hz=31_000, count=210)
def test_odd_ratios_and_lengths_have_a_table_that_holds_or_none(from_hz: int, to_hz: int, count: int) -> None:
    table = resample_table(from_hz, to_hz)
    if isinstance(table, NoTable):
        assert "on the CPU" in table.reason
        return
    samples = noise(count)
    expected = by_soxr(samples, from_hz, to_hz)
    found = by_table(samples, table, min(len(expected), 3_000))
    error = np.abs(found - expected[: len(found)])
    assert len(error) == 0 or error.max() <= 3e-6, f"{error.max()}: 110 dB under full scale"


@settings(max_examples=300, deadline=None)
@given(from_hz=st.one_of(RATES, st.integers(1_000, 192_000)), to_hz=RATES, count=st.integers(1, 50_000))
@example(from_hz=16_000, to_hz=11_025, count=320)
@example(from_hz=12_000, to_hz=11_025, count=35_440)
@example(from_hz=24_000, to_hz=44_100, count=3_880)
def test_the_number_of_samples_is_soxrs(from_hz: int, to_hz: int, count: int) -> None:
    assert resampled_count(count, from_hz, to_hz) == len(by_soxr(np.zeros(count, np.float32), from_hz, to_hz))


@pytest.mark.parametrize(
    ("from_hz", "to_hz", "why"),
    [
        (44_100, 47_999, "47999 phases|6857 phases"),
        (655_350, 16_000, "320 phases of 8520 taps"),
        (1, 16_000, "more than 64-fold"),
        (655_350, 1, "more than 64-fold"),
        (16_000, 15_999, "15999 phases"),
    ],
)
def test_a_ratio_whose_table_would_be_large_is_left_to_the_cpu_and_says_so(from_hz: int, to_hz: int, why: str) -> None:
    table = resample_table(from_hz, to_hz)
    assert isinstance(table, NoTable)
    assert table.reason.startswith(f"{from_hz} to {to_hz} Hz is resampled on the CPU: ")
    assert any(part in table.reason for part in why.split("|"))


def test_a_ratio_at_which_soxr_does_not_do_what_the_table_does_is_left_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "LEAST_SNR_DB", 200.0)
    table = tables._checked(1, 2)
    assert isinstance(table, NoTable)
    assert "soxr is not periodic there" in table.reason


def test_more_phases_than_soxr_keeps_are_left_to_the_cpu() -> None:
    """It interpolates between 3,875, and only the first outputs, which have rows of their own, would equal the table's."""
    table = resample_table(5_512, 31_000)
    assert isinstance(table, NoTable)
    assert "soxr is not periodic there, 10" in table.reason


def test_a_table_is_found_out_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_KEPT", tables._Cache())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: resample_table(32_000, 24_000), range(16)))
    assert all(table is found[0] for table in found)
    assert resample_table(8_000, 6_000) is found[0], "the ratio counts, not the rates"


def test_tables_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tables._Cache()
    monkeypatch.setattr(tables, "_KEPT", cache)
    monkeypatch.setattr(tables, "MAX_CACHE_BYTES", 1_000_000)
    first = resample_table(3_000, 1_000)
    for rate in (4_000, 5_000, 7_000, 9_000, 11_000, 13_000):
        resample_table(rate, 2_000)
        resample_table(3_000, 1_000)
        assert sum(map(tables._nbytes, cache._tables.values())) <= 1_000_000
    assert resample_table(3_000, 1_000) is first, "what is used stays"
    assert len(cache._tables) < 7


TONES = [(655_350, 16_000), (192_000, 4_000), (48_000, 16_000), (44_100, 16_000), (96_000, 44_100), (44_100, 47_999)]
UP_TONES = [(4_000, 192_000), (8_000, 16_000), (16_000, 44_100), (1, 1_000), (1_000, 655_350)]


def _resampled_tone(from_hz: int, to_hz: int, frequency: float) -> NDArray[np.float64]:
    """The middle half of a tone of full scale."""
    count = max(from_hz, 800)
    tone = np.sin(2 * np.pi * frequency * np.arange(count) / from_hz).astype(np.float32)
    found = np.asarray(resample(tone[None], from_hz, to_hz)[0], np.float64)
    return found[len(found) // 4 : 3 * len(found) // 4]


@pytest.mark.parametrize(("from_hz", "to_hz"), [*TONES, *UP_TONES])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.85])
def test_a_tone_is_kept_at_every_rate(from_hz: int, to_hz: int, share: float) -> None:
    frequency = share * min(from_hz, to_hz) / 2
    found = _resampled_tone(from_hz, to_hz, frequency)
    angles = 2 * np.pi * frequency / to_hz * np.arange(len(found))
    waves = np.stack([np.sin(angles), np.cos(angles)], 1)
    fitted = np.linalg.lstsq(waves, found, rcond=None)[0]
    assert abs(20 * math.log10(float(np.hypot(*fitted)))) < 0.03, "decibels"
    assert snr_db(found, waves @ fitted) >= LEAST_SNR_DB


@pytest.mark.parametrize(("from_hz", "to_hz"), [pair for pair in TONES if pair[0] > 1.2 * pair[1]])
@pytest.mark.parametrize("share", [1.025, 1.1, 1.19])
def test_what_a_lower_rate_cannot_hold_is_gone(from_hz: int, to_hz: int, share: float) -> None:
    power = float((_resampled_tone(from_hz, to_hz, share * to_hz / 2) ** 2).mean())
    assert 10 * math.log10(power / 0.5) <= -100


@pytest.mark.parametrize("from_hz", [8_000, 22_050, 44_100, 48_000])
def test_each_channel_is_resampled_for_itself_as_librosa_does_by_default(from_hz: int) -> None:
    import librosa

    samples = np.stack([noise(3_000), noise(3_001)[:-1], noise(3_002)[:-2]])
    found = resample(samples, from_hz, 16_000)
    assert found.flags.c_contiguous
    for channel, alone in zip(found, samples, strict=True):
        np.testing.assert_array_equal(channel, resample(alone[None], from_hz, 16_000)[0])
    expected = librosa.resample(samples, orig_sr=from_hz, target_sr=16_000, res_type="soxr_hq", fix=False)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCES["resample/soxr"].max_abs


@pytest.mark.parametrize(("from_hz", "to_hz"), [(1, 4_097), (4_097, 1), (1, 655_350), (655_350, 1)])
def test_a_rate_that_soxr_would_take_seconds_for_or_never_end_is_refused(from_hz: int, to_hz: int) -> None:
    with pytest.raises(LimitExceeded, match="4096-fold at most"):
        to_rate(noise(100)[None], from_hz, to_hz, mono=True, limits=NO_LIMITS)


@pytest.mark.parametrize(("from_hz", "to_hz", "count"), [(1, 4_096, 10), (655_350, 160, 655_350), (4_000, 1, 9_000)])
def test_the_widest_ratios_are_resampled(from_hz: int, to_hz: int, count: int) -> None:
    found = to_rate(noise(count)[None], from_hz, to_hz, mono=True, limits=NO_LIMITS)
    assert found.shape == (1, result_count(count, from_hz, to_hz, channels=1, limits=NO_LIMITS))
    assert np.isfinite(found).all()


def test_what_would_be_too_large_or_nothing_is_refused_before_it_is_made() -> None:
    with pytest.raises(LimitExceeded, match="max_pcm_bytes is 1000"):
        to_rate(noise(200)[None], 8_000, 16_000, mono=True, limits=Limits(max_pcm_bytes=1_000))
    with pytest.raises(NoSuchStream, match="1 samples at 48000 Hz are less than one at 16000 Hz"):
        to_rate(noise(1)[None], 48_000, 16_000, mono=True, limits=Limits())
