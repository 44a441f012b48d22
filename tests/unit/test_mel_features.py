"""The CPU engine of mel features: types, strides, parts, padding and what is beside the features."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpuflow.errors import DeadlineExceeded
from gpuflow.media import lay_out
from gpuflow.memory import Slab
from gpuflow.ops import mel, mel_signal
from gpuflow.ops.mel import features, place_features, planned, write_features
from gpuflow.presets.mel_plan import mel_plan
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names
from tests.parity.mel_reference import reference
from tests.parity.mel_signals import noise, speech, swelling

NAMES = [name for name in mel_spec_names() if mel_spec(name).name == name and name != "qwen2.5-omni"]


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_the_float32_result_rounded_to_nearest(name: str) -> None:
    import torch

    spec, signal = mel_spec(name), noise(20_011)
    exact = features(signal, spec)[spec.features_name]
    half = features(signal, spec, dtype="float16")[spec.features_name]
    bits = features(signal, spec, dtype="bfloat16")[spec.features_name]
    assert np.array_equal(half, exact.astype(np.float16))
    assert bits.dtype == np.uint16
    assert torch.equal(torch.from_numpy(bits).view(torch.bfloat16), torch.from_numpy(exact).to(torch.bfloat16))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_written_to_arrays_of_any_strides(name: str, dtype: str) -> None:
    spec, signal = mel_spec(name), noise(20_011)
    expected, clip = features(signal, spec, dtype=dtype), planned(signal, spec, dtype=dtype)
    outs = {}
    for key, values in expected.items():
        wide = np.full((*values.shape[:-1], 2 * values.shape[-1] + 3), 77, values.dtype)
        turned = np.asfortranarray(wide) if key == spec.features_name else wide
        outs[key] = turned[..., 1:-2:2]
    write_features(signal, clip, outs)
    for key, values in expected.items():
        assert np.array_equal(outs[key], values), key


@pytest.mark.parametrize("name", NAMES)
def test_digital_silence_gives_finite_numbers(name: str) -> None:
    spec = mel_spec(name)
    made = features(np.zeros(16_000, np.float32), spec)[spec.features_name]
    assert np.isfinite(made).all()


@pytest.mark.parametrize("name", ["whisper-80", "qwen2-audio", "audio-flamingo-3"])
def test_no_sample_under_padding_is_silence(name: str) -> None:
    spec = mel_spec(name)
    made = features(np.zeros(0, np.float32), spec)
    assert np.ptp(made["input_features"]) == 0
    assert abs(made["input_features"].max() + 1.5) <= 1e-6
    assert planned(np.zeros(0, np.float32), spec).valid_lengths == (0,)


def test_three_seconds_under_the_padding_of_300_cost_no_more_memory_than_their_result() -> None:
    spec, signal = mel_spec("qwen2.5-omni"), speech(3.0)
    features(signal, spec)  # tables and modules
    tracemalloc.start()
    made = features(signal, spec)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made["input_features"].shape == (128, 30_000)
    assert mel_plan(spec, len(signal)).live == 302
    assert peak <= sum(values.nbytes for values in made.values()) + (8 << 20)


def test_padding_holds_what_the_shorter_paddings_fill_holds() -> None:
    signal = speech(3.0)
    short, long = (features(signal, mel_spec(name))["input_features"] for name in ("qwen2-audio", "qwen2.5-omni"))
    assert np.array_equal(long[:, :3_000], short)
    assert np.all(long[:, 3_000:] == short[:, -1:])


def test_ten_minutes_without_padding_take_little_more_memory_than_their_sound_and_features() -> None:
    spec = mel_spec("qwen3-omni")
    signal = np.zeros(16_000 * 600, np.float32)
    features(signal[:16_000], spec)
    tracemalloc.start()
    made = features(signal, spec)["input_features"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.shape == (128, 60_000)
    assert peak <= 2 * signal.nbytes + 2 * made.nbytes


def test_the_clip_is_cut_where_it_is_quietest_and_shorter_parts_end_in_zeros() -> None:
    spec, signal = mel_spec("cohere-asr"), swelling(72.0)
    clip = planned(signal, spec)
    made = features(signal, spec)
    assert len(clip.parts) == 3
    assert all(30 * 16_000 <= last - first <= 35 * 16_000 for first, last in clip.parts[:-1])
    assert made["attention_mask"].sum(axis=1).tolist() == list(clip.valid_lengths)
    for part, valid, (first, last) in zip(made["input_features"], clip.valid_lengths, clip.parts, strict=True):
        alone = features(signal[first:last], spec)["input_features"][0]
        assert np.array_equal(part[:valid], alone[:valid])
        assert not part[valid:].any()


def test_parts_that_are_given_are_clips_of_their_own() -> None:
    spec, signal = mel_spec("qwen3-omni"), noise(50_000)
    parts = ((0, 20_000), (15_000, 50_000))
    made = features(signal, spec, parts=parts)
    assert made["input_features"].shape == (2, 128, 218)
    for number, (first, last) in enumerate(parts):
        alone = features(signal[first:last], spec)["input_features"]
        assert np.array_equal(made["input_features"][number, :, : alone.shape[1]], alone)
    assert made["feature_attention_mask"].sum(axis=1).tolist() == [125, 218]


@pytest.mark.parametrize(("name", "count"), [("parakeet", 319), ("seamless-m4t", 400)])
def test_one_valid_frame_is_its_own_mean(name: str, count: int) -> None:
    assert not features(noise(count), mel_spec(name))["input_features"].any()


VARIANTS: list[dict[str, Any]] = [
    {"pad_to": "multiple", "pad_samples": 7_001, "drop_last": False},
    {"pad_to": "none", "pad_mode": "constant", "pad_left": 0, "pad_right": 0, "drop_last": False},
    {"delta_window": 5},
    {"stack": 3, "layout": "TM"},
    {"stack": 3, "delta_window": 3, "frame_multiple": 7},
    {"normalize": "feature", "norm_eps": 1e-5, "zero_invalid": True},
    {"bin_mean": tuple(np.linspace(-1, 1, 80).tolist()), "bin_std": tuple(np.linspace(0.5, 2, 80).tolist())},
    {"frame_multiple": 7_000, "clamp": "fixed", "fixed_max": 1.0},
    {"window": "ones", "power": 1, "floor_mode": "add", "floor": 1e-3, "clamp": "none"},
    {"window_at": "left", "win_length": 301, "frame_extra": 3, "remove_dc": True, "frame_preemphasis": 0.9},
    {"win_length": 300, "remove_dc": True, "frame_preemphasis": 0.5, "valid": "win", "zero_invalid": True},
    {"signal_preemphasis": 0.9, "input_scale": 0.5, "dither": 1e-3, "pad_samples": 40_000, "max_samples": 30_000},
    {
        "mel_scale": "kaldi",
        "triangles": "mel",
        "mel_norm": None,
        "f_min": 60.0,
        "f_max": 7_000.0,
        "valid": "last_sample",
    },
    {"min_samples": 9_000, "pad_to": "none", "valid": "floor_hop"},
    {
        "split": "before_mel",
        "split_frames": 40,
        "pad_samples": 6_400,
        "max_samples": None,
        "layout": "TM",
        "max_splits": 3,
    },
    {"split": "after_mel", "pad_to": "multiple", "pad_samples": 8_000, "split_frames": 25, "layout": "TM"},
    {"kind": "raw", "normalize": "clip", "norm_eps": 1e-7, "pad_to": "multiple", "pad_samples": 333},
    {"kind": "raw", "frame_samples": 640, "pad_to": "none", "input_scale": 3.0},
]


@pytest.mark.parametrize("count", [460, 8_001, 20_011])
@pytest.mark.parametrize("values", VARIANTS, ids=lambda values: str(values)[:90])
def test_every_field_does_what_its_docstring_says(values: dict[str, Any], count: int) -> None:
    spec = replace(mel_spec("whisper-80"), pad_samples=24_000, max_samples=24_000)
    spec, signal = replace(spec, **values), noise(count)
    made, expected = features(signal, spec)["input_features"], reference(signal, spec)
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= 2e-4


def test_features_are_placed_in_a_block_as_their_tensors_say() -> None:
    spec, signal = mel_spec("granite-speech5"), noise(30_000)
    clip = planned(signal, spec, dtype="bfloat16")
    tensors = lay_out(clip.tensors)
    with Slab("4MiB") as slab:
        lease = slab.allocate(sum(tensor.nbytes for tensor in tensors) + 1_024)
        place_features(signal, clip, lease, tensors)
        placed = {tensor.name: lease.array(tensor).copy() for tensor in tensors}
        lease.release()
    for name, values in features(signal, spec, dtype="bfloat16").items():
        assert np.array_equal(placed[name], values)


LONG = ("qwen3-omni", "voxtral", "parakeet", "seamless-m4t", "lasr", "granite-speech5", "cohere-asr", "wav2vec2")


@pytest.mark.parametrize("name", LONG)
def test_between_two_checks_lie_some_milliseconds_of_work_however_long_the_clip(name: str) -> None:
    signal = np.tile(noise(48_000), 200)  # ten minutes
    clip, times = planned(signal, mel_spec(name)), list[float]()
    outs = {key: np.empty(shape, kind) for key, (kind, shape) in clip.tensors.items()}
    write_features(signal, clip, outs, check=lambda: times.append(time.thread_time()))
    times.append(time.thread_time())
    assert len(times) >= 8
    assert np.diff(times).max() <= 0.1


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("after", [0, 1, 5])
def test_what_a_check_raises_ends_the_work_at_once(name: str, after: int) -> None:
    signal = np.tile(noise(48_000), 200)
    clip, calls = planned(signal, mel_spec(name)), list[int]()
    outs = {key: np.empty(shape, kind) for key, (kind, shape) in clip.tensors.items()}

    def check() -> None:
        calls.append(1)
        if len(calls) > after:
            raise DeadlineExceeded("enough")

    with pytest.raises(DeadlineExceeded, match="enough"):
        write_features(signal, clip, outs, check=check)
    assert len(calls) == after + 1


@pytest.mark.parametrize("name", NAMES)
def test_no_value_depends_on_where_the_checks_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, signal = mel_spec(name), noise(20_011)
    expected = features(signal, spec)[spec.features_name]
    monkeypatch.setattr(mel_signal, "_STRETCH_SAMPLES", 1_001)
    monkeypatch.setattr(mel, "_STRETCH_FRAMES", 6)
    monkeypatch.setattr(mel, "_STRETCH_BANDS", 3)
    found = features(signal, spec)[spec.features_name]
    if spec.normalize == "clip":
        assert np.abs(found - expected).max() <= 1e-6, "sums of float64 in another order"
    else:
        assert np.array_equal(found, expected)
