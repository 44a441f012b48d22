"""What options want of a sound: from where it is decoded, at which rate, where it is cut, which features."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from numpy.typing import NDArray

from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import InvalidOptions
from gpuflow.isolation.wire import AudioWanted
from gpuflow.ops.audio_parts import quietest_parts, window_parts
from gpuflow.ops.mel import planned
from gpuflow.presets.clip_plan import ClipPlan, Parts, clip_plan
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import mel_plan
from gpuflow.presets.mel_specs import mel_spec

# Beyond a cut, so that the resampler sees what follows it: its filter reaches 276 samples (6 ms at 44.1 kHz, 35 at 8)
_MARGIN_SECONDS = 0.1
_FAR_SAMPLES = 1 << 17  # farther than the first frame of any spec reaches
_WINDOWS_A_SECOND = 10  # of which the quietest is looked for: 1,600 samples at 16 kHz, as in vLLM and SGLang

Mono = Callable[[], NDArray[Any]]
"""The mean of the channels, ``(n,)`` float32 at the result's rate: for those who cut by it."""


@dataclass(frozen=True, slots=True)
class SoundWanted:
    """``spec``: of the features, of one part where options cut; ``None``: the waveform. ``rate``: of the result; ``None``:
    the file's own. ``zero_seconds``: as in ``decode_audio``."""

    options: AudioOptions
    spec: MelSpec | None
    rate: int | None
    zero_seconds: float | None = None

    @classmethod
    def of(cls, options: AudioOptions, limits: Limits, zero_seconds: float | None = None) -> Self:
        """What is wanted.

        Raises:
            InvalidOptions: an unknown spec, a split that it does not take, or a rate outside ``limits``.
        """
        spec = _mel_of(options)
        return cls(options, spec, _target_rate(options, spec, limits), zero_seconds)

    @property
    def mono(self) -> bool:
        """Whether the mean of the channels is wanted."""
        return self.options.mono

    @property
    def most_samples(self) -> int | None:
        """What a spec would cut off; of a clip that is split it cuts off nothing."""
        return self.spec.most_samples if self.spec is not None and self.options.split is None else None

    @property
    def by_ear(self) -> bool:
        """Whether it is cut by what it sounds like."""
        return self.options.split == "quietest" or (self.spec is not None and self.spec.split == "quietest")

    @property
    def seconds_to_decode(self) -> float | None:
        """Of the section, with what the resampler sees behind it."""
        most, wanted = self.most_samples, self.options.duration_seconds
        if self.spec is None or most is None:
            return wanted
        needed = most / self.spec.sample_rate + _MARGIN_SECONDS
        return needed if wanted is None else min(wanted, needed)

    def decoding(self) -> AudioWanted:
        """What a decoder is told that also resamples."""
        return AudioWanted(
            start_seconds=self.options.start_seconds,
            duration_seconds=self.seconds_to_decode,
            mono=self.mono,
            sample_rate=self.rate,
            max_samples=self.most_samples,
            stream=self.options.stream,
            zero_seconds=self.zero_seconds,
        )

    def parts(self, count: int, rate: int, mono: Mono) -> Parts | None:
        """Where ``options.split`` cuts ``count`` samples; ``None`` without one. Seconds become samples as in the rules'
        sources."""
        options, length = self.options, self.options.split_seconds
        if options.split is None:
            return None
        if options.split == "windows":
            overlap = 2 * round(options.overlap_seconds / 2 * rate)
            return window_parts(count, length=round(length * rate), overlap=overlap)
        search = int(options.search_seconds * rate)
        return quietest_parts(mono(), limit=int(length * rate), search=search, window=rate // _WINDOWS_A_SECOND)

    def clip(self, spec: MelSpec, count: int, mono: Mono) -> ClipPlan:
        """The plan of the features of ``count`` samples at the spec's rate.

        Raises:
            LimitExceeded: too many parts.
            NoSuchStream: too short for a frame.
        """
        parts, dtype = self.parts(count, spec.sample_rate, mono), self.options.dtype or "float32"
        if parts is not None:
            spec = _taking_the_shortest(spec, min(last - first for first, last in parts))
        if parts is None and spec.split == "quietest":
            return planned(mono(), spec, dtype=dtype)
        return clip_plan(spec, count, parts=parts, dtype=dtype)


def _mel_of(options: AudioOptions) -> MelSpec | None:
    wanted = options.features
    if wanted is None:
        return None
    spec = mel_spec(wanted) if isinstance(wanted, str) else wanted
    if not isinstance(spec, MelSpec):
        raise InvalidOptions(f"features is the name of a mel spec or a MelSpec; got {type(wanted).__name__}")
    return spec if options.split is None else _in_given_parts(spec, options)


def _in_given_parts(spec: MelSpec, options: AudioOptions) -> MelSpec:
    """The spec of each part. What it would cut off a part is refused: it would be lost in the middle of the clip."""
    if spec.split == "after_mel":
        raise InvalidOptions(f"{spec.name} cuts features, and not sound: leave split out")
    caps = (spec.max_samples, spec.pad_samples if spec.pad_to == "fixed" else None)
    most = min((cap for cap in caps if cap is not None), default=None)
    if most is not None and round(options.split_seconds * spec.sample_rate) > most:
        raise InvalidOptions(
            f"{spec.name} takes {most / spec.sample_rate:g} s at once: split_seconds is at most that; "
            f"got {options.split_seconds:g}"
        )
    return replace(spec, split="none", max_splits=None)


def _target_rate(options: AudioOptions, spec: MelSpec | None, limits: Limits) -> int | None:
    if spec is not None and options.sample_rate not in (None, spec.sample_rate):
        raise InvalidOptions(
            f"{spec.name} features need {spec.sample_rate} Hz: leave sample_rate out; got {options.sample_rate}"
        )
    rate = spec.sample_rate if spec is not None else options.sample_rate
    if rate is not None and not limits.min_sample_rate_hz <= rate <= limits.max_sample_rate_hz:
        raise InvalidOptions(
            f"sample_rate lies in {limits.min_sample_rate_hz} .. {limits.max_sample_rate_hz} Hz; got {rate}"
        )
    return rate


def _taking_the_shortest(spec: MelSpec, num_samples: int) -> MelSpec:
    """Zero-pad a part that is too short for a frame, the last of a clip: it is no reason to refuse the others."""
    if _has_frames(spec, num_samples) or spec.dither or spec.signal_preemphasis:
        return spec
    least = bisect_left(range(_FAR_SAMPLES), True, key=lambda count: _has_frames(spec, count))
    return replace(spec, min_samples=least)


def _has_frames(spec: MelSpec, num_samples: int) -> bool:
    return 0 not in mel_plan(spec, num_samples).shape
