"""Audio from bytes to a placed ``Waveform`` or mel ``Features``, by the CPU; ``audio_steps.py`` is a GPU's way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.pcm import Origin
from gpuflow.config import AudioOptions
from gpuflow.flow.context import LoadContext
from gpuflow.flow.sound_wanted import SoundWanted
from gpuflow.isolation.decoding import Decoder, Sound
from gpuflow.isolation.wire import AudioWanted
from gpuflow.media import AudioMetadata, Blob, FeatureMetadata, Features, Waveform, lay_out
from gpuflow.ops.audio import down_mix, place
from gpuflow.ops.mel import place_features
from gpuflow.presets.clip_plan import ClipPlan, Parts
from gpuflow.presets.mel import MelSpec


def load_audio(
    blob: Blob, kind: MediaType, options: AudioOptions, context: LoadContext, *, zero_seconds: float | None = None
) -> Waveform | Features:
    """Decode, take the mean of the channels, resample, compute features, all on the CPU; place.

    A container gives its first audio stream, or the one that is named. What a spec cuts off, as Hugging Face's extractor
    does, is not even decoded; what is split is decoded once, whole. ``zero_seconds``: as in ``decode_audio``.

    Raises:
        GpuflowError: whatever ``decode_audio`` raises; ``InvalidOptions`` for an unknown spec, a split that it does not
            take, or a rate outside ``Limits``; ``LimitExceeded`` for a result larger than allowed or of too many parts,
            before features are computed; ``NoSuchStream`` where resampling leaves no sample, or none for a frame.
    """
    wanted = SoundWanted.of(options, context.limits, zero_seconds)
    with (
        context.decoder(blob, kind, "audio") as decoder,
        decoded(decoder, wanted.decoding(), context) as sound,
        context.stage("place" if wanted.spec is None else "features"),
    ):
        if wanted.spec is None:
            return _place_waveform(sound, wanted, blob, context)
        return _place_features(sound, wanted.spec, wanted, blob, context)


@contextmanager
def decoded(decoder: Decoder, wanted: AudioWanted, context: LoadContext) -> Iterator[Sound]:
    """Decoded and resampled, valid inside the block; the stage ends before it."""
    with ExitStack() as stack:
        with context.stage("decode"):
            sound = stack.enter_context(decoder.audio(wanted))
        yield sound


def described(origin: Origin, count: int, rate: int, options: AudioOptions, parts: Parts = ()) -> AudioMetadata:
    """``count`` samples at ``rate``, of that file."""
    return AudioMetadata(
        origin.codec, origin.channels, origin.sample_rate, rate, count, count / rate, options.start_seconds, parts,
        origin.stream, origin.num_streams, origin.begins_seconds, origin.filled_seconds,
    )  # fmt: skip


def described_features(clip: ClipPlan, source: AudioMetadata) -> FeatureMetadata:
    """The features of a clip."""
    return FeatureMetadata(
        clip.spec.name,
        source,
        valid_length=sum(clip.valid_lengths),
        num_tokens=clip.num_tokens,
        parts=clip.parts if clip.in_parts else (),
        valid_lengths=clip.valid_lengths if clip.in_parts else (),
    )


def _place_waveform(sound: Sound, wanted: SoundWanted, blob: Blob, context: LoadContext) -> Waveform:
    specs, count = lay_out({"waveform": ("float32", sound.samples.shape)}), sound.samples.shape[1]
    parts = wanted.parts(count, sound.sample_rate, lambda: down_mix(sound.samples)[0])
    metadata = described(sound.origin, count, sound.sample_rate, wanted.options, parts or ())
    with context.placing(specs, adopt=context.adoptable(sound.lease)) as lease:
        if lease is not sound.lease:
            place(sound.samples, lease, specs[0])
    return Waveform(lease, specs, metadata, backend=sound.origin.backend, content_hash=blob.content_hash)


def _place_features(sound: Sound, spec: MelSpec, wanted: SoundWanted, blob: Blob, context: LoadContext) -> Features:
    mono, count = sound.samples[0], sound.samples.shape[1]
    clip = wanted.clip(spec, count, lambda: mono)
    specs = lay_out(clip.tensors)
    with context.placing(specs) as lease:
        place_features(mono, clip, lease, specs, check=context.deadline.check)
    metadata = described_features(clip, described(sound.origin, count, sound.sample_rate, wanted.options))
    return Features(lease, specs, metadata, backend=sound.origin.backend, content_hash=blob.content_hash)
