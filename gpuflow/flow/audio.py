"""Audio from bytes to a placed ``Waveform`` or mel ``Features``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.audio import decode_audio
from gpuflow.codecs.base import MediaType
from gpuflow.codecs.pcm import SAMPLE_BYTES, Pcm
from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import InvalidOptions, LimitExceeded, NoSuchStream
from gpuflow.flow.context import LoadContext
from gpuflow.media import AudioMetadata, Blob, FeatureMetadata, Features, Waveform, lay_out
from gpuflow.ops.audio import down_mix, place, resample
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
    with context.stage("decode"):
        pcm = decode_audio(
            blob.data,
            kind,
            limits=context.limits,
            deadline=context.deadline,
            start_seconds=options.start_seconds,
            duration_seconds=_seconds_to_decode(options, spec),
        )
    with context.stage("resample"):
        samples = _transform(pcm, rate or pcm.sample_rate, options, context.limits)
        if spec is not None:
            samples = samples[:, : spec.pad_samples]
    metadata = _describe(pcm, samples, rate or pcm.sample_rate, options)
    with context.stage("place" if spec is None else "features"):
        if spec is None:
            return _place_waveform(samples, metadata, pcm, blob, context)
        return _place_features(samples, spec, metadata, pcm, blob, context)


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


def _transform(pcm: Pcm, rate: int, options: AudioOptions, limits: Limits) -> NDArray[np.float32]:
    samples = down_mix(pcm.samples) if options.mono else pcm.samples
    nbytes = samples.shape[0] * SAMPLE_BYTES * round(samples.shape[1] * rate / pcm.sample_rate)
    if nbytes > limits.max_pcm_bytes:
        raise LimitExceeded(f"{nbytes} bytes of audio at {rate} Hz; Limits.max_pcm_bytes is {limits.max_pcm_bytes}")
    samples = resample(samples, pcm.sample_rate, rate)
    if samples.shape[1] == 0:
        raise NoSuchStream(f"{pcm.samples.shape[1]} samples at {pcm.sample_rate} Hz are less than one at {rate} Hz")
    return samples


def _describe(pcm: Pcm, samples: NDArray[np.float32], rate: int, options: AudioOptions) -> AudioMetadata:
    count = samples.shape[1]
    return AudioMetadata(
        pcm.codec, pcm.channels, pcm.sample_rate, rate, count, count / rate, start_seconds=options.start_seconds
    )


def _place_waveform(
    samples: NDArray[np.float32], metadata: AudioMetadata, pcm: Pcm, blob: Blob, context: LoadContext
) -> Waveform:
    specs = lay_out({"waveform": ("float32", samples.shape)})
    with context.placing(specs) as lease:
        place(samples, lease, specs[0])
    return Waveform(lease, specs, metadata, backend=pcm.backend, content_hash=blob.content_hash)


def _place_features(
    samples: NDArray[np.float32], spec: MelSpec, metadata: AudioMetadata, pcm: Pcm, blob: Blob, context: LoadContext
) -> Features:
    specs = lay_out({"input_features": ("float32", (spec.n_mels, spec.num_frames))})
    with context.placing(specs) as lease:
        valid_length = place_log_mel(samples[0], spec, lease, specs[0])
    described = FeatureMetadata(spec.name, metadata, valid_length=valid_length)
    return Features(lease, specs, described, backend=pcm.backend, content_hash=blob.content_hash)
