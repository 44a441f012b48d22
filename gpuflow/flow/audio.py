"""Audio from bytes to a placed ``Waveform`` or mel ``Features``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gpuflow.codecs.base import MediaType
from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import InvalidOptions
from gpuflow.flow.context import LoadContext
from gpuflow.isolation.decoding import Decoder, Sound
from gpuflow.isolation.wire import AudioWanted
from gpuflow.media import AudioMetadata, Blob, FeatureMetadata, Features, Waveform, lay_out
from gpuflow.ops.audio import place
from gpuflow.ops.mel import place_log_mel
from gpuflow.presets.mel import MelSpec, mel_spec

# Beyond a cut, so that the resampler sees what follows it: its filter reaches 276 samples (6 ms at 44.1 kHz, 35 at 8)
_MARGIN_SECONDS = 0.1


def load_audio(blob: Blob, kind: MediaType, options: AudioOptions, context: LoadContext) -> Waveform | Features:
    """Decode on the CPU, take the mean of the channels, resample, compute features on the device, place.

    A video container gives its first audio stream. Features of a clip longer than the spec's window are those of its
    beginning, as Hugging Face's extractor cuts it; the rest is not even decoded. On a GPU there is nothing to fall
    back from: no GPU decodes audio.

    Raises:
        GpuflowError: whatever ``decode_audio`` raises; ``InvalidOptions`` for an unknown spec or a rate outside
            ``Limits``; ``LimitExceeded`` for a result larger than allowed; ``NoSuchStream`` where resampling leaves no sample.
    """
    spec = _mel_of(options)
    rate = _target_rate(options, spec, context.limits)
    wanted = AudioWanted(
        start_seconds=options.start_seconds,
        duration_seconds=_seconds_to_decode(options, spec),
        mono=options.mono,
        sample_rate=rate,
        max_samples=spec.pad_samples if spec is not None else None,
        stream=options.stream,
    )
    with context.decoder(blob, kind, "audio") as decoder, _decoded(decoder, wanted, context) as sound:
        metadata = _describe(sound, options)
        with context.stage("place" if spec is None else "features"):
            if spec is None:
                return _place_waveform(sound, metadata, blob, context)
            return _place_features(sound, spec, metadata, blob, context)


@contextmanager
def _decoded(decoder: Decoder, wanted: AudioWanted, context: LoadContext) -> Iterator[Sound]:
    """Decoded and resampled, valid inside the block; the stage ends before it."""
    with ExitStack() as stack:
        with context.stage("decode"):
            sound = stack.enter_context(decoder.audio(wanted))
        yield sound


def _mel_of(options: AudioOptions) -> MelSpec | None:
    wanted = options.features
    if wanted is None or isinstance(wanted, MelSpec):
        return wanted
    if isinstance(wanted, str):
        return mel_spec(wanted)
    raise InvalidOptions(f"features is the name of a mel spec or a MelSpec; got {type(wanted).__name__}")


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


def _seconds_to_decode(options: AudioOptions, spec: MelSpec | None) -> float | None:
    if spec is None:
        return options.duration_seconds
    needed = spec.max_seconds + _MARGIN_SECONDS
    return needed if options.duration_seconds is None else min(options.duration_seconds, needed)


def _describe(sound: Sound, options: AudioOptions) -> AudioMetadata:
    count, rate = sound.samples.shape[1], sound.sample_rate
    return AudioMetadata(
        sound.codec, sound.channels, sound.source_rate, rate, count, count / rate, start_seconds=options.start_seconds,
        stream=sound.stream, num_streams=sound.num_streams,
    )  # fmt: skip


def _place_waveform(sound: Sound, metadata: AudioMetadata, blob: Blob, context: LoadContext) -> Waveform:
    specs = lay_out({"waveform": ("float32", sound.samples.shape)})
    with context.placing(specs, adopt=context.adoptable(sound.lease)) as lease:
        if lease is not sound.lease:
            place(sound.samples, lease, specs[0])
    return Waveform(lease, specs, metadata, backend=sound.backend, content_hash=blob.content_hash)


def _place_features(sound: Sound, spec: MelSpec, metadata: AudioMetadata, blob: Blob, context: LoadContext) -> Features:
    specs = lay_out({"input_features": ("float32", (spec.n_mels, spec.num_frames))})
    with context.placing(specs) as lease:
        valid_length = place_log_mel(sound.samples[0], spec, lease, specs[0])
    described = FeatureMetadata(spec.name, metadata, valid_length=valid_length)
    return Features(lease, specs, described, backend=sound.backend, content_hash=blob.content_hash)
