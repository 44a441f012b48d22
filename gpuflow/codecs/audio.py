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
from gpuflow.config import Limits
from gpuflow.errors import BackendUnavailable, UnsupportedFormat

_T = TypeVar("_T")
BACKENDS: tuple[AudioDecoder, ...] = (SoundFileDecoder(), PyAvAudioDecoder())


def capabilities() -> dict[str, Capability]:
    """What can be used here, by backend, in the order in which they are tried."""
    return {backend.name: backend.capability() for backend in BACKENDS}


def audio_info(data: bytes, kind: MediaType, limits: Limits | None = None) -> AudioInfo:
    """What the header claims; nothing is decoded and nothing is believed.

    Raises:
        UnsupportedFormat: no backend reads this format or codec.
        CorruptMedia: the header is damaged.
        NoSuchStream: a container without an audio stream.
        BackendUnavailable: a backend that would read it is not installed.
    """
    container_claims(data, kind, limits or Limits(), wanted="audio")
    return _first(kind, lambda backend: backend.info(data, kind))


def decode_audio(
    data: bytes,
    kind: MediaType,
    *,
    limits: Limits,
    deadline: Deadline,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
) -> Pcm:
    """Decode the first audio stream, or a section of it.

    The limits hold for what the header claims and again for what comes out: seconds up to the section's end, channels,
    sample rate, bytes of PCM.

    Raises:
        UnsupportedFormat: no backend reads this format or codec.
        CorruptMedia: it cannot be decoded, or holds samples that are no numbers.
        NoSuchStream: a container without an audio stream, or with an empty one.
        LimitExceeded: it claims or holds more than ``limits`` allows, or than libavformat should be asked to believe.
        InvalidOptions: the section begins after the end.
        DeadlineExceeded: the time is over.
        BackendUnavailable: a backend that would read it is not installed.
    """
    until = math.inf if duration_seconds is None else start_seconds + duration_seconds
    container_claims(data, kind, limits, wanted="audio", until_seconds=until)
    section = Section(start_seconds, duration_seconds)
    return _first(kind, lambda backend: backend.decode(data, kind, section, limits=limits, deadline=deadline))


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
