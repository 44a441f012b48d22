"""Hugging Face feature extractor configurations, read into the fields of a ``MelSpec``.

Each is a built-in spec, chosen by the extractor's class and by the processor's where that calls it otherwise, with what its
file changes. Source: the feature extractors and processors of transformers, by the names below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpuflow.errors import InvalidOptions
from gpuflow.presets.hf import CONFIG_FILE, JOINT_CONFIG_FILE, read_json
from gpuflow.presets.mel_hf_values import READERS, Settings
from gpuflow.values import shown

_NESTED = ("feature_extractor", "audio_processor")
_FAMILIES: dict[str, dict[str, str]] = {
    "WhisperFeatureExtractor": {
        "WhisperProcessor": "whisper-80",
        "Qwen2AudioProcessor": "qwen2-audio",
        "Qwen2_5OmniProcessor": "qwen2.5-omni",
        "Qwen3OmniMoeProcessor": "qwen3-omni",
        "VoxtralProcessor": "voxtral",
        "AudioFlamingo3Processor": "audio-flamingo-3",
        "MusicFlamingoProcessor": "music-flamingo",
        "GlmAsrProcessor": "glm-asr",
    },
    "Qwen3ASRFeatureExtractor": {"Qwen3ASRProcessor": "qwen3-asr"},
    "VoxtralRealtimeFeatureExtractor": {"VoxtralRealtimeProcessor": "voxtral-realtime"},
    "Gemma3nAudioFeatureExtractor": {"Gemma3nProcessor": "gemma3n"},
    "Gemma4AudioFeatureExtractor": {"Gemma4Processor": "gemma4"},
    "Gemma4UnifiedAudioFeatureExtractor": {"Gemma4UnifiedProcessor": "gemma4-unified"},
    "Phi4MultimodalFeatureExtractor": {"Phi4MultimodalProcessor": "phi4-multimodal"},
    "GraniteSpeechFeatureExtractor": {"GraniteSpeechProcessor": "granite-speech"},
    "GraniteSpeech5FeatureExtractor": {"GraniteSpeech5Processor": "granite-speech5"},
    "ParakeetFeatureExtractor": {"ParakeetProcessor": "parakeet", "CanaryProcessor": "parakeet"},
    "NemotronAsrStreamingFeatureExtractor": {
        "NemotronAsrStreamingProcessor": "nemotron-streaming",
        "Nemotron3_5AsrProcessor": "nemotron-streaming",
    },
    "CohereAsrFeatureExtractor": {"CohereAsrProcessor": "cohere-asr"},
    "SeamlessM4TFeatureExtractor": {
        "SeamlessM4TProcessor": "seamless-m4t",
        "Wav2Vec2BertProcessor": "seamless-m4t",
    },
    "LasrFeatureExtractor": {"LasrProcessor": "lasr"},
    "Wav2Vec2FeatureExtractor": {
        "Wav2Vec2Processor": "wav2vec2",
        "Wav2Vec2ProcessorWithLM": "wav2vec2",
        "MoonshineStreamingProcessor": "wav2vec2",
    },
}
"""By the extractor's class, then the processor's; without a processor, the first."""


def spec_fields(config: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """See ``MelSpec.from_hf``."""
    from gpuflow.presets.mel_specs import mel_spec

    settings = _settings(config)
    kind, processor = settings.get("feature_extractor_type"), settings.around("processor_class")
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise InvalidOptions(f"feature_extractor_type is one of {', '.join(_FAMILIES)} here; got {shown(kind)}")
    name = next(iter(family.values())) if processor is None else _of_processor(family, processor)
    base = mel_spec(name)
    built_in = {field.name: getattr(base, field.name) for field in fields(base)}
    changed = READERS[name](settings, base)
    mels = changed.get("n_mels", base.n_mels)
    stem = "whisper" if name == "whisper-80" else name
    label = name if mels == base.n_mels else f"{stem}-{mels}"
    return {**built_in, "name": label, **changed}


def _of_processor(family: dict[str, str], processor: object) -> str:
    name = family.get(processor) if isinstance(processor, str) else None
    if name is None:
        raise InvalidOptions(
            f"processor_class is one of {', '.join(family)} with this extractor; got {shown(processor)}"
        )
    return name


def _settings(config: Mapping[str, Any] | str | os.PathLike[str]) -> Settings:
    """Those of the extractor, with the processor's around them."""
    if isinstance(config, Mapping):
        return _nested(config, config)
    if not isinstance(config, (str, os.PathLike)):
        raise InvalidOptions(f"from_hf takes a mapping or a path; got {type(config).__name__}")
    path = Path(config)
    if not os.path.isdir(path):
        whole = read_json(path)
        return _nested(whole, whole)
    joint = read_json(path / JOINT_CONFIG_FILE) if os.path.isfile(path / JOINT_CONFIG_FILE) else {}
    if any(isinstance(joint.get(name), Mapping) for name in _NESTED):
        return _nested(joint, joint)
    own = read_json(path / CONFIG_FILE)
    return _nested(own, {**own, **joint})


def _nested(whole: Mapping[str, Any], around: Mapping[str, Any]) -> Settings:
    """As transformers ranks them: an extractor's settings within a processor's come first."""
    for name in _NESTED:
        if isinstance(part := whole.get(name), Mapping):
            return Settings(part, {**around, **part})
    return Settings(whole, around)
