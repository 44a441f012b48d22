"""The rules that a mel spec's fields keep: ranges, and what contradicts what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuflow.errors import InvalidOptions
from gpuflow.values import check_fields, shown

if TYPE_CHECKING:
    from gpuflow.presets.mel import MelSpec

MAX_SAMPLES = 1 << 26
"""Of one clip with its padding: 70 minutes at 16 kHz."""
_MAX_N_FFT = 16_384
_MOST_FRAMES_A_WINDOW = 64
_SMALLEST_FLOOR = 1e-30  # and so a float32, with room below it
_RANGES: dict[str, tuple[float, float]] = {
    "sample_rate": (1, 768_000),
    "max_samples": (1, MAX_SAMPLES),
    "min_samples": (0, MAX_SAMPLES),
    "pad_samples": (1, MAX_SAMPLES),
    "dither": (0, 1),
    "signal_preemphasis": (0, 1),
    "frame_samples": (0, 65_536),
    "n_fft": (2, _MAX_N_FFT),
    "win_length": (1, _MAX_N_FFT),
    "hop_length": (1, _MAX_N_FFT),
    "pad_left": (0, _MAX_N_FFT),
    "pad_right": (0, _MAX_N_FFT),
    "frame_extra": (0, _MAX_N_FFT),
    "frame_preemphasis": (0, 1),
    "n_mels": (1, 1_024),
    "floor": (_SMALLEST_FLOOR, 1e6),
    "clamp_range": (0, 1e3),
    "delta_window": (0, 255),
    "norm_eps": (0, 1),
    "frame_multiple": (1, 65_536),
    "stack": (1, 64),
    "split_frames": (1, MAX_SAMPLES),
    "split_search_samples": (1, MAX_SAMPLES),
    "split_window_samples": (1, MAX_SAMPLES),
    "max_splits": (1, 10_000),
}


def check_spec(spec: MelSpec) -> None:
    """Hold every field to its type and range, and to the others.

    Raises:
        InvalidOptions: names the rule and what was received.
    """
    check_fields(spec)
    for name, (least, most) in _RANGES.items():
        value = getattr(spec, name)
        require(value is None or least <= value <= most, f"{name} is {least:g} .. {most:g}", value)
    _check_names(spec)
    _check_clip(spec)
    _check_split(spec)
    if spec.kind == "raw":
        _check_raw(spec)
    else:
        _check_frames(spec)
        _check_levels(spec)


def require(holds: bool, rule: str, got: object) -> None:
    """Raise ``InvalidOptions`` unless the rule holds."""
    if not holds:
        raise InvalidOptions(f"mel spec: {rule}; got {shown(got)}")


def _check_names(spec: MelSpec) -> None:
    names = [name for name in (spec.features_name, spec.mask_name, spec.sizes_name) if name is not None]
    fit = all(name.isidentifier() and len(name) <= 64 for name in names)
    require(fit and len(set(names)) == len(names), "tensors have names of their own", names)
    require(1 <= len(spec.name) <= 64, "name has 1 .. 64 characters", spec.name)
    needs_tokens = spec.sizes_name is not None or (spec.mask_name is not None and spec.mask_of == "tokens")
    require(spec.tokens is not None or not needs_tokens, "a count or a mask of tokens needs their rule", spec.tokens)


def _check_clip(spec: MelSpec) -> None:
    require(1e-9 <= abs(spec.input_scale) <= 1e9, "input_scale is 1e-9 .. 1e9 in size", spec.input_scale)
    most = spec.most_samples
    require(most is None or spec.min_samples <= most, "min_samples lies within what is not cut off", spec.min_samples)
    quiet = spec.min_samples == 0 or not (spec.dither or spec.signal_preemphasis)
    require(quiet, "min_samples pads what is neither dithered nor pre-emphasised", spec.min_samples)


def _check_raw(spec: MelSpec) -> None:
    require(spec.normalize != "feature", "raw samples are normalised by the clip or not at all", spec.normalize)
    require(not (spec.frame_samples and spec.normalize == "clip"), "raw frames are not normalised", spec.normalize)
    require(spec.split == "none", "raw samples are not split", spec.split)
    require(spec.pad_to != "frames", "raw samples are padded to samples", spec.pad_to)
    require(spec.precision == "float32", "raw samples are float32", spec.precision)


def _check_frames(spec: MelSpec) -> None:
    require(spec.frame_samples == 0, "frame_samples is of raw samples", spec.frame_samples)
    require(spec.n_fft % 2 == 0, "n_fft is even", spec.n_fft)
    require(spec.win_length <= spec.n_fft, "win_length is at most n_fft", spec.win_length)
    require(spec.hop_length <= spec.n_fft, "hop_length is at most n_fft", spec.hop_length)
    often = spec.n_fft <= _MOST_FRAMES_A_WINDOW * spec.hop_length
    require(often, f"a sample lies in {_MOST_FRAMES_A_WINDOW} frames at most", spec.hop_length)
    widest = spec.n_fft // 2 if spec.pad_mode == "reflect" else spec.n_fft
    require(max(spec.pad_left, spec.pad_right) <= widest, f"padding is at most {widest} here", spec.pad_left)
    at_left = spec.window_at == "left"
    require(at_left or spec.frame_extra == 0, "frame_extra goes with window_at='left'", spec.frame_extra)
    centred = spec.pad_left == spec.pad_right == spec.n_fft // 2 and not spec.drop_last
    require(spec.pad_to != "frames" or centred, "pad_to='frames' is of frames about their middle", spec.pad_left)


def _check_levels(spec: MelSpec) -> None:
    require(0 <= spec.f_min < spec.f_max <= spec.sample_rate / 2, "f_min < f_max <= sample_rate / 2", spec.f_max)
    require(abs(spec.scale) >= 1e-9, "scale is not 0", spec.scale)
    for name in ("bin_mean", "bin_std"):
        values = getattr(spec, name)
        fits = isinstance(values, tuple) and len(values) in (0, spec.n_mels)
        require(fits, f"{name} is a tuple, empty or of n_mels", values)
    require(all(abs(value) >= 1e-9 for value in spec.bin_std), "no bin_std is 0", spec.bin_std)
    odd = spec.delta_window == 0 or (spec.delta_window >= 3 and spec.delta_window % 2 == 1)
    require(odd, "delta_window is 0 or odd, 3 or more", spec.delta_window)
    require(spec.normalize != "clip", "normalize='clip' is of raw samples", spec.normalize)


def _check_split(spec: MelSpec) -> None:
    samples = spec.split_frames * spec.hop_length
    if spec.split == "none":
        require(spec.max_splits is None, "max_splits goes with split", spec.max_splits)
        return
    require(samples <= MAX_SAMPLES, f"a part has {MAX_SAMPLES} samples at most", samples)
    if spec.split == "after_mel":
        fits = spec.pad_to == "multiple" and spec.pad_samples % samples == 0
        require(fits, "split='after_mel' needs padding to a multiple of its parts", spec.pad_samples)
        a_frame_a_hop = spec.window_at == "centre" and spec.pad_left + spec.pad_right == spec.n_fft and spec.drop_last
        require(a_frame_a_hop and spec.stack == 1, "split='after_mel' needs a frame a hop", spec.pad_left)
    elif spec.split == "before_mel":
        fits = spec.pad_to == "fixed" and samples <= spec.pad_samples
        require(fits, "split='before_mel' needs parts padded to one length", spec.pad_samples)
    else:
        fits = spec.pad_to == "none" and spec.zero_invalid and spec.frame_multiple == 1
        require(fits, "split='quietest' needs parts that are not padded, and zero_invalid", spec.pad_to)
        require(
            spec.split_search_samples <= samples, "split_search_samples lies within a part", spec.split_search_samples
        )
