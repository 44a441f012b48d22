"""Audio from bytes to a placed ``Waveform`` or mel ``Features``."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from gpuflow.codecs.base import MediaType
from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import InvalidOptions
from gpuflow.flow.context import LoadContext
from gpuflow.isolation.decoding import Decoder, Sound
from gpuflow.isolation.wire import AudioWanted
from gpuflow.media import AudioMetadata, Blob, FeatureMetadata, Features, Waveform, lay_out
from gpuflow.ops.audio import down_mix, place
from gpuflow.ops.audio_parts import Parts, quietest_parts, window_parts
from gpuflow.ops.mel import place_features, planned
from gpuflow.presets.clip_plan import ClipPlan
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import mel_plan
from gpuflow.presets.mel_specs import mel_spec

# Beyond a cut, so that the resampler sees what follows it: its filter reaches 276 samples (6 ms at 44.1 kHz, 35 at 8)
_MARGIN_SECONDS = 0.1
_FAR_SAMPLES = 1 << 17  # farther than the first frame of any spec reaches
_WINDOWS_A_SECOND = 10  # of which the quietest is looked for: 1,600 samples at 16 kHz, as in vLLM and SGLang


def load_audio(blob: Blob, kind: MediaType, options: AudioOptions, context: LoadContext) -> Waveform | Features:
    """Decode on the CPU, take the mean of the channels, resample, compute features on the device, place.

    A container gives its first audio stream, or the one that is named. What a spec cuts off, as Hugging Face's extractor
    does, is not even decoded; what is split is decoded once, whole. On a GPU there is nothing to fall back from: no GPU
    decodes audio.

    Raises:
        GpuflowError: whatever ``decode_audio`` raises; ``InvalidOptions`` for an unknown spec, a split that it does not
            take, or a rate outside ``Limits``; ``LimitExceeded`` for a result larger than allowed or of too many parts,
            before features are computed; ``NoSuchStream`` where resampling leaves no sample, or none for a frame.
    """
    spec = _mel_of(options)
    rate = _target_rate(options, spec, context.limits)
    wanted = AudioWanted(
        start_seconds=options.start_seconds,
        duration_seconds=_seconds_to_decode(options, spec),
        mono=options.mono,
        sample_rate=rate,
        max_samples=_most_samples(options, spec),
        stream=options.stream,
    )
    with (
        context.decoder(blob, kind, "audio") as decoder,
        _decoded(decoder, wanted, context) as sound,
        context.stage("place" if spec is None else "features"),
    ):
        if spec is None:
            return _place_waveform(sound, options, blob, context)
        return _place_features(sound, spec, options, blob, context)


@contextmanager
def _decoded(decoder: Decoder, wanted: AudioWanted, context: LoadContext) -> Iterator[Sound]:
    """Decoded and resampled, valid inside the block; the stage ends before it."""
    with ExitStack() as stack:
        with context.stage("decode"):
            sound = stack.enter_context(decoder.audio(wanted))
        yield sound


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


def _most_samples(options: AudioOptions, spec: MelSpec | None) -> int | None:
    """What a spec would cut off; of a clip that is split it cuts off nothing."""
    return spec.most_samples if spec is not None and options.split is None else None


def _seconds_to_decode(options: AudioOptions, spec: MelSpec | None) -> float | None:
    most = _most_samples(options, spec)
    if spec is None or most is None:
        return options.duration_seconds
    needed = most / spec.sample_rate + _MARGIN_SECONDS
    return needed if options.duration_seconds is None else min(options.duration_seconds, needed)


def _parts(sound: Sound, options: AudioOptions) -> Parts | None:
    """Where ``options.split`` cuts it; ``None`` without one. Seconds become samples as in the rules' sources."""
    rate, length = sound.sample_rate, options.split_seconds
    if options.split is None:
        return None
    if options.split == "windows":
        overlap = 2 * round(options.overlap_seconds / 2 * rate)
        return window_parts(sound.samples.shape[1], length=round(length * rate), overlap=overlap)
    mono, search = down_mix(sound.samples)[0], int(options.search_seconds * rate)
    return quietest_parts(mono, limit=int(length * rate), search=search, window=rate // _WINDOWS_A_SECOND)


def _describe(sound: Sound, options: AudioOptions, parts: Parts = ()) -> AudioMetadata:
    count, rate = sound.samples.shape[1], sound.sample_rate
    return AudioMetadata(
        sound.codec, sound.channels, sound.source_rate, rate, count, count / rate, options.start_seconds, parts
    )


def _place_waveform(sound: Sound, options: AudioOptions, blob: Blob, context: LoadContext) -> Waveform:
    specs = lay_out({"waveform": ("float32", sound.samples.shape)})
    metadata = _describe(sound, options, _parts(sound, options) or ())
    with context.placing(specs, adopt=context.adoptable(sound.lease)) as lease:
        if lease is not sound.lease:
            place(sound.samples, lease, specs[0])
    return Waveform(lease, specs, metadata, backend=sound.backend, content_hash=blob.content_hash)


def _place_features(sound: Sound, spec: MelSpec, options: AudioOptions, blob: Blob, context: LoadContext) -> Features:
    clip = _plan(sound, spec, options)
    specs = lay_out(clip.tensors)
    with context.placing(specs) as lease:
        place_features(sound.samples[0], clip, lease, specs)
    described = FeatureMetadata(
        spec.name,
        _describe(sound, options),
        valid_length=sum(clip.valid_lengths),
        num_tokens=clip.num_tokens,
        parts=clip.parts if clip.in_parts else (),
        valid_lengths=clip.valid_lengths if clip.in_parts else (),
    )
    return Features(lease, specs, described, backend=sound.backend, content_hash=blob.content_hash)


def _plan(sound: Sound, spec: MelSpec, options: AudioOptions) -> ClipPlan:
    parts = _parts(sound, options)
    if parts is not None:
        spec = _taking_the_shortest(spec, min(last - first for first, last in parts))
    return planned(sound.samples[0], spec, parts=parts, dtype=options.dtype or "float32")


def _taking_the_shortest(spec: MelSpec, num_samples: int) -> MelSpec:
    """Zero-pad a part that is too short for a frame, the last of a clip: it is no reason to refuse the others."""
    if _has_frames(spec, num_samples) or spec.dither or spec.signal_preemphasis:
        return spec
    least = bisect_left(range(_FAR_SAMPLES), True, key=lambda count: _has_frames(spec, count))
    return replace(spec, min_samples=least)


def _has_frames(spec: MelSpec, num_samples: int) -> bool:
    return 0 not in mel_plan(spec, num_samples).shape
