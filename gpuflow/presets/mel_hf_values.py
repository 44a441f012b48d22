"""What the files of Hugging Face's feature extractors may change of a built-in mel spec, one function an extractor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuflow.errors import InvalidOptions
from gpuflow.values import shown

if TYPE_CHECKING:
    from gpuflow.presets.mel import MelSpec

Changes = dict[str, Any]
_MOST = 1 << 26
_MOONSHINE_MULTIPLE = 80


@dataclass(frozen=True, slots=True)
class Settings:
    """An extractor's settings, and with them those of the processor that it belongs to. Every value is checked."""

    own: Mapping[str, Any]
    whole: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.own.get(name)

    def around(self, name: str) -> Any:
        return self.whole.get(name)

    def count(self, name: str, default: int) -> int:
        """A whole number, 1 or more."""
        value = self.own.get(name, default)
        if type(value) is not int or not 1 <= value <= _MOST:
            raise InvalidOptions(f"{name} is a whole number, 1 .. {_MOST}; got {shown(value)}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.own.get(name, default)
        if type(value) not in (int, float) or not abs(value) <= _MOST:  # which no NaN is
            raise InvalidOptions(f"{name} is a number within +-{_MOST}; got {shown(value)}")
        return float(value)

    def whether(self, name: str, default: bool) -> bool:
        value = self.own.get(name, default)
        if not isinstance(value, bool):
            raise InvalidOptions(f"{name} is true or false; got {shown(value)}")
        return value

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """So many, or none."""
        values = self.own.get(name)
        if values is None:
            return ()
        if not isinstance(values, (list, tuple)) or len(values) != count:
            raise InvalidOptions(f"{name} is a list of {count} numbers; got {shown(values)}")
        if not all(type(value) in (int, float) and abs(value) <= _MOST for value in values):
            raise InvalidOptions(f"{name} is a list of numbers within +-{_MOST}; got {shown(values)}")
        return tuple(float(value) for value in values)

    def require(self, name: str, *allowed: object) -> None:
        """Raise ``InvalidOptions`` where a setting is there and is none of these, ``None`` aside."""
        _require(self.own, name, allowed)

    def require_around(self, name: str, *allowed: object) -> None:
        """``require`` of the processor's."""
        _require(self.whole, name, allowed)

    def rate(self, base: MelSpec) -> None:
        """The rate that the processor insists on."""
        self.require("sampling_rate", base.sample_rate)

    def padding(self) -> None:
        """Zeros behind the clip."""
        self.require("padding_value", 0)
        self.require("padding_side", "right")


def _require(values: Mapping[str, Any], name: str, allowed: tuple[object, ...]) -> None:
    value = values.get(name)
    if value is None or (isinstance(value, (bool, int, float, str)) and value in allowed):
        return
    raise InvalidOptions(f"{name} is {' or '.join(map(repr, allowed))} here; got {shown(value)}")


def _centred(settings: Settings, base: MelSpec, *, mels: str = "feature_size", window: bool = True) -> Changes:
    """Sizes of a spectrum about the middle of each frame."""
    n_fft = settings.count("n_fft", base.n_fft)
    win_length = settings.count("win_length", base.win_length) if window else n_fft
    return {
        "n_mels": settings.count(mels, base.n_mels),
        "n_fft": n_fft,
        "win_length": win_length,
        "hop_length": settings.count("hop_length", base.hop_length),
        "pad_left": n_fft // 2,
        "pad_right": n_fft // 2,
    }


def _whisper_like(settings: Settings, base: MelSpec) -> Changes:
    settings.require("dither", 0)
    settings.padding()
    mels = {} if "feature_size" in settings.own or base.name == "whisper-80" else {"n_mels": 80}
    return {**_centred(settings, base, window=False), **mels}


def _even_rate(settings: Settings, base: MelSpec) -> int:
    """transformers rounds half of an odd rate down."""
    rate = settings.count("sampling_rate", base.sample_rate)
    if rate % 2:
        raise InvalidOptions(f"sampling_rate is even here; got {rate}")
    return rate


def _whisper(settings: Settings, base: MelSpec) -> Changes:
    """Source: ``WhisperFeatureExtractor``."""
    settings.require("return_attention_mask", False)
    rate = _even_rate(settings, base)
    return {**_whisper_like(settings, base), "sample_rate": rate, **_of_chunks(settings, rate)}


def _of_chunks(settings: Settings, rate: int) -> Changes:
    samples = settings.count("chunk_length", 30) * rate
    return {"max_samples": samples, "pad_samples": samples}


def _chunked(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    return {**_whisper_like(settings, base), **_of_chunks(settings, base.sample_rate)}


def _unpadded(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    return _whisper_like(settings, base)


def _voxtral(settings: Settings, base: MelSpec) -> Changes:
    settings.require("hop_length", base.hop_length)
    return _unpadded(settings, base)


def _windows(settings: Settings, base: MelSpec) -> Changes:
    """Source: ``_process_audio`` of ``AudioFlamingo3Processor``, ``MusicFlamingoProcessor`` and ``GlmAsrProcessor``."""
    made = _unpadded(settings, base)
    seconds = settings.count("chunk_length", 30)
    samples, hop = seconds * base.sample_rate, made["hop_length"]
    default = {"audio-flamingo-3": 600, "music-flamingo": 1_200, "glm-asr": 655}[base.name]
    longest = Settings(settings.whole, {}).count("max_audio_len", default)
    if samples % hop or longest < seconds:
        raise InvalidOptions(f"chunk_length is whole hops within max_audio_len here; got {seconds}")
    return {**made, "pad_samples": samples, "split_frames": samples // hop, "max_splits": longest // seconds}


def _qwen3_asr(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    settings.require("dither", 0)
    settings.require("n_window", 50)
    settings.padding()
    samples = settings.own.get("min_length")
    return {
        **_centred(settings, base, window=False),
        "min_samples": 0 if samples == 0 else settings.count("min_length", base.min_samples),
    }


def _voxtral_realtime(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    made = _centred(settings, base, window=False)
    if settings.count("win_length", base.win_length) != made["n_fft"]:
        raise InvalidOptions(f"win_length is n_fft, {made['n_fft']}, here; got {shown(settings.get('win_length'))}")
    if "global_log_mel_max" in settings.own and settings.get("global_log_mel_max") is None:
        return {**made, "clamp": "clip_max", "fixed_max": 0.0}
    return {**made, "fixed_max": settings.number("global_log_mel_max", base.fixed_max)}


def _gemma(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    settings.require("dither", 0)
    settings.padding()
    settings.require_around("audio_seq_length", 188 if base.name == "gemma3n" else 750)
    preemphasis = settings.number("preemphasis", base.frame_preemphasis)
    if preemphasis and not settings.whether("preemphasis_htk_flavor", True):
        raise InvalidOptions("preemphasis_htk_flavor=false is not supported: it reads past each frame")
    default_ms = 1_000 * base.win_length / base.sample_rate
    window = round(base.sample_rate * settings.number("frame_length_ms", default_ms) / 1_000)
    if not 2 <= window <= 16_384:
        raise InvalidOptions(f"frame_length_ms gives 2 .. 16384 samples; got {shown(settings.get('frame_length_ms'))}")
    overdrive = settings.whether("fft_overdrive", base.name == "gemma3n")
    mels = settings.count("feature_size", base.n_mels)
    return {
        "n_mels": mels,
        "win_length": window,
        "n_fft": 2 ** math.ceil(math.log2(window)) * (2 if overdrive else 1),
        "hop_length": round(base.sample_rate * settings.number("hop_length_ms", 10.0) / 1_000),
        "pad_left": window // 2 if base.pad_left else 0,
        "f_min": settings.number("min_frequency", base.f_min),
        "f_max": settings.number("max_frequency", base.f_max),
        "frame_preemphasis": preemphasis,
        "input_scale": settings.number("input_scale_factor", 1.0),
        "floor": settings.number("mel_floor", base.floor),
        "bin_mean": settings.numbers("per_bin_mean", mels),
        "bin_std": settings.numbers("per_bin_stddev", mels),
    }


def _gemma4_unified(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    return {"frame_samples": settings.count("audio_samples_per_token", base.frame_samples)}


def _phi4(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    settings.require("audio_compression_rate", 8)
    settings.require("audio_downsample_rate", 1)
    settings.require("audio_feat_stride", 1)
    return {
        **_at_left(settings, base),
        "frame_preemphasis": settings.number("preemphasis", base.frame_preemphasis),
        "f_min": settings.number("mel_min_frequency", base.f_min),
        "f_max": settings.number("mel_max_frequency", base.f_max),
    }


def _at_left(settings: Settings, base: MelSpec) -> Changes:
    return {**_centred(settings, base), "pad_left": 0, "pad_right": 0}


def _lasr(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    return _at_left(settings, base)


def _granite(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    settings.require("projector_window_size", 15)
    settings.require("projector_downsample_rate", 5)
    made = _centred(settings, base, mels="n_mels")
    saved = settings.get("melspec_kwargs")  # written beside them, and never read back
    known = {**made, "sample_rate": base.sample_rate}
    for name in ("n_mels", "n_fft", "win_length", "hop_length", "sample_rate"):
        if isinstance(saved, Mapping) and saved.get(name, known[name]) != known[name]:
            raise InvalidOptions(f"melspec_kwargs: {name} is {known[name]} here; got {shown(saved[name])}")
    return made


def _granite5(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    return {
        **_centred(settings, base, mels="num_mel_bins"),
        "delta_window": settings.count("delta_win_length", base.delta_window),
        "clamp_range": settings.number("logmel_floor_db", base.clamp_range),
    }


def _nemo(settings: Settings, base: MelSpec) -> Changes:
    settings.rate(base)
    off = "preemphasis" in settings.own and settings.get("preemphasis") is None
    preemphasis = 0.0 if off else settings.number("preemphasis", base.signal_preemphasis)
    return {**_centred(settings, base), "signal_preemphasis": preemphasis}


def _cohere(settings: Settings, base: MelSpec) -> Changes:
    made = _nemo(settings, base)
    samples = round(base.sample_rate * settings.number("max_audio_clip_s", 35.0))
    if samples < 1 or samples % made["hop_length"]:
        raise InvalidOptions(f"max_audio_clip_s is whole hops; got {shown(settings.get('max_audio_clip_s'))}")
    search = round(base.sample_rate * settings.number("overlap_chunk_second", 5.0))
    return {
        **made,
        "dither": max(0.0, settings.number("dither", base.dither)),
        "split_frames": samples // made["hop_length"],
        "split_search_samples": max(1, search),
        "split_window_samples": settings.count("min_energy_window_samples", base.split_window_samples),
    }


def _seamless(settings: Settings, base: MelSpec) -> Changes:
    rate = _even_rate(settings, base)
    settings.require("stride", 2)
    settings.padding()
    masked = settings.whether("return_attention_mask", True)
    return {
        "sample_rate": rate,
        "n_mels": settings.count("num_mel_bins", base.n_mels),
        "f_max": float(rate // 2),
        "mask_name": base.mask_name if masked else None,
    }


def _raw(settings: Settings, base: MelSpec) -> Changes:
    """Source: ``Wav2Vec2FeatureExtractor``; ``MoonshineStreamingProcessor`` pads what it passes on."""
    settings.require("feature_size", 1)
    made: Changes = {"sample_rate": settings.count("sampling_rate", base.sample_rate)}
    if not settings.whether("do_normalize", True):
        made |= {"normalize": "none", "norm_eps": 0.0, "eps_in_sqrt": False}
    if settings.whether("return_attention_mask", False):
        made |= {"mask_name": "attention_mask", "name": "wav2vec2-masked"}
    if settings.around("processor_class") == "MoonshineStreamingProcessor":
        settings.padding()
        made |= {"pad_to": "multiple", "pad_samples": _MOONSHINE_MULTIPLE, "name": "moonshine-streaming"}
    return made


READERS: dict[str, Callable[[Settings, MelSpec], Changes]] = {
    "whisper-80": _whisper,
    "qwen2-audio": _chunked,
    "qwen2.5-omni": _chunked,
    "qwen3-omni": _unpadded,
    "qwen3-asr": _qwen3_asr,
    "voxtral": _voxtral,
    "voxtral-realtime": _voxtral_realtime,
    "audio-flamingo-3": _windows,
    "music-flamingo": _windows,
    "glm-asr": _windows,
    "gemma3n": _gemma,
    "gemma4": _gemma,
    "gemma4-unified": _gemma4_unified,
    "phi4-multimodal": _phi4,
    "seamless-m4t": _seamless,
    "lasr": _lasr,
    "granite-speech": _granite,
    "granite-speech5": _granite5,
    "parakeet": _nemo,
    "nemotron-streaming": _nemo,
    "cohere-asr": _cohere,
    "wav2vec2": _raw,
}
