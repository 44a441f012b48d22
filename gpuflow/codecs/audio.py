"""Audio bytes to PCM: libsndfile where it reads the format, libavcodec for the rest. Always on the CPU: no GPU decodes audio."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from gpuflow.codecs._backends.pyav_audio import PyAvAudioDecoder
from gpuflow.codecs._backends.soundfile import SoundFileDecoder
from gpuflow.codecs.base import Capability, Deadline, MediaType
from gpuflow.codecs.pcm import AudioDecoder, AudioInfo, Pcm, Section
from gpuflow.codecs.probe import container_claims
from gpuflow.codecs.stored_pcm import StoredPcm as StoredPcm
from gpuflow.codecs.stored_pcm import stored_pcm as stored_pcm
from gpuflow.config import Limits
from gpuflow.errors import BackendUnavailable, UnsupportedFormat

_T = TypeVar("_T")
BACKENDS: tuple[AudioDecoder, ...] = (SoundFileDecoder(), PyAvAudioDecoder())


def capabilities() -> dict[str, Capability]:
    """What can be used here, by backend, in the order in which they are tried."""
    return {backend.name: backend.capability() for backend in BACKENDS}


def audio_info(
    data: bytes, kind: MediaType, limits: Limits | None = None, *, stream: int | str | None = None
) -> AudioInfo:
    """What the header claims of one audio stream, the first by default; nothing is decoded and nothing is believed.

    Raises:
        UnsupportedFormat: no backend reads this format or codec.
        CorruptMedia: the header is damaged.
        NoSuchStream: a container without an audio stream, or without that one.
        BackendUnavailable: a backend that would read it is not installed.
    """
    container_claims(data, kind, limits or Limits(), wanted="audio", stream=stream)
    return _first(kind, lambda backend: backend.info(data, kind, stream))


def decode_audio(
    data: bytes,
    kind: MediaType,
    *,
    limits: Limits,
    deadline: Deadline,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    stream: int | str | None = None,
    native: bool = False,
    mono: bool = False,
    zero_seconds: float | None = None,
) -> Pcm:
    """Decode an audio stream, or a section of it; what lies before a section is not decoded where that changes nothing.

    ``stream``: its place among the container's audio streams, or its language as the container has it (``"eng"``); the
    first by default. ``native``: int16 instead of float32 where the source has no more than 16 bits (PCM, mu-law, A-law,
    FLAC, ALAC), which is exact and half the size. ``mono``: the mean of the channels as one, float32, taken block by block
    while it is in the cache.

    A section equals that part of the whole, bit for bit in PCM, FLAC, ALAC, ADPCM and Vorbis, within 1e-6 in MP3 and Opus
    (Ogg Opus of low bit rates: 2e-3).
    AAC with noise substitution has other noise where the section begins after 5 s: its generator goes on from packet to
    packet. AC-3, AMR, WMA, Speex, and Vorbis in Matroska are decoded from the beginning.

    The first sample is the one that was encoded first, where anything says so: edit lists, LAME's tag, Matroska's delay,
    Opus' and Vorbis' headers. Nothing does in raw ADTS and in AAC of MPEG-TS or ASF (1,024 samples come before it), AC-3
    outside of MP4 (256), Opus in MPEG-TS (312), raw AMR-NB (about 40), MP3 without a tag (1,105).

    Times of MP4, Matroska, MPEG-TS and ASF are heeded: where they leave a gap of more than 50 ms, silence is put, so that
    what follows stays in time (``filled_seconds``); what is nearer is jitter. ``zero_seconds``: a time of the container, that
    of the first picture, from which the section counts then: silence is put before sound that begins later, what is heard
    earlier is left out. Without it the section counts from the first sample, and ``begins_seconds`` says when that is heard.

    Of a recording that breaks off comes what is there, in every format; a last packet that cannot be decoded ends it.

    The limits hold for what the header claims and again for what comes out: seconds up to the section's end, channels,
    sample rate, bytes of PCM.

    Raises:
        UnsupportedFormat: no backend reads this format or codec.
        CorruptMedia: it cannot be decoded, or holds samples that are no numbers.
        NoSuchStream: a container without an audio stream, without that one, or with an empty one.
        LimitExceeded: it claims or holds more than ``limits`` allows, or than libavformat should be asked to believe.
        SectionAfterEnd: the section begins after the end.
        DeadlineExceeded: the time is over.
        BackendUnavailable: a backend that would read it is not installed.
    """
    until = math.inf if duration_seconds is None else start_seconds + duration_seconds
    claims = container_claims(data, kind, limits, wanted="audio", until_seconds=until, stream=stream)
    section = Section(start_seconds, duration_seconds, stream, native, mono, zero_seconds)
    return _first(
        kind, lambda backend: backend.decode(data, kind, section, claims=claims, limits=limits, deadline=deadline)
    )


def _first(kind: MediaType, use: Callable[[AudioDecoder], _T]) -> _T:
    """The answer of the first backend that reads the file; ``UnsupportedFormat`` passes it on to the next."""
    refused: UnsupportedFormat | BackendUnavailable | None = None
    for backend in BACKENDS:
        if not backend.supports(kind):
            continue
        if not (capability := backend.capability()):
            refused = BackendUnavailable(f"{kind.name} needs {backend.name}: {capability.reason}")
            continue
        try:
            return use(backend)
        except UnsupportedFormat as error:
            refused = error
    raise refused or UnsupportedFormat(f"no audio can be decoded from {kind.name}")
