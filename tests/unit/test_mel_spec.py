"""Mel specs: built-in names, Hugging Face configs, and the rules between their sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuflow.errors import InvalidOptions
from gpuflow.presets.mel import MelSpec, mel_spec, mel_spec_names

WHISPER_V3 = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "chunk_length": 30,
    "feature_size": 128,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "sampling_rate": 16000,
}


def test_every_name_is_found_and_gives_3000_frames() -> None:
    for name in mel_spec_names():
        assert mel_spec(name).num_frames == 3000


def test_a_models_name_is_the_same_spec_as_its_family() -> None:
    assert mel_spec("qwen2-audio") is mel_spec("whisper-large-v3") is mel_spec("whisper-128")
    assert mel_spec("whisper-80").n_mels == 80


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidOptions, match="whisper-80, whisper-128"):
        mel_spec("whisper-64")


def test_config_of_whisper_v3_is_the_built_in_spec() -> None:
    assert MelSpec.from_hf(WHISPER_V3) == mel_spec("whisper-128")


def test_config_with_defaults_left_out_is_whisper_80() -> None:
    assert MelSpec.from_hf({"feature_extractor_type": "WhisperFeatureExtractor"}) == mel_spec("whisper-80")


def test_config_is_read_from_a_folder_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(WHISPER_V3))
    assert MelSpec.from_hf(tmp_path) == MelSpec.from_hf(str(file)) == mel_spec("whisper-128")


def test_config_of_five_minutes_gives_30000_frames() -> None:
    assert MelSpec.from_hf(WHISPER_V3 | {"chunk_length": 300}).num_frames == 30_000


@pytest.mark.parametrize(
    "change",
    [
        {"feature_extractor_type": "Gemma3nAudioFeatureExtractor"},
        {"feature_extractor_type": None},
        {"dither": 1e-5},
        {"do_normalize": True},
        {"feature_size": 0},
        {"feature_size": "128"},
        {"feature_size": 10**9},
        {"n_fft": 401},
        {"hop_length": 4000},
        {"chunk_length": 10**9},
        {"sampling_rate": 8000},
    ],
)
def test_config_that_no_spec_expresses_is_invalid_options(change: dict[str, object]) -> None:
    with pytest.raises(InvalidOptions):
        MelSpec.from_hf(WHISPER_V3 | change)


@pytest.mark.parametrize("content", ["", "[1]", "{", None])
def test_config_file_that_is_no_object_is_invalid_options(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(InvalidOptions, match="preprocessor_config"):
        MelSpec.from_hf(tmp_path)


@pytest.mark.parametrize(
    "values", [{"floor": float("inf")}, {"scale": float("nan")}, {"pad_left": -400, "pad_right": 800}], ids=str
)
def test_a_spec_that_is_not_finite_or_pads_backwards_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        MelSpec("x", **values)
