"""Hugging Face's feature extractors called as the models' processors call them, one clip at a time."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
Signal = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]


@functools.cache
def extractor(kind: str, **settings: Any) -> Any:
    """A feature extractor of transformers, made once."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # filters without a bin, which some of them have
        return getattr(transformers, kind)(**settings)


def hugging_face(name: str, signal: Signal) -> Tensors:
    """What the processor of a built-in spec's model returns of one clip, without the batch axis."""
    call = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {key: np.asarray(value) for key, value in call(signal.copy()).items()}


def _whisper(signal: Signal, mask: str | None = None, **call: Any) -> Tensors:
    mels = call.pop("mels", 128)
    settings = {"chunk_length": call.pop("chunk_length")} if "chunk_length" in call else {}
    made = extractor("WhisperFeatureExtractor", feature_size=mels, **settings)(
        signal, sampling_rate=RATE, return_attention_mask=True, return_tensors="np", **call
    )
    features = {"input_features": made["input_features"][0]}
    return features | ({mask: made["attention_mask"][0]} if mask else {})


def _qwen3_asr(signal: Signal) -> Tensors:
    made = extractor("Qwen3ASRFeatureExtractor")(
        signal, sampling_rate=RATE, padding=True, truncation=False, return_attention_mask=True, n_window=50
    )
    return {"input_features": made["input_features"][0], "input_features_mask": made["attention_mask"][0]}


def _voxtral(signal: Signal) -> Tensors:
    made = _whisper(signal, padding=True, truncation=False, pad_to_multiple_of=480_000)["input_features"]
    return {"input_features": made.reshape(128, -1, 3_000).transpose(1, 0, 2)}


def _windows(signal: Signal, most: int) -> Tensors:
    from transformers import AudioFlamingo3Processor

    processor = object.__new__(AudioFlamingo3Processor)
    processor.feature_extractor = extractor("WhisperFeatureExtractor", feature_size=128)
    processor.max_audio_len = most
    processor.audio_token = "a"
    made, _ = processor._process_audio(
        [signal], sampling_rate=RATE, return_attention_mask=True, padding="max_length", return_tensors="pt"
    )
    return {name: made[name] for name in ("input_features", "input_features_mask")}


def _plain(kind: str, signal: Signal, *, listed: bool = False, settings: Any = (), **call: Any) -> Tensors:
    """An extractor whose processor passes on what it returns."""
    made = extractor(kind, **dict(settings))([signal] if listed else signal, **call)
    return {name: np.asarray(value)[0] for name, value in made.items() if name not in ("audio_lengths",)}


def _cohere(signal: Signal) -> Tensors:
    made = extractor("CohereAsrFeatureExtractor")(signal, sampling_rate=RATE, return_tensors="np")
    return {name: made[name] for name in ("input_features", "attention_mask")}


def _granite(signal: Signal) -> Tensors:
    made = extractor("GraniteSpeechFeatureExtractor")(signal)
    return {"input_features": made["input_features"][0], "input_features_mask": made["input_features_mask"][0]}


def _phi4(signal: Signal) -> Tensors:
    made = extractor("Phi4MultimodalFeatureExtractor")(signal, sampling_rate=RATE)
    return {"audio_input_features": made["audio_input_features"][0], "audio_embed_sizes": made["audio_embed_sizes"]}


_NEMO: dict[str, Any] = {
    "sampling_rate": RATE,
    "padding": "longest",
    "return_attention_mask": True,
    "return_tensors": "np",
}
_OF_PYTORCH: dict[str, Any] = {"sampling_rate": RATE, "return_tensors": "pt"}
_of = functools.partial
CALLS: dict[str, Callable[[Signal], Tensors]] = {
    "whisper-80": _of(_whisper, mels=80),
    "whisper-128": _whisper,
    "qwen2-audio": _of(_whisper, mask="feature_attention_mask", padding="max_length"),
    "qwen2.5-omni": _of(_whisper, mask="feature_attention_mask", padding="max_length", chunk_length=300),
    "qwen3-omni": _of(_whisper, mask="feature_attention_mask", padding=True, truncation=False),
    "qwen3-asr": _qwen3_asr,
    "voxtral": _voxtral,
    "voxtral-realtime": _of(
        _plain, "VoxtralRealtimeFeatureExtractor", padding=True, truncation=False, **_OF_PYTORCH
    ),
    "audio-flamingo-3": _of(_windows, most=600),
    "music-flamingo": _of(_windows, most=1_200),
    "glm-asr": _of(_windows, most=655),
    "gemma3n": _of(_plain, "Gemma3nAudioFeatureExtractor", listed=True, return_tensors="np"),
    "gemma4": _of(_plain, "Gemma4AudioFeatureExtractor", listed=True, return_tensors="np"),
    "gemma4-unified": _of(_plain, "Gemma4UnifiedAudioFeatureExtractor", listed=True, return_tensors="np"),
    "phi4-multimodal": _phi4,
    "seamless-m4t": _of(_plain, "SeamlessM4TFeatureExtractor", sampling_rate=RATE, return_tensors="np"),
    "lasr": _of(
        _plain, "LasrFeatureExtractor", padding="longest", return_attention_mask=True, **_OF_PYTORCH
    ),
    "granite-speech": _granite,
    "granite-speech5": _of(_plain, "GraniteSpeech5FeatureExtractor", **_OF_PYTORCH),
    "parakeet": _of(_plain, "ParakeetFeatureExtractor", **_NEMO),
    "parakeet-128": _of(_plain, "ParakeetFeatureExtractor", settings=(("feature_size", 128),), **_NEMO),
    "nemotron-streaming": _of(_plain, "NemotronAsrStreamingFeatureExtractor", **_NEMO),
    "cohere-asr": _cohere,
    "wav2vec2": _of(_plain, "Wav2Vec2FeatureExtractor", sampling_rate=RATE, return_tensors="np"),
    "wav2vec2-masked": _of(
        _plain, "Wav2Vec2FeatureExtractor", settings=(("return_attention_mask", True),), sampling_rate=RATE,
        return_tensors="np",
    ),
}  # fmt: skip
