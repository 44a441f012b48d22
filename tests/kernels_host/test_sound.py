"""Stored PCM to waveforms by the kernels' own source, run on the host, against libsndfile, soxr and the CPU's route. On a GPU,
the same through the real thing."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, InvalidOptions, LimitExceeded, NoSuchStream
from gpuflow.media import block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.ops import sound_plan as planning
from gpuflow.ops.audio import down_mix, to_rate
from gpuflow.ops.audio_gpu import Placing, WaveClip, batch_launches, place_on_gpu
from gpuflow.ops.pcm import PcmSamples, require_numbers, to_float
from gpuflow.ops.pcm_kernel import SoundJob
from gpuflow.ops.resample_table import MAX_CACHE_BYTES, ResampleTable, resample_table
from gpuflow.ops.sound_plan import sound_plan
from gpuflow.ops.tables import MAX_TABLE_BYTES
from tests.kernels_host.building import HostTables
from tests.kernels_host.check_image_views import HostMemory
from tests.kernels_host.conftest import Run
from tests.kernels_host.sound_routes import LIMITS, waves
from tests.kernels_host.sounds import ENCODINGS, levels, stored
from tests.parity.test_resample import LEAST_SNR_DB, PAIRS, by_soxr, noise, snr_db
from tests.parity.tolerances import TOLERANCES

ANY_RATE = range(1, 400_000)
SUBTYPES = {"u8": "PCM_U8", "s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "f64": "DOUBLE"}
SUBTYPES |= {"mulaw": "ULAW", "alaw": "ALAW"}


def wave(run: Run, pcm: PcmSamples, to_hz: int | None = None, *, mono: bool = True) -> NDArray[np.float32]:
    return waves(run, [sound_plan(pcm, to_hz, mono=mono, limits=LIMITS)])[0]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_stored_clip_is_what_libsndfile_reads_and_its_mean_is_numpys(
    run_on_host: Run, encoding: Any, channels: int
) -> None:
    file = io.BytesIO()
    sound = np.random.default_rng(channels).uniform(-1, 1, (3_000, channels))
    soundfile.write(file, sound, 8_000, format="WAV", subtype=SUBTYPES[encoding])
    data = file.getvalue()
    at = data.index(b"data") + 8
    nbytes = int.from_bytes(data[at - 4 : at], "little")
    pcm = PcmSamples(data[at : at + nbytes], encoding, channels, 3_000, 8_000)
    read = np.ascontiguousarray(soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T)
    np.testing.assert_array_equal(to_float(pcm), read)
    np.testing.assert_array_equal(wave(run_on_host, pcm, mono=False), read)
    np.testing.assert_array_equal(wave(run_on_host, pcm), down_mix(read))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_on_the_host_every_encoding_has_the_same_values(encoding: Any) -> None:
    for interleaved in (True, False):
        pcm = stored(encoding, 3, 500, interleaved=interleaved)
        np.testing.assert_array_equal(to_float(pcm), levels(pcm))
        np.testing.assert_array_equal(to_float(pcm.head(77)), levels(pcm)[:, :77])


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_the_kernel_gives_what_soxr_gives(run_on_host: Run, from_hz: int, to_hz: int) -> None:
    samples = noise(max(6_000, from_hz // 12))
    expected = by_soxr(samples, from_hz, to_hz)
    with patch.object(planning, "USUAL_RATES_HZ", ANY_RATE):
        found = wave(run_on_host, PcmSamples.of(samples[None], from_hz), to_hz)[0]
    assert len(found) == len(expected)
    assert snr_db(found, expected) >= LEAST_SNR_DB
    assert snr_db(found[8:], expected[8:]) >= LEAST_SNR_DB


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    from_hz=st.sampled_from([*range(4_000, 48_001, 500), 11_025, 22_050, 44_100, 96_000]),
    to_hz=st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100]),
    count=st.integers(1, 3_000),
    channels=st.integers(1, 3),
    mono=st.booleans(),
)
@example(from_hz=44_100, to_hz=16_000, count=2, channels=2, mono=True)
@example(from_hz=47_500, to_hz=44_100, count=999, channels=2, mono=False)
def test_odd_ratios_lengths_and_channels_are_the_cpus_route(
    run_on_host: Run, from_hz: int, to_hz: int, count: int, channels: int, mono: bool
) -> None:
    pcm = stored("s16", channels, count, rate=from_hz)
    try:
        expected = to_rate(to_float(pcm), from_hz, to_hz, mono=mono, limits=LIMITS)
    except NoSuchStream:
        with pytest.raises(NoSuchStream):
            sound_plan(pcm, to_hz, mono=mono, limits=LIMITS)
        return
    with patch.object(planning, "USUAL_RATES_HZ", ANY_RATE):
        found = wave(run_on_host, pcm, to_hz, mono=mono)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCES["resample/kernel"].max_abs


@pytest.mark.parametrize("frequency", [8_200, 8_500, 10_000, 15_000, 22_000])
def test_nothing_from_above_8200_hz_comes_back_below(run_on_host: Run, frequency: int) -> None:
    tone = np.sin(2 * np.pi * frequency * np.arange(22_050) / 44_100).astype(np.float32)
    found = wave(run_on_host, PcmSamples.of(tone[None], 44_100), 16_000)[0][1_000:-1_000].astype(np.float64)
    assert 10 * math.log10(float((found**2).mean()) / 0.5) <= -100


def test_clips_of_many_rates_and_encodings_side_by_side_are_as_alone(run_on_host: Run) -> None:
    clips = [
        stored(encoding, 1 + number % 2, 1_000 + 37 * number, rate=rate, interleaved=number % 3 > 0)
        for number, (encoding, rate) in enumerate(
            zip(ENCODINGS, (8_000, 16_000, 44_100, 48_000, 44_100, 192_000, 8_000, 16_000), strict=True)
        )
    ]
    plans = [sound_plan(pcm, 16_000, mono=number % 2 == 0, limits=LIMITS) for number, pcm in enumerate(clips)]
    for plan, found in zip(plans, waves(run_on_host, plans), strict=True):
        np.testing.assert_array_equal(found, waves(run_on_host, [plan])[0])


def test_one_launch_serves_all_ratios_that_need_as_much_shared_memory() -> None:
    rates = (44_100, 48_000, 22_050, 44_100, 16_000, 192_000)
    plans = [sound_plan(stored("s16", 2, 4_000, rate=rate), 16_000, limits=LIMITS) for rate in rates]
    outs = [np.empty(plan.shape, np.float32) for plan in plans]
    memory = HostMemory()
    launches = batch_launches(
        [WaveClip(plan, int(out.ctypes.data)) for plan, out in zip(plans, outs, strict=True)],
        tables=HostTables(), upload=memory.upload, scratch=memory.scratch,
    )  # fmt: skip
    names = [launch.name for launch in launches]
    assert names == ["audio/pcm", *["audio/resample"] * 3]
    shared = [launch.shared_bytes for launch in launches[1:]]
    assert shared == sorted(set(shared))
    assert max(shared) <= 48 << 10, "what every GPU has"


def test_only_what_the_outputs_see_is_kept_of_a_long_clip(run_on_host: Run) -> None:
    for interleaved in (True, False):
        pcm = stored("s16", 2, 30_000, interleaved=interleaved)
        plan = sound_plan(pcm, 16_000, limits=LIMITS, max_outputs=1_000)
        assert plan.shape == (1, 1_000)
        assert plan.pcm.count < 1_000 * 44_100 // 16_000 + 300
        np.testing.assert_array_equal(waves(run_on_host, [plan])[0], wave(run_on_host, pcm, 16_000)[:, :1_000])


@pytest.mark.parametrize(("from_hz", "to_hz", "odd"), [(7_919, 16_000, 7_919), (44_100, 15_999, 15_999)])
def test_no_rate_of_a_file_makes_anybody_find_out_a_table(
    from_hz: int, to_hz: int, odd: int, run_on_host: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(from_hz: int, to_hz: int) -> None:
        raise AssertionError("whoever sends a file could make it wait, and others")

    monkeypatch.setattr(planning, "resample_table", refuse)
    pcm = stored("s16", 1, 64, rate=from_hz)
    plan = sound_plan(pcm, to_hz, limits=LIMITS)
    assert plan.fallback == f"{from_hz} to {to_hz} Hz is resampled on the CPU: {odd} Hz is no usual rate"
    expected = to_rate(to_float(pcm), from_hz, to_hz, mono=True, limits=LIMITS)
    np.testing.assert_array_equal(waves(run_on_host, [plan])[0], expected)


def test_all_tables_that_anybody_can_ask_for_have_room_at_once() -> None:
    rates = sorted(planning.USUAL_RATES_HZ)
    found = {
        (table.up, table.down): table
        for from_hz, to_hz in itertools.permutations(rates, 2)
        if isinstance(table := resample_table(from_hz, to_hz), ResampleTable)
    }
    assert len(found) == 54, "every ratio has one"
    nbytes = sum(table.weights.nbytes for table in found.values())
    assert nbytes <= MAX_CACHE_BYTES
    assert nbytes <= MAX_TABLE_BYTES / 2, "they leave room to the pictures' tables"
    assert all(resample_table(table.down, table.up) is table for table in found.values()), "none was found out twice"


def test_a_ratio_without_a_table_is_resampled_by_the_cpu_which_says_so(run_on_host: Run) -> None:
    pcm = stored("s16", 2, 5_000)
    plan = sound_plan(pcm, 47_999, limits=LIMITS)
    assert plan.fallback is not None
    assert "44100 to 47999 Hz is resampled on the CPU" in plan.fallback
    assert plan.table is None
    np.testing.assert_array_equal(
        waves(run_on_host, [plan])[0], to_rate(to_float(pcm), 44_100, 47_999, mono=True, limits=LIMITS)
    )


def test_a_clip_is_held_to_the_limits_before_anything_is_made() -> None:
    with pytest.raises(LimitExceeded, match="max_pcm_bytes is 1000"):
        sound_plan(stored("s16", 2, 500), 44_100, limits=Limits(max_pcm_bytes=1_000))
    with pytest.raises(NoSuchStream, match="less than one"):
        sound_plan(stored("s16", 2, 1), 16_000, limits=LIMITS)


@pytest.mark.parametrize("interleaved", [True, False])
def test_a_part_of_a_clip_is_that_part_of_its_samples(interleaved: bool) -> None:
    pcm = stored("s24", 3, 500, interleaved=interleaved)
    for first, last in ((0, 500), (7, 90), (480, 900), (600, 700)):
        np.testing.assert_array_equal(to_float(pcm.part(first, last)), levels(pcm)[:, first:last])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2.2e9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stored_floats_that_are_no_numbers_are_refused(wrong: float, dtype: str) -> None:
    samples = np.linspace(-1, 1, 50, dtype=dtype)[None]
    require_numbers(PcmSamples.of(samples, 8_000))
    samples[0, 30] = wrong
    with pytest.raises(CorruptMedia, match="infinite or no numbers"):
        require_numbers(PcmSamples.of(samples, 8_000))
    require_numbers(stored("s16", 2, 9))
    require_numbers(PcmSamples(b"", "f32", 1, 0, 8_000))


def test_clips_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(InvalidOptions, match="encoding is one of u8"):
        PcmSamples(b"", "s20", 1, 0, 8_000)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptions, match="3 frames of 2 s16 samples are 12 bytes; got 11"):
        PcmSamples(bytes(11), "s16", 2, 3, 8_000)
    with pytest.raises(InvalidOptions, match="0 and 8000 Hz"):
        PcmSamples(b"", "s16", 0, 0, 8_000)
    for wrong in (np.zeros(5, np.float32), np.zeros((2, 5), np.complex64)):
        with pytest.raises(InvalidOptions, match=r"decoded sound is \(channels, n\)"):
            PcmSamples.of(wrong, 8_000)
    with pytest.raises(InvalidOptions, match="lie one after another"):
        PcmSamples(np.zeros((5, 2), np.int16).T, "s16", 2, 5, 8_000)
    assert PcmSamples(b"", "s16", 2, 0, 8_000).bytes_on_host().size == 0
    odd = np.zeros(9, np.uint8)[1:]
    with pytest.raises(InvalidOptions, match="f64 begins at a multiple of 8 bytes"):
        SoundJob(PcmSamples(odd, "f64", 1, 1, 8_000), 64, 1)
    with pytest.raises(InvalidOptions, match="float32 begins at a multiple of 4 bytes; got 66"):
        SoundJob(PcmSamples(odd, "u8", 1, 8, 8_000), 66, 8)


@pytest.mark.gpu
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_on_a_gpu_a_waveform_is_the_cpus_route(encoding: Any, run_on_host: Run) -> None:
    pcm = stored(encoding, 2, 40_000)
    with Slab("64MiB", device="cuda") as gpu:
        for to_hz, mono in ((None, True), (None, False), (16_000, True), (48_000, False)):
            plan = sound_plan(pcm, to_hz, mono=mono, limits=LIMITS)
            specs = lay_out({"waveform": ("float32", plan.shape)})
            with gpu.allocate(block_bytes(specs)) as lease:
                place_on_gpu([Placing(plan, lease, specs)])
                lease.synchronize()
                found = lease.array(specs[0]).get()
            np.testing.assert_array_equal(found, waves(run_on_host, [plan])[0])
