"""A sound on a GPU, in steps: the CPU decodes it, or a WAV is taken as it lies; the rest is done by kernels, in batches."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.audio import stored_pcm
from gpuflow.codecs.base import MediaType
from gpuflow.codecs.pcm import Origin, Section
from gpuflow.config import AudioOptions
from gpuflow.flow.audio import decoded, described, described_features, load_audio
from gpuflow.flow.audio_batches import AudioBatches, SoundJob
from gpuflow.flow.batches import waited_for
from gpuflow.flow.context import LoadContext
from gpuflow.flow.sound_wanted import SoundWanted
from gpuflow.media import Blob, Features, Waveform, lay_out
from gpuflow.memory import Lease
from gpuflow.ops.audio import down_mix
from gpuflow.ops.audio_gpu import Placing
from gpuflow.ops.mel_launch import obstacle
from gpuflow.ops.pcm import PcmSamples, require_numbers, to_float
from gpuflow.ops.sound_plan import SoundPlan, sound_plan

Steps = Generator[Future[None], None, Waveform | Features]


@dataclass(frozen=True, slots=True)
class _Found:
    """Samples as they are stored or decoded. ``lease``: the block that they lie in, where a worker decoded them."""

    pcm: PcmSamples
    origin: Origin
    lease: Lease | None = None


def audio_steps(
    blob: Blob,
    kind: MediaType,
    options: AudioOptions,
    context: LoadContext,
    batches: AudioBatches,
    *,
    zero_seconds: float | None = None,
) -> Steps:
    """As ``load_audio``; what is yielded is to be waited for, whatever it ends with, before the next step.

    No GPU decodes audio, so that the CPU does is no fallback. A rate for which there is no filter table is the sender's
    choice: the CPU resamples, and the result says so.

    Raises:
        BackendUnavailable: no kernel makes these features, and the caller asked for ``"cuda"``.
    """
    wanted = SoundWanted.of(options, context.limits, zero_seconds)
    if wanted.spec is not None and (reason := obstacle(wanted.spec)) is not None:
        reason = context.fall_back(reason, modality="audio")
        media = load_audio(blob, kind, options, context, zero_seconds=zero_seconds)
        media.fallback = reason
        return media
    with _found(blob, kind, wanted, context) as found, context.stage("place" if wanted.spec is None else "features"):
        sound = sound_plan(
            found.pcm, wanted.rate, mono=wanted.mono, limits=context.limits, max_outputs=wanted.most_samples,
            on_host=wanted.by_ear,
        )  # fmt: skip
        media = yield from _placed(found, sound, wanted, blob, context, batches)
    if sound.fallback is not None:
        media.fallback = context.note_fallback(sound.fallback, modality="audio")
    return media


@contextmanager
def _found(blob: Blob, kind: MediaType, wanted: SoundWanted, context: LoadContext) -> Iterator[_Found]:
    """The section, valid inside the block."""
    if (stored := _stored(blob, kind, wanted, context)) is not None:
        yield stored
        return
    as_stored = replace(wanted.decoding(), mono=False, native=True, sample_rate=None, max_samples=None)
    with context.decoder(blob, kind, "audio") as decoder, decoded(decoder, as_stored, context) as sound:
        yield _Found(PcmSamples.of(sound.samples, sound.sample_rate), sound.origin, sound.lease)


def _stored(blob: Blob, kind: MediaType, wanted: SoundWanted, context: LoadContext) -> _Found | None:
    """The section of a WAV as it lies; ``None`` of what a decoder is to look at, whose errors it then raises."""
    if context.isolated:  # libsndfile is asked too
        return None
    if wanted.options.stream not in (None, 0) or (held := stored_pcm(blob.data, kind, context.limits)) is None:
        return None
    section = Section(wanted.options.start_seconds, wanted.seconds_to_decode)
    first, last = held.section(section, context.limits)
    if first == last:
        return None
    samples = memoryview(blob.data)[held.offset : held.offset + held.nbytes]
    pcm = PcmSamples(samples, held.encoding, held.channels, held.num_samples, held.sample_rate).part(first, last)
    require_numbers(pcm)
    begins_seconds = first / held.sample_rate
    return _Found(pcm, Origin(held.codec, held.channels, held.sample_rate, "wav", begins_seconds=begins_seconds))


def _placed(
    found: _Found, sound: SoundPlan, wanted: SoundWanted, blob: Blob, context: LoadContext, batches: AudioBatches
) -> Steps:
    count, rate = sound.outputs, wanted.rate or found.pcm.sample_rate

    def mono() -> NDArray[np.float32]:
        mixed: NDArray[np.float32] = down_mix(to_float(sound.pcm))[0]
        return mixed

    clip = None if wanted.spec is None else wanted.clip(wanted.spec, count, mono)
    parts = wanted.parts(count, rate, mono) if clip is None else None
    specs = lay_out({"waveform": ("float32", sound.shape)} if clip is None else clip.tensors)
    with context.placing(specs) as lease:
        leases = (lease,) if found.lease is None else (lease, found.lease)
        yield from waited_for(batches.submit(SoundJob(Placing(sound, lease, specs, clip), leases=leases)))
    source = described(found.origin, count, rate, wanted.options, parts or ())
    if clip is None:
        return Waveform(lease, specs, source, backend=found.origin.backend, content_hash=blob.content_hash)
    metadata = described_features(clip, source)
    return Features(lease, specs, metadata, backend=found.origin.backend, content_hash=blob.content_hash)
