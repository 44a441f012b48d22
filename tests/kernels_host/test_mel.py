"""The mel kernels on the host against a float64 reference, for every spec and kind of sound; on a GPU against the same."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.ops.audio_gpu import FeatureClip, sound_kernels
from gpuflow.ops.kernels import source
from gpuflow.ops.mel import planned, write_features
from gpuflow.ops.mel_jobs import MelJob, jobs_of
from gpuflow.ops.mel_launch import GROUP_BYTES, frames_per_block, launches, mel_shared_bytes, obstacle
from gpuflow.ops.mel_records import CLIP
from gpuflow.ops.pcm import PcmSamples
from gpuflow.presets.clip_plan import ClipPlan
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import mel_plan
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names
from tests.kernels_host.building import HostTables, compile_by_nvrtc, variants
from tests.kernels_host.check_image_views import HostMemory
from tests.kernels_host.clips import Clip, Laid, linear, logs, tone_and_noise
from tests.kernels_host.conftest import Run
from tests.kernels_host.sound_routes import planned as sound_and_clip
from tests.parity.mel_reference import reference
from tests.parity.tolerances import TOLERANCES

RATE = 16_000
SPECS = {spec.name: spec for spec in map(mel_spec, mel_spec_names())}
WAVE = MelSpec("wave", kind="raw", max_samples=None, pad_to="none")


def speech(count: int) -> NDArray[np.float64]:
    """Thirty harmonics of a gliding pitch, in syllables, over faint noise."""
    time = np.arange(count) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(9 * time)) / RATE
    voice = sum(np.sin(number * phase) / number for number in range(1, 30))
    return np.asarray(0.2 * voice * np.sin(19 * time).clip(0) + 1e-3 * np.random.default_rng(3).normal(size=count))


@functools.cache
def sounds() -> dict[str, NDArray[np.float32]]:
    """A second of each kind, and less than one: no two of a length."""
    noise = np.random.default_rng(1).normal(size=RATE)
    drop = 0.3 * noise[:14_321]
    drop[5_000:] *= 1e-5
    made = {
        "speech": speech(RATE),
        "noise": 0.2 * noise[:15_001],
        "tone": 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(15_500) / RATE),
        "quiet": 1e-4 * noise[:12_345],
        "drop of 100 dB": drop,
        "short": 0.2 * noise[:900],
    }
    return {name: samples.astype(np.float32) for name, samples in made.items()}


def whole(spec: MelSpec) -> MelSpec:
    """What becomes of a clip that is short enough not to be split before its features are made."""
    return spec if spec.split in ("none", "after_mel") else replace(spec, split="none", max_splits=None)


@functools.cache
def clips_of(name: str) -> tuple[Clip, ...]:
    spec = whole(SPECS[name])
    return tuple(Clip(samples, spec) for samples in sounds().values())


@functools.cache
def expected_of(name: str) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    """Features, and levels before the logarithm; of waveforms none of these."""
    return tuple(
        (
            reference(clip.samples, clip.spec),
            linear(logs(clip), clip.spec) if clip.spec.kind == "mel" else np.zeros((1, 0)),
        )
        for clip in clips_of(name)
    )


def tolerance_of(spec: MelSpec, sound: str) -> float:
    """Of features; logarithms of a tone that nothing clamps are bounded before the logarithm alone."""
    if spec.kind == "raw":
        return TOLERANCES["mel/wave"].max_abs
    if spec.precision == "float64" and not (spec.normalize == "feature" and sound == "tone"):
        return TOLERANCES["mel/kernel-float64"].max_abs
    if spec.normalize == "feature":
        return TOLERANCES["mel/kernel-normalised"].max_abs
    if spec.clamp != "none":
        return TOLERANCES["mel/kernel"].max_abs
    return np.inf if sound == "tone" else TOLERANCES["mel/kernel-logs"].max_abs


def assert_as_the_reference(name: str, features: Sequence[NDArray[Any]]) -> None:
    for (sound, clip), found, (expected, _) in zip(
        zip(sounds(), clips_of(name), strict=True), features, expected_of(name), strict=True
    ):
        assert found.shape == expected.shape, f"{name}, {sound}"
        assert np.isfinite(found).all()
        most = tolerance_of(clip.spec, sound)
        if np.isinf(most):  # nothing was stacked, normalised or scaled: they are logarithms
            exact = linear(expected, clip.spec)
            found, expected = linear(found, clip.spec), exact
            most = TOLERANCES["mel/kernel-linear"].max_abs * exact.max()
        assert abs(found - expected).max(initial=0) <= most, f"{name}, {sound}"


@pytest.mark.parametrize("name", SPECS)
def test_a_ragged_batch_of_every_kind_of_sound_equals_the_float64_reference(run_on_host: Run, name: str) -> None:
    laid = Laid(clips_of(name))
    laid.run(run_on_host)
    assert_as_the_reference(name, [laid.features(index) for index in range(len(sounds()))])
    for index, (_, expected) in enumerate(expected_of(name)):
        if SPECS[name].kind == "mel":
            found = linear(laid.levels(index), SPECS[name])
            exact = expected[:, : found.shape[1]]
            assert (abs(found - exact) <= TOLERANCES["mel/kernel-linear"].max_abs * exact.max(axis=0)).all()


def test_all_specs_in_one_batch_are_one_sequence_of_launches_and_bit_for_bit_what_each_is_alone(
    run_on_host: Run,
) -> None:
    clips = [clip for name in SPECS for clip in clips_of(name)[::5]]
    together = Laid(clips, group_bytes=1 << 30)
    assert [launch.name.partition("/")[2] for launch in together.launches] == [
        "mel", "mel", "mel", "mel", "mel_statistics", "mel_finish", "wave_norm",
    ]  # fmt: skip
    assert [launch.defines for launch in together.launches[:4]] == [
        (("N_FFT", "400"),),
        (("N_FFT", "512"),),
        (("N_FFT", "512"), ("REAL", "double")),
        (("N_FFT", "1024"),),
    ]
    together.run(run_on_host)
    for index, clip in enumerate(clips):
        alone = Laid([clip])
        alone.run(run_on_host)
        np.testing.assert_array_equal(together.features(index).view(np.uint8), alone.features(0).view(np.uint8))


def test_groups_that_share_scratch_give_the_same_bits(run_on_host: Run) -> None:
    clips = [
        Clip(tone_and_noise(count), SPECS[name]) for name in ("whisper-80", "parakeet") for count in (900, 9_000, 5_000)
    ]
    one, many = Laid(clips), Laid(clips, group_bytes=40_000)
    assert len(many.launches) > len(one.launches)
    for laid in (one, many):
        laid.run(run_on_host)
    for index in range(len(clips)):
        np.testing.assert_array_equal(one.features(index), many.features(index))


def test_sixteen_clips_of_thirty_seconds_are_one_group_and_seventeen_are_two() -> None:
    job, asked = _job(SPECS["whisper-128"], 480_000), list[int]()

    def scratch(nbytes: int) -> int:
        asked.append(nbytes)
        return 4_096

    for count, expected in ((16, 2), (17, 4)):
        made = launches([job] * count, tables=HostTables(), upload=lambda _: 4_096, scratch=scratch)
        assert len(made) == expected
    assert asked == [asked[0]] * 2
    assert asked[0] <= GROUP_BYTES


def test_frames_of_padding_are_not_computed() -> None:
    job = _job(SPECS["qwen2.5-omni"], 48_000)
    mel, finish = launches([job], tables=HostTables(), upload=lambda _: 4_096, scratch=lambda _: 4_096)
    assert (mel.grid, job.plan.frames) == ((-(-302 // 8), 1), 30_000)
    assert finish.name == "audio/mel_finish"


@pytest.mark.parametrize("n_fft", [32, 54, 90, 240, 256, 480, 960, 2_048, 6_000])
def test_any_size_of_2_3_and_5_can_be_asked_for(run_on_host: Run, n_fft: int) -> None:
    spec = MelSpec(
        "own", max_samples=None, pad_to="none", n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 2, pad_left=n_fft // 2,
        pad_right=n_fft // 2, n_mels=8,
    )  # fmt: skip
    assert obstacle(spec) is None
    clip = Clip(tone_and_noise(5 * n_fft + 7), spec)
    laid = Laid([clip])
    laid.run(run_on_host)
    assert abs(laid.features(0) - reference(clip.samples, spec)).max() <= TOLERANCES["mel/kernel"].max_abs


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"n_fft": 404}, "twice a product of 2, 3 and 5 on a GPU; got 404"),
        ({"n_fft": 8_192}, "32 .. 6142"),
        ({"n_fft": 3_072, "precision": "float64"}, "32 .. 3070"),
        ({"n_fft": 20, "win_length": 20, "hop_length": 10, "pad_left": 10, "pad_right": 10}, "32 .. 6142"),
        ({"delta_window": 19}, "deltas reach over 17 frames on a GPU; got 19"),
        ({"delta_window": 3, "normalize": "feature"}, "deltas of normalised bands"),
    ],
    ids=str,
)
def test_what_the_kernels_do_not_make_has_a_reason(fields: dict[str, Any], reason: str) -> None:
    assert reason in str(obstacle(replace(SPECS["whisper-80"], **fields)))


def test_a_waveform_that_is_emphasised_has_a_reason() -> None:
    assert "scaled and normalised" in str(obstacle(replace(WAVE, signal_preemphasis=0.97)))


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_every_built_in_spec_has_kernels(spec: MelSpec) -> None:
    assert obstacle(spec) is None


@pytest.mark.parametrize("name", ["whisper-80", "qwen3-omni", "parakeet", "seamless-m4t", "gemma3n", "wav2vec2"])
@pytest.mark.parametrize("count", [0, 1, 150, 201])
def test_a_clip_that_is_shorter_than_a_window_gives_what_its_plan_says(run_on_host: Run, name: str, count: int) -> None:
    clip = Clip(tone_and_noise(count), SPECS[name])
    laid = Laid([clip])
    laid.run(run_on_host)
    plan = mel_plan(clip.spec, count)
    assert laid.features(0).shape == plan.shape
    if 0 not in plan.shape:
        expected = reference(clip.samples, clip.spec)
        assert abs(laid.features(0) - expected).max() <= TOLERANCES["mel/kernel-normalised"].max_abs


def test_nothing_is_launched_for_no_clips_and_for_clips_without_a_frame() -> None:
    memory = HostMemory()
    assert launches([], tables=HostTables(), upload=memory.upload, scratch=memory.scratch) == []
    assert Laid([Clip(np.zeros(0, np.float32), WAVE)]).launches == []
    assert Laid([Clip(np.zeros(0, np.float32), SPECS["gemma3n"])]).launches == []


_TINY: dict[str, Any] = {"split_frames": 100, "max_splits": 3}
_SPLIT = (
    replace(SPECS["voxtral"], pad_samples=RATE, **_TINY),
    replace(SPECS["audio-flamingo-3"], pad_samples=RATE, **_TINY),
    replace(SPECS["cohere-asr"], split_search_samples=8_000, split_window_samples=400, **_TINY),
    SPECS["qwen3-omni"],
    replace(WAVE, frame_samples=640),
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", _SPLIT, ids=lambda spec: spec.name)
def test_jobs_of_a_clip_write_what_the_cpu_writes_part_by_part(run_on_host: Run, spec: MelSpec, dtype: str) -> None:
    samples = speech(40_000).astype(np.float32)
    assert_jobs_write_what_the_cpu_writes(run_on_host, samples, planned(samples, spec, dtype=dtype))


@pytest.mark.parametrize("name", ["wav2vec2", "gemma4-unified", "qwen3-omni", "seamless-m4t"])
def test_jobs_of_windows_of_different_lengths_end_in_zeros(run_on_host: Run, name: str) -> None:
    samples = speech(12_000).astype(np.float32)
    plan = planned(samples, SPECS[name], parts=((0, 5_000), (4_000, 9_000), (8_000, 12_000)))
    assert_jobs_write_what_the_cpu_writes(run_on_host, samples, plan)


def assert_jobs_write_what_the_cpu_writes(run: Run, samples: NDArray[np.float32], plan: ClipPlan) -> None:
    spec, dtype = plan.spec, plan.dtype
    kind, shape = plan.tensors[spec.features_name]
    out = np.full(shape, 77, np.uint16 if kind == "bfloat16" else kind)
    expected = {
        name: np.empty(shape, out.dtype if kind == dtype else kind) for name, (kind, shape) in plan.tensors.items()
    }
    write_features(samples, plan, expected)
    memory, tables = HostMemory(), HostTables()
    jobs = jobs_of(plan, samples.ctypes.data, out.ctypes.data)
    for launch in launches(jobs, tables=tables, upload=memory.upload, scratch=memory.scratch):
        run(launch)
    found, theirs = (_floats(array, dtype) for array in (out, expected[spec.features_name]))
    assert found.shape == theirs.shape
    last_place = 2.0**-7 * abs(theirs) if dtype == "bfloat16" else 0
    assert (abs(found - theirs) <= last_place + TOLERANCES["mel/kernel-normalised"].max_abs).all()


def test_clips_that_are_cut_become_as_many_jobs() -> None:
    samples = speech(40_000).astype(np.float32)
    counts = [len(jobs_of(planned(samples, spec), 0, 0)) for spec in _SPLIT]
    assert counts == [1, 3, 3, 1, 1]


def _floats(array: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    whole = (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else array
    return whole.astype(np.float64)


def _numbers() -> NDArray[np.float32]:
    """Every float16, the middles between two of them and what is next to these; subnormal and too large ones."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    every = np.sort(every[np.isfinite(every)])
    middles = ((every[1:].astype(np.float64) + every[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(middles, np.float32(way)) for way in (-np.inf, np.inf)]
    random = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    special = np.array([np.inf, -np.inf, 65_519.996, 65_520.0, 1e38, 1e-40, 3.3e38], np.float32)
    return np.concatenate([every, middles, *near, special, random[np.isfinite(random)]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_rounded_to_nearest_even(run_on_host: Run, dtype: str) -> None:
    values = _numbers()
    laid = Laid([Clip(values, WAVE, dtype), Clip(np.full(3, np.nan, np.float32), WAVE, dtype)])
    laid.run(run_on_host)
    expected = torch.from_numpy(values).to(getattr(torch, dtype)).to(torch.float32).numpy()
    np.testing.assert_array_equal(laid.features(0).astype(np.float32), expected)
    assert np.isnan(laid.features(1)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["whisper-128", "granite-speech5", "parakeet"])
def test_features_of_sixteen_bits_are_those_of_float32_rounded(run_on_host: Run, name: str, dtype: str) -> None:
    clip = Clip(sounds()["speech"], SPECS[name])
    full, half = Laid([clip]), Laid([replace(clip, dtype=dtype)])
    for laid in (full, half):
        laid.run(run_on_host)
    expected = torch.from_numpy(full.features(0).copy()).to(getattr(torch, dtype)).to(torch.float32).numpy()
    np.testing.assert_array_equal(half.features(0).astype(np.float32), expected)


def test_a_sample_that_is_no_number_does_not_vanish(run_on_host: Run) -> None:
    samples = sounds()["noise"].copy()
    samples[7_000] = np.nan
    laid = Laid([Clip(samples, SPECS["whisper-80"])])
    laid.run(run_on_host)
    assert np.isnan(laid.features(0)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float64"}, "float32, float16, bfloat16 on a GPU; got float64"),
        ({"strides": (4,)}, "one stride an axis"),
        ({"strides": (4, 4, 4)}, "one stride an axis"),
        ({"out": 1_026}, "multiple of its size; got 1026"),
        ({"strides": (9, 4)}, "multiple of its size"),
    ],
    ids=str,
)
def test_jobs_that_the_kernels_cannot_take_are_refused(changes: dict[str, Any], message: str) -> None:
    good = _job(SPECS["whisper-80"], 900)
    with pytest.raises(InvalidOptions, match=message):
        replace(good, **changes)


def test_a_block_has_as_many_frames_as_fit_every_gpu() -> None:
    sizes = {400: (8, 28_804), 512: (8, 36_868), 1_024: (4, 40_964), 2_048: (1, 16_388), 6_000: (1, 48_004)}
    for n_fft, (frames, nbytes) in sizes.items():
        assert (frames_per_block(n_fft), mel_shared_bytes(n_fft, frames)) == (frames, nbytes)
    assert frames_per_block(6_144) == 0
    exact = {400: (4, 32_004), 512: (4, 40_964), 1_024: (1, 16_388), 3_000: (1, 48_004)}
    for n_fft, (frames, nbytes) in exact.items():
        assert frames_per_block(n_fft, "float64") == frames
        assert mel_shared_bytes(n_fft, frames, "float64") == nbytes
    assert frames_per_block(3_072, "float64") == 0


def test_a_record_has_the_fields_of_the_kernels_struct_in_their_order() -> None:
    struct = re.search(r"struct Clip \{.*?\n(.*?)\};", source("audio/mel"), re.S)
    assert struct is not None
    lines = [line.partition("//")[0] for line in struct[1].splitlines()]
    names = re.findall(r"(\w+)[,;]", " ".join(lines))
    assert tuple(names) == CLIP.names


@pytest.mark.parametrize("architecture", [75, 90])
@pytest.mark.parametrize("name", ["audio/mel", "audio/mel_statistics", "audio/mel_finish", "audio/wave_norm"])
def test_registers_leave_room_for_four_blocks_of_256_threads(name: str, architecture: int) -> None:
    for defines in variants(source(name)):
        used = re.search(r"Used (\d+) registers", compile_by_nvrtc(name, architecture, defines))
        assert used is not None
        assert int(used[1]) <= 64


@pytest.mark.gpu
@pytest.mark.parametrize("name", SPECS)
def test_on_a_gpu_every_spec_and_kind_of_sound_equals_the_float64_reference(name: str) -> None:
    cupy = pytest.importorskip("cupy")
    clips, host, stream = clips_of(name), Laid(clips_of(name)), cupy.cuda.Stream(non_blocking=True)
    samples, outs = ([cupy.asarray(array) for array in arrays] for arrays in ([c.samples for c in clips], host.outs))
    cupy.cuda.get_current_stream().synchronize()
    stored = [PcmSamples(here.view(cupy.uint8), "f32", 1, len(here), RATE) for here in samples]
    made = [
        FeatureClip(*sound_and_clip(pcm, clip.spec), out.data.ptr)
        for clip, pcm, out in zip(clips, stored, outs, strict=True)
    ]
    sound_kernels(0).write(made, stream=stream)
    stream.synchronize()
    assert_as_the_reference(name, [out.get() for out in outs])


def _job(spec: MelSpec, count: int) -> MelJob:
    """Addresses that nothing is read from."""
    shape = mel_plan(spec, count).shape
    strides = (4 * shape[1], 4) if len(shape) == 2 else (4,)
    return MelJob(4_096, spec, mel_plan(spec, count), 4_096, strides)
