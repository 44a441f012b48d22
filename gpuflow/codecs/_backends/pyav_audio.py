"""The first audio stream of any allowed container by libavformat and libavcodec.

No resampler and no rematrix: swresample's stereo to mono is 3 dB louder than the mean. Priming and edit lists are
trimmed as libavformat says; presentation times are not used, for they begin above 0 in MP3 and MPEG-TS.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.pyav_demux import AUDIO_CODECS, MAX_FRAME_SAMPLES, open_options
from gpuflow.codecs.base import Capability, Deadline, MediaType, Support
from gpuflow.codecs.pcm import AudioInfo, Gathering, Pcm, Section, planar_float
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError, NoSuchStream, UnsupportedFormat

_GUESSED_DURATION = frozenset({"aac", "mp3", "ac3", "eac3", "amr"})  # bit rate times size, wrong by any factor
# PyAV's own, seen while fuzzing: a stream that appears late in MPEG-TS, 64-bit integer samples, text that is no UTF-8
_OTHER_ERRORS = (LookupError, ValueError, ArithmeticError, OSError, RuntimeError)


class PyAvAudioDecoder:
    """``AudioDecoder`` on FFmpeg's libraries."""

    name = "pyav"

    def capability(self) -> Capability:
        """Whether the library loads here."""
        try:
            import av
        except (ImportError, OSError) as error:
            return Capability(False, f"PyAV does not load ({error}): pip install av")
        return Capability(True, version=av.__version__)

    def supports(self, kind: MediaType) -> Support:
        """Whatever the probe named a demuxer for: none is guessed."""
        if kind.format and kind.modality != "image":
            return Support(True)
        return Support(False, f"no demuxer is allowed for {kind.name}")

    def info(self, data: bytes, kind: MediaType) -> AudioInfo:
        """See ``AudioDecoder``."""
        with _opened(data, kind) as (container, stream):
            return _claims(container, stream, kind)

    def decode(self, data: bytes, kind: MediaType, section: Section, *, limits: Limits, deadline: Deadline) -> Pcm:
        """See ``AudioDecoder``."""
        with _opened(data, kind, limits) as (container, stream):
            claims = _claims(container, stream, kind)
            gathering = Gathering(claims, section, limits=limits, deadline=deadline)
            started = False
            for frame in _frames(container, stream, deadline):
                found = AudioInfo(claims.codec, frame.layout.nb_channels, frame.sample_rate, claims.num_samples)
                if found != gathering.info:
                    if started:
                        raise UnsupportedFormat(f"the audio changes from {_shape(gathering.info)} to {_shape(found)}")
                    # HE-AAC and AMR: the header may say half of what the decoder gives
                    gathering = Gathering(found, section, limits=limits, deadline=deadline)
                started = True
                if not gathering.put(_planar(frame)):
                    break
        return gathering.finish(self.name)


@contextmanager
def _opened(data: bytes, kind: MediaType, limits: Limits | None = None) -> Iterator[tuple[Any, Any]]:
    """Container and first audio stream; every error of the library becomes one of ours here."""
    import av

    options = open_options(kind, limits or Limits())
    try:
        with av.open(io.BytesIO(data), format=kind.format, options=options, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise NoSuchStream(f"this {kind.name} has no audio stream")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise UnsupportedFormat(f"FFmpeg has no decoder for the audio of this {kind.name}")
            codec = str(stream.codec_context.codec.canonical_name)
            if codec not in AUDIO_CODECS and not codec.startswith("pcm_"):
                raise UnsupportedFormat(
                    f"audio codec {codec} is not supported: use one of {', '.join(sorted(AUDIO_CODECS))}"
                )
            stream.codec_context.options = {"max_samples": str(MAX_FRAME_SAMPLES)}
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise UnsupportedFormat(f"FFmpeg has no decoder for the audio of this {kind.name}") from error
    except GpuflowError:
        raise
    except (av.error.FFmpegError, *_OTHER_ERRORS) as error:
        raise CorruptMedia(f"FFmpeg cannot decode the audio of this {kind.name}") from error


def _frames(container: Any, stream: Any, deadline: Deadline) -> Iterator[Any]:
    """Decoded frames. A last packet that cannot be decoded is what a cut recording ends with, and ends it."""
    import av

    refused: Exception | None = None
    for packet in container.demux(stream):
        deadline.check()
        if refused is not None and packet.size:
            raise CorruptMedia("an audio packet in the middle of the stream cannot be decoded") from refused
        try:
            yield from (frame for frame in packet.decode() if frame.samples)
        except av.error.InvalidDataError as error:
            refused = error


def _claims(container: Any, stream: Any, kind: MediaType) -> AudioInfo:
    codec = stream.codec_context
    rate, channels = codec.sample_rate, codec.layout.nb_channels
    if rate <= 0 or channels <= 0:
        raise CorruptMedia(f"neither header nor first packets of this {kind.name} say its sample rate and channels")
    seconds = None
    if kind.format not in _GUESSED_DURATION:
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1e6
    num_samples = None if seconds is None or seconds < 0 else int(seconds * rate)
    return AudioInfo(codec.codec.canonical_name, channels, rate, num_samples)


def _planar(frame: Any) -> NDArray[np.float32]:
    """``(channels, n)`` float32 of one frame, channels in the stream's order."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(frame.samples, frame.layout.nb_channels).T
    return planar_float(array)


def _shape(info: AudioInfo) -> str:
    return f"{info.channels} channels at {info.sample_rate} Hz"
