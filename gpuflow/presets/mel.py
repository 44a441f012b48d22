"""Mel specs: what a model family's feature extractor computes, as data. ``mel_specs.py`` has the built-in ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from gpuflow.errors import InvalidOptions
from gpuflow.presets.mel_hf import spec_fields
from gpuflow.presets.mel_rules import check_spec

Tokens = Literal["qwen2", "qwen3", "glm", "voxtral", "gemma3n", "gemma4", "phi4", "granite", "frames"]


@dataclass(frozen=True, slots=True)
class MelSpec:
    """What one speech front end makes of one clip; every field is one step, in this order.

    The clip, one channel at ``sample_rate`` Hz: cut to ``max_samples``; zero-padded to ``min_samples``, which then count
    as its own; zero-padded to ``pad_samples`` (``pad_to="fixed"``), to a multiple of it (``"multiple"``), so far that
    ``samples // hop_length`` frames, rounded up to a multiple of ``stack``, have their middle within it and are all there
    are (``"frames"``), or not at all; times ``input_scale``; ``dither`` times normal noise, by torch's generator on the
    CPU, seeded by the clip's length; ``x[n] - signal_preemphasis * x[n - 1]``, the first sample as it is and padding back
    to 0.

    ``kind="raw"`` ends here: ``(n,)``, or with ``frame_samples`` zero-padded ``(frames, frame_samples)``;
    ``normalize="clip"``: minus the clip's mean, by the root of its variance (ddof 0) plus ``norm_eps``, padding then 0.

    Frames: ``pad_left`` and ``pad_right`` samples more at the ends, zeros or reflected; every ``hop_length`` samples
    ``n_fft`` of them (``window_at="centre"``, the window in their middle, as ``torch.stft``) or ``win_length +
    frame_extra`` (``"left"``, the window at their beginning, zeros behind it); ``drop_last`` drops the last frame. Of the
    ``win_length`` samples that the window takes: their mean removed where ``remove_dc``; ``x[n] - frame_preemphasis *
    x[n - 1]``, with ``1 - frame_preemphasis`` of the first; the window, over one sample more where ``periodic``.

    Levels: magnitudes of the spectrum to the ``power``; ``n_mels`` triangles from ``f_min`` to ``f_max`` Hz, equally wide
    on ``mel_scale``, straight in Hz or in mel (``triangles``), of area 1 where ``mel_norm="slaney"``; ``log`` of
    ``max(x, floor)`` or ``x + floor``; raised to the clip's maximum, over all of its frames, minus ``clamp_range``
    (``clamp="clip_max"``) or to ``fixed_max`` minus it (``"fixed"``); ``x * scale + offset``; minus ``bin_mean``, by
    ``bin_std`` of each band; deltas over ``delta_window`` frames behind the bands, the end frames repeated.

    ``precision``: what frames, spectra, filters and logarithms are computed in; ``"float64"`` where Hugging Face does so:
    of a clean recording, bands that lie 100 dB under the others hold nothing but the rounding of float32.

    The whole: ``normalize="feature"``: minus each band's mean, by its deviation (ddof 1) over the valid frames,
    ``norm_eps`` inside the root where ``eps_in_sqrt``, else beside it; fewer than two valid frames deviate by 0; frames
    behind the valid ones are 0 where ``zero_invalid``; zero frames up to a multiple of ``frame_multiple``; ``stack``
    frames become one, what is left over is dropped; ``layout``: ``"MT"`` ``(bands, frames)``, ``"TM"`` ``(frames, bands)``.

    ``valid``: how many frames hold the clip, none beyond those that there are: ``floor_hop`` n // hop, ``ceil_hop`` the
    same rounded up, ``floor_hop_p1`` one more, ``win`` those whose window would end within the clip if it began at their
    place, ``last_sample`` those whose last sample is real.

    ``split="after_mel"`` cuts the features every ``split_frames`` frames, ``"before_mel"`` the clip every so many hops,
    ``"quietest"`` the clip where the last ``split_search_samples`` before that are quietest over ``split_window_samples``;
    there is a first axis of parts then, ``max_splits`` at most, the shorter parts zero-padded to the longest.

    Beside the features: ``mask_name``, 1 for each valid one (``mask_of="frames"``) or for each token (``"tokens"``), of
    ``mask_dtype``, none where it is ``None``; ``sizes_name``: ``(1,)`` int64, how many tokens. ``tokens``: whose rule says
    how many places the clip takes in a prompt (``audio_tokens.py``).

    Raises:
        InvalidOptions: a field of another type or out of range, or fields that contradict each other.
    """

    name: str
    kind: Literal["mel", "raw"] = "mel"
    sample_rate: int = 16_000
    max_samples: int | None = 480_000
    min_samples: int = 0
    pad_to: Literal["fixed", "multiple", "frames", "none"] = "fixed"
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
    precision: Literal["float32", "float64"] = "float32"

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
    split_search_samples: int = 80_000
    split_window_samples: int = 1_600
    max_splits: int | None = None

    features_name: str = "input_features"
    mask_name: str | None = None
    mask_dtype: Literal["int32", "int64", "bool"] = "int32"
    mask_of: Literal["frames", "tokens"] = "frames"
    sizes_name: str | None = None
    tokens: Tokens | None = None

    def __post_init__(self) -> None:
        check_spec(self)

    @property
    def most_samples(self) -> int | None:
        """What is beyond them is cut off; ``None``: nothing is."""
        caps = [cap for cap in (self.max_samples, self._most_of_splits) if cap is not None]
        return min(caps) if caps else None

    @property
    def _most_of_splits(self) -> int | None:
        if self.split == "none" or self.max_splits is None:
            return None
        return self.max_splits * self.split_frames * self.hop_length

    @classmethod
    def from_hf(cls, config: Mapping[str, Any] | str | os.PathLike[str]) -> Self:
        """The spec of a Hugging Face feature extractor, as the processor around it calls it.

        Args:
            config: its ``preprocessor_config.json`` or the processor's ``processor_config.json``: as a mapping, as the
                file's path, or the path of the folder with either or both.

        Raises:
            InvalidOptions: no such file, an extractor of another kind, a value of the wrong kind, or a setting that a
                spec does not express.
        """
        fields = spec_fields(config)
        try:
            return cls(**fields)
        except InvalidOptions as error:
            raise InvalidOptions(f"a spec cannot express this configuration: {error}") from error
