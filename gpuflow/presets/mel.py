"""Mel specs: what a model family's feature extractor computes, as data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from gpuflow.errors import InvalidOptions
from gpuflow.values import check_fields, shown

_CONFIG_FILE = "preprocessor_config.json"


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise InvalidOptions(f"mel spec: {rule}; got {shown(got)}")


@dataclass(frozen=True, slots=True)
class MelSpec:
    """What one speech front end makes of one clip; every field is one step, in this order.

    The clip, one channel at ``sample_rate`` Hz: cut to ``max_samples``; zero-padded to ``min_samples``, which then count
    as its own; zero-padded to ``pad_samples`` (``pad_to="fixed"``), to a multiple of it (``"multiple"``) or not at all;
    times ``input_scale``; ``dither`` times normal noise, seeded by its length; ``x[n] - signal_preemphasis * x[n - 1]``,
    the first sample as it is and padding back to 0.

    ``kind="raw"`` ends here: ``(n,)`` float32, ``frame_samples > 0``: ``(frames, frame_samples)``; normalised by the clip's
    own mean and variance where ``normalize="clip"``.

    Frames: ``pad_left`` and ``pad_right`` samples more at the ends, zeros or reflected; every ``hop_length`` samples
    ``win_length + frame_extra`` of them, of which the window takes the first ``win_length``; ``drop_last`` drops the last
    frame. In each: its mean removed where ``remove_dc``, ``x[n] - frame_preemphasis * x[n - 1]`` with ``1 -
    frame_preemphasis`` of the first sample, the window, and zeros up to ``n_fft``: behind it, or on both sides
    (``window_at="centre"``, where frames are ``n_fft`` apart in reach: as ``torch.stft``).

    Levels: magnitudes of the spectrum to the ``power``; ``n_mels`` triangles from ``f_min`` to ``f_max`` Hz, equally wide
    on ``mel_scale``, straight in Hz or in mel (``triangles``), of area 1 where ``mel_norm="slaney"``; ``log`` of
    ``max(x, floor)`` or ``x + floor``; raised to the clip's maximum minus ``clamp_range`` (``clamp="clip_max"``) or to
    ``fixed_max`` minus it (``"fixed"``); ``x * scale + offset``; ``bin_mean`` and ``bin_std`` a band; deltas over
    ``delta_window`` frames beside them.

    The whole: ``normalize="feature"`` subtracts each band's mean and divides by its deviation (ddof 1) over the valid
    frames, ``norm_eps`` inside the root where ``eps_in_sqrt``, else beside it; frames behind the valid ones are 0 where
    ``zero_invalid``; zero frames up to a multiple of ``frame_multiple``; ``stack`` frames become one; ``layout``: ``"MT"``
    ``(n_mels, frames)``, ``"TM"`` ``(frames, n_mels)``.

    ``valid``: how many frames hold the clip: ``floor_hop`` n // hop, ``ceil_hop`` the same rounded up, ``floor_hop_p1`` one
    more, ``win`` those whose window ends within it, ``last_sample`` those whose last sample is real.

    ``split="after_mel"`` cuts the features every ``split_frames`` frames, ``"before_mel"`` the clip every so many hops,
    ``"quietest"`` the clip where it is quietest before that; there is a first axis of parts then, ``max_splits`` at most.

    Raises:
        InvalidOptions: sizes that contradict each other.
    """

    name: str
    kind: Literal["mel", "raw"] = "mel"
    sample_rate: int = 16_000
    max_samples: int | None = 480_000
    min_samples: int = 0
    pad_to: Literal["fixed", "multiple", "none"] = "fixed"
    pad_samples: int = 480_000
    input_scale: float = 1.0
    dither: float = 0.0
    signal_preemphasis: float = 0.0
    frame_samples: int = 0

    n_fft: int = 400
    win_length: int = 400
    hop_length: int = 160
    window: Literal["hann", "hamming", "povey", "ones"] = "hann"
    periodic: bool = True
    window_at: Literal["centre", "left"] = "centre"
    pad_left: int = 200
    pad_right: int = 200
    pad_mode: Literal["reflect", "constant"] = "reflect"
    frame_extra: int = 0
    drop_last: bool = True
    remove_dc: bool = False
    frame_preemphasis: float = 0.0

    power: Literal[1, 2] = 2
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8_000.0
    mel_scale: Literal["slaney", "htk", "kaldi"] = "slaney"
    mel_norm: Literal["slaney"] | None = "slaney"
    triangles: Literal["hz", "mel"] = "hz"
    log: Literal["log10", "ln"] = "log10"
    floor: float = 1e-10
    floor_mode: Literal["max", "add"] = "max"
    clamp: Literal["none", "clip_max", "fixed"] = "clip_max"
    clamp_range: float = 8.0
    fixed_max: float = 0.0
    scale: float = 0.25
    offset: float = 1.0
    bin_mean: tuple[float, ...] = ()
    bin_std: tuple[float, ...] = ()
    delta_window: int = 0

    normalize: Literal["none", "feature", "clip"] = "none"
    norm_eps: float = 0.0
    eps_in_sqrt: bool = False
    valid: Literal["ceil_hop", "floor_hop", "floor_hop_p1", "win", "last_sample"] = "ceil_hop"
    zero_invalid: bool = False
    frame_multiple: int = 1
    stack: int = 1
    layout: Literal["MT", "TM"] = "MT"
    split: Literal["none", "after_mel", "before_mel", "quietest"] = "none"
    split_frames: int = 3_000
    max_splits: int | None = None

    features_name: str = "input_features"
    mask_name: str = "attention_mask"
    tokens: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _require(self.pad_left >= 0 and self.pad_right >= 0, "padding is 0 or more", self.pad_left)
        _require(self.sample_rate > 0, "sample_rate lies above 0", self.sample_rate)
        _require(1 <= self.n_mels <= 1024, "n_mels is 1 .. 1024", self.n_mels)
        _require(2 <= self.n_fft <= 65_536 and self.n_fft % 2 == 0, "n_fft is even, 2 .. 65536", self.n_fft)
        _require(1 <= self.win_length <= self.n_fft, "win_length is 1 .. n_fft", self.win_length)
        _require(1 <= self.hop_length <= self.n_fft, "hop_length is 1 .. n_fft", self.hop_length)
        _require(1 <= self.pad_samples <= 1 << 28, "pad_samples is 1 .. 2^28", self.pad_samples)
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
