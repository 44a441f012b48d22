"""Mel specs: what a model family's feature extractor computes, as data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from gpuflow.errors import InvalidOptions
from gpuflow.values import check_fields, shown

_CONFIG_FILE = "preprocessor_config.json"


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise InvalidOptions(f"mel spec: {rule}; got {shown(got)}")


@dataclass(frozen=True, slots=True)
class MelSpec:
    """Log-mel features of one clip, ``(n_mels, num_frames)`` float32.

    The clip is cut and zero-padded to ``pad_samples``, reflected by ``pad_left`` and ``pad_right`` samples at its ends,
    and cut into ``n_fft`` long frames under a periodic Hann window; the last frame is dropped. Slaney mel filters
    (triangles in Hz, area 1) of the squared spectrum give ``log10(max(mel, floor))``; values more than
    ``clamp_range`` under the clip's largest are raised to there, then ``value * scale + offset``.

    Raises:
        InvalidOptions: sizes that contradict each other.
    """

    name: str
    sample_rate: int = 16_000
    n_mels: int = 80
    n_fft: int = 400
    hop_length: int = 160
    pad_left: int = 200
    pad_right: int = 200
    pad_samples: int = 480_000
    f_min: float = 0.0
    f_max: float = 8_000.0
    floor: float = 1e-10
    clamp_range: float = 8.0
    scale: float = 0.25
    offset: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        _require(self.pad_left >= 0 and self.pad_right >= 0, "padding is 0 or more", self.pad_left)
        _require(self.sample_rate > 0, "sample_rate lies above 0", self.sample_rate)
        _require(1 <= self.n_mels <= 1024, "n_mels is 1 .. 1024", self.n_mels)
        _require(2 <= self.n_fft <= 65_536 and self.n_fft % 2 == 0, "n_fft is even, 2 .. 65536", self.n_fft)
        _require(1 <= self.hop_length <= self.n_fft, "hop_length is 1 .. n_fft", self.hop_length)
        _require(self.pad_left + self.pad_right == self.n_fft, "pad_left and pad_right sum to n_fft", self.pad_left)
        _require(self.n_fft < self.pad_samples <= 1 << 28, "pad_samples lies above n_fft", self.pad_samples)
        _require(0 <= self.f_min < self.f_max <= self.sample_rate / 2, "f_min < f_max <= sample_rate / 2", self.f_max)
        _require(self.floor > 0, "floor lies above 0", self.floor)

    @property
    def num_frames(self) -> int:
        """Frames of every result, whatever the clip's length."""
        return self.pad_samples // self.hop_length

    @property
    def max_seconds(self) -> float:
        """What is beyond it is cut off."""
        return self.pad_samples / self.sample_rate

    @classmethod
    def from_hf(cls, config: Mapping[str, Any] | str | os.PathLike[str]) -> Self:
        """The spec of a Hugging Face feature extractor.

        Args:
            config: its ``preprocessor_config.json``: as a mapping, as the file's path, or the path of its folder.

        Raises:
            InvalidOptions: no such file, an extractor of another kind, or a setting that this spec does not express.
        """
        values = config if isinstance(config, Mapping) else _read_config(Path(config))
        kind = values.get("feature_extractor_type")
        if kind != "WhisperFeatureExtractor":
            raise InvalidOptions(f"feature_extractor_type is WhisperFeatureExtractor here; got {shown(kind)}")
        for name in ("dither", "padding_value", "do_normalize"):
            if values.get(name):
                raise InvalidOptions(f"{name}={shown(values[name])} is not supported: Whisper's checkpoints have 0")
        rate, n_fft = _int(values, "sampling_rate", 16_000), _int(values, "n_fft", 400)
        return cls(
            name=f"whisper-{_int(values, 'feature_size', 80)}",
            sample_rate=rate,
            n_mels=_int(values, "feature_size", 80),
            n_fft=n_fft,
            hop_length=_int(values, "hop_length", 160),
            pad_left=n_fft // 2,
            pad_right=n_fft // 2,
            pad_samples=_int(values, "chunk_length", 30) * rate,
        )


_WHISPER_80 = MelSpec("whisper-80")
_WHISPER_128 = replace(_WHISPER_80, name="whisper-128", n_mels=128)
_SPECS = {spec.name: spec for spec in (_WHISPER_80, _WHISPER_128)}
_ALIASES = {  # checkpoints whose extractor has the very same settings
    "whisper-large-v2": "whisper-80",
    "whisper-large-v3": "whisper-128",
    "qwen2-audio": "whisper-128",
}


def mel_spec_names() -> tuple[str, ...]:
    """Every name that ``mel_spec`` takes."""
    return (*_SPECS, *_ALIASES)


def mel_spec(name: str) -> MelSpec:
    """A built-in spec by its name or by a model's.

    Raises:
        InvalidOptions: no such name; lists them.
    """
    spec = _SPECS.get(_ALIASES.get(name, name))
    if spec is None:
        raise InvalidOptions(f"no mel spec {shown(name)}; there are {', '.join(mel_spec_names())}")
    return spec


def _int(values: Mapping[str, Any], name: str, default: int) -> int:
    value = values.get(name, default)
    _require(isinstance(value, int) and not isinstance(value, bool) and value > 0, f"{name} is a number above 0", value)
    return int(value)


def _read_config(path: Path) -> Mapping[str, Any]:
    file = path / _CONFIG_FILE if os.path.isdir(path) else path
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidOptions(f"no readable {_CONFIG_FILE} at the path that was given") from error
    if not isinstance(values, dict):
        raise InvalidOptions(f"{_CONFIG_FILE} holds no object; got {type(values).__name__}")
    return values
