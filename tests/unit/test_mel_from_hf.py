"""Hugging Face's files of feature extractors, read into mel specs."""

from __future__ import annotations

import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuflow.errors import InvalidOptions
from gpuflow.ops.mel import features
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_hf import FAMILIES
from gpuflow.presets.mel_specs import mel_spec
from tests.parity.audio_extractors import extractor
from tests.parity.mel_signals import noise
from tests.unit.odd_values import ODD

CASES = [(kind, processor) for kind, family in FAMILIES.items() for processor in family]
WHISPER_V3 = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "chunk_length": 30,
    "feature_size": 128,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3_000,
    "padding_side": "right",
    "padding_value": 0.0,
    "sampling_rate": 16_000,
}


@functools.cache
def _saved(kind: str, processor: str) -> dict[str, Any]:
    """What ``save_pretrained`` writes of the extractor of a checkpoint."""
    settings: dict[str, Any] = {}
    if kind == "WhisperFeatureExtractor" and processor != "WhisperProcessor":
        settings = {"feature_size": 128, "chunk_length": 300 if processor == "Qwen2_5OmniProcessor" else 30}
    values: dict[str, Any] = json.loads(extractor(kind, **settings).to_json_string())
    return values


@pytest.mark.parametrize(("kind", "processor"), CASES)
def test_the_file_of_each_extractor_gives_the_built_in_spec(kind: str, processor: str) -> None:
    expected = mel_spec(FAMILIES[kind][processor])
    alone = MelSpec.from_hf({**_saved(kind, processor), "processor_class": processor})
    nested = MelSpec.from_hf({"processor_class": processor, "feature_extractor": _saved(kind, processor)})
    assert alone == nested
    if processor == "MoonshineStreamingProcessor":
        assert (alone.name, alone.pad_to, alone.pad_samples) == ("moonshine-streaming", "multiple", 80)
    else:
        assert alone == expected


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_file_without_a_processor_or_a_setting_has_the_classes_defaults(kind: str) -> None:
    first = next(iter(FAMILIES[kind].values()))
    assert MelSpec.from_hf({"feature_extractor_type": kind}) == mel_spec(first)


def test_settings_are_read_from_a_folder_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(WHISPER_V3))
    assert MelSpec.from_hf(tmp_path) == MelSpec.from_hf(str(file)) == mel_spec("whisper-128")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "a pipe"])
def test_what_may_have_no_end_is_not_read(path: str, tmp_path: Path) -> None:
    if path == "a pipe":
        path = str(tmp_path / "pipe")
        os.mkfifo(path)
    with pytest.raises(InvalidOptions, match="no plain file"):
        MelSpec.from_hf(path)


def test_a_file_larger_than_any_configuration_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    with pytest.raises(InvalidOptions, match="more than 16777216 bytes"):
        MelSpec.from_hf(file)


def test_a_processors_file_beside_it_says_how_the_extractor_is_called(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(WHISPER_V3))
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"processor_class": "AudioFlamingo3Processor", "max_audio_len": 90})
    )
    spec = MelSpec.from_hf(tmp_path)
    assert (spec.name, spec.split, spec.max_splits) == ("audio-flamingo-3", "before_mel", 3)


def test_settings_within_a_processors_file_come_before_those_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(WHISPER_V3))
    own = {"feature_extractor_type": "Qwen3ASRFeatureExtractor", "min_length": 4_000}
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": own}))
    assert MelSpec.from_hf(tmp_path).min_samples == 4_000


def test_a_processor_saved_by_transformers_is_read_again(tmp_path: Path) -> None:
    from transformers import ParakeetFeatureExtractor

    ParakeetFeatureExtractor(feature_size=128).save_pretrained(tmp_path)
    assert MelSpec.from_hf(tmp_path) == mel_spec("parakeet-128")


CHANGED: list[tuple[str, dict[str, Any]]] = [
    ("WhisperFeatureExtractor", {"feature_size": 64, "n_fft": 512, "hop_length": 200, "chunk_length": 5}),
    ("WhisperFeatureExtractor", {"sampling_rate": 22_050, "chunk_length": 3}),
    ("Gemma3nAudioFeatureExtractor", {"per_bin_mean": [0.5] * 128, "per_bin_stddev": [2.0] * 128}),
    ("Gemma3nAudioFeatureExtractor", {"frame_length_ms": 20.0, "fft_overdrive": False, "preemphasis": 0.0}),
    ("Gemma4AudioFeatureExtractor", {"frame_length_ms": 32.0, "preemphasis": 0.9, "input_scale_factor": 2.0}),
    ("Phi4MultimodalFeatureExtractor", {"feature_size": 40, "mel_max_frequency": 8_000, "win_length": 320}),
    ("GraniteSpeechFeatureExtractor", {"n_mels": 64, "n_fft": 400}),
    ("GraniteSpeech5FeatureExtractor", {"delta_win_length": 5, "logmel_floor_db": 4.0}),
    ("ParakeetFeatureExtractor", {"feature_size": 64, "preemphasis": None}),
    ("VoxtralRealtimeFeatureExtractor", {"global_log_mel_max": None}),
    ("VoxtralRealtimeFeatureExtractor", {"global_log_mel_max": 2.5}),
    ("CohereAsrFeatureExtractor", {"dither": 0.0, "max_audio_clip_s": 1.5, "overlap_chunk_second": 0.5}),
    ("SeamlessM4TFeatureExtractor", {"num_mel_bins": 64}),
    ("LasrFeatureExtractor", {"feature_size": 64, "hop_length": 200}),
    ("Wav2Vec2FeatureExtractor", {"do_normalize": False, "return_attention_mask": True}),
    ("Gemma4UnifiedAudioFeatureExtractor", {"audio_samples_per_token": 320, "feature_size": 320}),
]


@pytest.mark.parametrize(
    ("kind", "settings"), CHANGED, ids=[f"{kind} {str(settings)[:90]}" for kind, settings in CHANGED]
)
def test_features_of_a_changed_file_equal_that_extractor(kind: str, settings: dict[str, Any]) -> None:
    import transformers

    made: Any = getattr(transformers, kind)(**settings)
    spec = MelSpec.from_hf({"feature_extractor_type": kind, **settings})
    signal = noise(3 * spec.sample_rate + 17)
    call: dict[str, Any] = {} if kind == "GraniteSpeechFeatureExtractor" else {"sampling_rate": spec.sample_rate}
    returned = made([signal] if "Gemma" in kind else signal, **call)
    expected = np.asarray(returned[spec.features_name])
    values = features(signal, spec)[spec.features_name]
    if spec.split == "none":
        expected = expected[0]
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= 1e-3


def test_statistics_are_read_as_transformers_writes_them() -> None:
    written = json.loads(extractor("Gemma3nAudioFeatureExtractor", per_bin_mean=(0.5,) * 128).to_json_string())
    assert MelSpec.from_hf(written).bin_mean == (0.5,) * 128


REFUSED: list[dict[str, Any]] = [
    {"feature_extractor_type": "ClapFeatureExtractor"},
    {"feature_extractor_type": None},
    {"processor_class": "UltravoxProcessor"},
    {"processor_class": "ParakeetProcessor"},
    {"dither": 1e-5},
    {"padding_value": 1.0},
    {"padding_side": "left"},
    {"return_attention_mask": True},
    {"feature_size": 0},
    {"feature_size": "128"},
    {"feature_size": 10**9},
    {"feature_size": True},
    {"n_fft": 401},
    {"hop_length": 4_000},
    {"hop_length": -160},
    {"chunk_length": 10**9},
    {"chunk_length": 30.5},
    {"sampling_rate": 8_000},
    {"sampling_rate": 44_101},
    {"processor_class": "Qwen2AudioProcessor", "sampling_rate": 8_000},
    {"processor_class": "VoxtralProcessor", "hop_length": 200},
    {"processor_class": "GlmAsrProcessor", "max_audio_len": 10},
    {"feature_extractor_type": "Qwen3ASRFeatureExtractor", "n_window": 100},
    {"feature_extractor_type": "Qwen3ASRFeatureExtractor", "min_length": -1},
    {"feature_extractor_type": "VoxtralRealtimeFeatureExtractor", "win_length": 320},
    {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "preemphasis_htk_flavor": False},
    {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "per_bin_mean": [0.0]},
    {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "per_bin_stddev": [math.nan] * 128},
    {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "frame_length_ms": 1e7},
    {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "hop_length_ms": 0.0},
    {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "frame_length": 320},
    {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "mel_floor": 0.0},
    {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "audio_seq_length": 100},
    {"feature_extractor_type": "Phi4MultimodalFeatureExtractor", "audio_compression_rate": 4},
    {"feature_extractor_type": "GraniteSpeechFeatureExtractor", "projector_window_size": 10},
    {"feature_extractor_type": "GraniteSpeechFeatureExtractor", "melspec_kwargs": {"n_fft": 1_024}},
    {"feature_extractor_type": "GraniteSpeech5FeatureExtractor", "delta_win_length": 4},
    {"feature_extractor_type": "CohereAsrFeatureExtractor", "max_audio_clip_s": 0.0001},
    {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "stride": 4},
    {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 80},
    {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": "yes"},
]


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_what_no_spec_expresses_is_refused_by_its_name(change: dict[str, Any]) -> None:
    *_, (name, _) = change.items()
    others = {
        "sampling_rate": "sample_rate|sampling_rate",
        "hop_length_ms": "hop_length",
        "mel_floor": "floor",
        "delta_win_length": "delta_window",
        "feature_size": "feature_size|n_mels",
        "chunk_length": "chunk_length|max_samples",
        "max_audio_len": "max_audio_len|chunk_length",
    }
    base = WHISPER_V3 if "feature_extractor_type" not in change or len(change) == 1 else {}
    with pytest.raises(InvalidOptions, match=others.get(name, name)):
        MelSpec.from_hf({**base, **change})


NONSENSE = {
    **ODD,
    "not a number": math.nan,
    "negative": -1,
    "huge": 1 << 70,
    "empty": "",
    "no list": [],
    "no mapping": {},
}


@pytest.mark.parametrize("value", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_setting_of_no_sense_is_refused_at_once_in_a_few_words(kind: str, value: Any) -> None:
    settings = {
        "WhisperFeatureExtractor": "chunk_length",
        "Wav2Vec2FeatureExtractor": "sampling_rate",
        "Gemma4UnifiedAudioFeatureExtractor": "audio_samples_per_token",
        "Gemma3nAudioFeatureExtractor": "per_bin_mean",
        "Gemma4AudioFeatureExtractor": "frame_length_ms",
        "SeamlessM4TFeatureExtractor": "num_mel_bins",
    }
    with pytest.raises(InvalidOptions) as caught:
        MelSpec.from_hf({"feature_extractor_type": kind, settings.get(kind, "n_fft"): value})
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("content", ["", "[1]", "{", None])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(InvalidOptions, match="preprocessor_config"):
        MelSpec.from_hf(tmp_path)


@pytest.mark.parametrize("config", [None, 7, [("feature_extractor_type", "WhisperFeatureExtractor")]])
def test_what_is_no_mapping_and_no_path_is_refused(config: Any) -> None:
    with pytest.raises(InvalidOptions, match="a mapping or a path"):
        MelSpec.from_hf(config)


def test_keys_that_no_extractor_reads_are_harmless() -> None:
    image = {"image_mean": [0.5] * 3, "do_normalize": True, "patch_size": 14, "mel_filters": [[0.0]] * 100}
    assert MelSpec.from_hf({**WHISPER_V3, **image}) == mel_spec("whisper-128")
