"""Mel specs: built-in names, and the rules that fields keep, alone and together."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from gpuflow.errors import InvalidOptions, NoSuchStream
from gpuflow.presets.clip_plan import clip_plan
from gpuflow.presets.listing import mel_spec_lines
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import mel_plan
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names


def test_every_name_is_found_and_gives_frames_of_ten_seconds() -> None:
    for name in mel_spec_names():
        spec = mel_spec(name)
        kind, shape = clip_plan(spec, 160_000).tensors[spec.features_name]
        assert kind == "float32"
        assert all(side > 0 for side in shape)


def test_a_checkpoints_name_is_its_familys_spec() -> None:
    assert mel_spec("whisper-large-v3") is mel_spec("whisper-128")
    assert mel_spec("whisper-large-v2") is mel_spec("whisper-80")
    assert mel_spec("canary") is mel_spec("parakeet-128")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidOptions, match="whisper-80, whisper-128"):
        mel_spec("whisper-64")


def test_the_listing_has_a_line_a_name_and_says_what_becomes_of_ten_seconds() -> None:
    lines = list(mel_spec_lines())
    assert [line.split()[0] for line in lines[1:]] == list(mel_spec_names())
    words = {line.split()[0]: line.split() for line in lines}
    assert words["qwen2.5-omni"] == [
        "qwen2.5-omni", "128", "400/400/160", "log10", "128x30000", "250", "Qwen2_5OmniProcessor",
    ]  # fmt: skip
    assert words["gemma4-unified"][1:] == ["-", "-", "raw", "250x640", "250", "Gemma4UnifiedProcessor"]
    assert "-" not in {line.split()[-1] for line in lines}


NAMES = ("not a number", "a large number", "a long list", "a long text", "a mapping", "an object")
WRONG: list[dict[str, Any]] = [
    {"floor": float("inf")},
    {"scale": float("nan")},
    {"scale": 0.0},
    {"floor": 0.0},
    {"input_scale": 0.0},
    {"input_scale": -1e300},
    {"precision": "float16"},
    {"kind": "raw", "precision": "float64"},
    {"pad_left": -400, "pad_right": 800},
    {"pad_left": 201},
    {"pad_mode": "constant", "pad_left": 401},
    {"n_fft": 401},
    {"n_fft": 1 << 20},
    {"win_length": 401},
    {"hop_length": 401},
    {"hop_length": 1},
    {"hop_length": 0},
    {"frame_extra": 1},
    {"f_min": 8_000.0},
    {"f_max": 8_001.0},
    {"n_mels": 0},
    {"n_mels": 1_025},
    {"n_mels": True},
    {"n_mels": "80"},
    {"power": 3},
    {"window": "kaiser"},
    {"max_samples": 0},
    {"pad_samples": 1 << 40},
    {"min_samples": 480_001},
    {"min_samples": 1, "dither": 1e-5},
    {"min_samples": 1, "signal_preemphasis": 0.97},
    {"pad_to": "frames"},
    {"bin_mean": (1.0,)},
    {"bin_std": (0.0,) * 80},
    {"bin_mean": [0.0] * 80},
    {"delta_window": 2},
    {"delta_window": 1},
    {"normalize": "clip"},
    {"norm_eps": -1e-9},
    {"frame_multiple": 0},
    {"stack": 0},
    {"stack": 65},
    {"frame_samples": 640},
    {"kind": "raw", "normalize": "feature"},
    {"kind": "raw", "frame_samples": 640, "normalize": "clip"},
    {"kind": "raw", "split": "before_mel"},
    {"kind": "raw", "pad_to": "frames"},
    {"max_splits": 3},
    {"split": "after_mel"},
    {"split": "after_mel", "pad_to": "multiple", "split_frames": 2_999},
    {"split": "after_mel", "pad_to": "multiple", "drop_last": False},
    {"split": "before_mel", "pad_to": "none"},
    {"split": "before_mel", "split_frames": 3_001},
    {"split": "quietest"},
    {"split": "quietest", "pad_to": "none", "zero_invalid": True, "split_search_samples": 480_001},
    {"split_frames": 1 << 40, "split": "before_mel"},
    {"features_name": "two words"},
    {"features_name": "x" * 65},
    {"mask_name": "input_features"},
    {"mask_name": "mask", "mask_of": "tokens"},
    {"sizes_name": "sizes"},
    {"tokens": "mine"},
    {"name": ""},
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_fields_out_of_range_or_against_each_other_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        MelSpec(**{"name": "x", **values})


@pytest.mark.parametrize("value", [math.nan, 10**400, [0] * 1_000_000, "x" * 1_000_000, {"a": 1}, object()], ids=NAMES)
@pytest.mark.parametrize("field", [field.name for field in fields(MelSpec)])
def test_no_field_takes_a_value_of_no_sense(field: str, value: Any) -> None:
    with pytest.raises(InvalidOptions) as caught:
        MelSpec(**{"name": "x", field: value})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("count", [0, 1, 39, 40, 41, 159, 160, 161, 16_000, 479_799, 479_800, 479_999, 480_000])
def test_frames_beyond_the_live_ones_touch_no_sample(count: int) -> None:
    import numpy as np

    spec = mel_spec("whisper-80")
    padded = np.pad(np.pad(np.ones(count), (0, 480_000 - count)), 200, mode="reflect")
    touched = [t for t in range(3_000) if padded[160 * t : 160 * t + 400].any()]
    plan = mel_plan(spec, count)
    assert plan.live >= (touched[-1] + 1 if touched else 0)
    assert plan.live <= (touched[-1] + 3 if touched else 0)


@pytest.mark.parametrize(
    "name", ["qwen3-omni", "gemma3n", "phi4-multimodal", "granite-speech5", "parakeet", "wav2vec2"]
)
def test_a_clip_without_a_frame_is_refused_by_name(name: str) -> None:
    with pytest.raises(NoSuchStream, match=f"too short for a frame of {name}"):
        clip_plan(mel_spec(name), 0)


def test_parts_of_a_spec_that_cuts_features_are_refused() -> None:
    with pytest.raises(InvalidOptions, match="cuts features"):
        clip_plan(mel_spec("voxtral"), 16_000, parts=((0, 16_000),))


def test_the_parts_of_a_clip_are_counted_by_its_spec() -> None:
    hour = 3_600 * 16_000
    assert len(clip_plan(mel_spec("audio-flamingo-3"), hour).parts) == 20
    assert clip_plan(mel_spec("glm-asr"), hour).parts[-1] == (20 * 480_000, 21 * 480_000)
    assert len(clip_plan(mel_spec("voxtral"), hour).parts) == 120
    assert clip_plan(mel_spec("voxtral"), 480_001).valid_lengths == (3_000, 1)
    assert mel_spec("music-flamingo").most_samples == 1_200 * 16_000
    assert mel_spec("qwen3-asr").most_samples is None
