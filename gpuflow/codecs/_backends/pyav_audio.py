"""One audio stream of any allowed container by libavformat and libavcodec.

No resampler and no rematrix: swresample's stereo to mono is 3 dB louder than the mean. Priming and edit lists are
trimmed as libavformat says.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from gpuflow.codecs._backends.pyav_blocks import NotInBlocks, blocks, fits
from gpuflow.codecs._backends.pyav_demux import AUDIO_CODECS, MAX_FRAME_SAMPLES, open_options
from gpuflow.codecs._backends.pyav_reading import Reading
from gpuflow.codecs.base import Capability, Deadline, MediaType, Support
from gpuflow.codecs.pcm import AudioInfo, Gathering, Pcm, Section
from gpuflow.codecs.probe.claims import ContainerClaims
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError, NoSuchStream, UnsupportedFormat
from gpuflow.values import shown

_GUESSED_DURATION = frozenset({"aac", "mp3", "ac3", "eac3", "amr"})  # bit rate times size, wrong by any factor
_LEFT_OUT = frozenset({"aiff", "au", "caf"})  # no demuxer that is not needed
_STRICT = {"flac": {"err_detect": "crccheck+explode"}}  # FFmpeg does not heed a frame's checksum by itself
_SEEK_FROM_SECONDS = 5.0  # what takes less to decode is not worth other noise, where a codec has noise
_MAX_NAMED = 16
_DISCARD_ALL = 48  # AVDISCARD_ALL
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
        if kind.format in _LEFT_OUT:
            return Support(False, f"{kind.name} is libsndfile's")
        if kind.format and kind.modality != "image":
            return Support(True)
        return Support(False, f"no demuxer is allowed for {kind.name}")

    def info(self, data: bytes, kind: MediaType, stream: int | str | None = None) -> AudioInfo:
        """See ``AudioDecoder``."""
        with _opened(data, kind, stream) as (container, chosen):
            return _claims(container, chosen, kind)

    def decode(
        self,
        data: bytes,
        kind: MediaType,
        section: Section,
        *,
        claims: ContainerClaims,
        limits: Limits,
        deadline: Deadline,
    ) -> Pcm:
        """See ``AudioDecoder``. Where a section is sought and does not come out, all before it is decoded."""
        if section.start_seconds >= _SEEK_FROM_SECONDS:
            with contextlib.suppress(CorruptMedia, UnsupportedFormat):
                gathering = _gathered(data, kind, section, claims, limits, deadline, sought=True)
                if gathering.found:
                    return gathering.finish(self.name)
        return _gathered(data, kind, section, claims, limits, deadline, sought=False).finish(self.name)


def _gathered(
    data: bytes,
    kind: MediaType,
    section: Section,
    claims: ContainerClaims,
    limits: Limits,
    deadline: Deadline,
    *,
    sought: bool,
) -> Gathering:
    with _opened(data, kind, section.stream, limits) as (container, stream):
        info = _claims(container, stream, kind)
        reading = partial(Reading, container, stream, kind, info, section, limits, deadline)
        if not sought and fits(data, info, claims):
            with (
                contextlib.suppress(NotInBlocks),
                contextlib.closing(blocks(data, stream.index, open_options(kind, limits))) as frames,
            ):
                return reading().of_blocks(frames)
        return reading().of_packets(sought=sought)


@contextmanager
def _opened(
    data: bytes, kind: MediaType, wanted: int | str | None, limits: Limits | None = None
) -> Iterator[tuple[Any, Any]]:
    """Container and the audio stream that is wanted; every error of the library becomes one of ours here."""
    import av

    options = open_options(kind, limits or Limits())
    try:
        with av.open(io.BytesIO(data), format=kind.format, options=options, metadata_errors="replace") as container:
            stream = _chosen(container.streams.audio, wanted, kind)
            if stream.codec_context is None:
                raise UnsupportedFormat(f"FFmpeg has no decoder for the audio of this {kind.name}")
            codec = str(stream.codec_context.codec.canonical_name)
            if codec not in AUDIO_CODECS and not codec.startswith("pcm_"):
                raise UnsupportedFormat(
                    f"audio codec {codec} is not supported: use one of {', '.join(sorted(AUDIO_CODECS))}"
                )
            stream.codec_context.options = {"max_samples": str(MAX_FRAME_SAMPLES)} | _STRICT.get(codec, {})
            stream.codec_context.thread_count = 1
            _leave_out_others(container, stream)
            yield container, stream
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise UnsupportedFormat(f"FFmpeg has no decoder for the audio of this {kind.name}") from error
    except GpuflowError:
        raise
    except (av.error.FFmpegError, *_OTHER_ERRORS) as error:
        raise CorruptMedia(f"FFmpeg cannot decode the audio of this {kind.name}") from error


def _chosen(streams: Sequence[Any], wanted: int | str | None, kind: MediaType) -> Any:
    """The stream that is asked for: by its place, or the first of a language."""
    if not streams:
        raise NoSuchStream(f"this {kind.name} has no audio stream")
    if isinstance(wanted, str):
        found = [stream for stream in streams if (stream.language or "").lower() == wanted.lower()]
    else:
        found = [streams[wanted or 0]] if 0 <= (wanted or 0) < len(streams) else []
    if not found:
        told = ", ".join(
            f"{place} ({shown(stream.language or 'no language')})" for place, stream in enumerate(streams[:_MAX_NAMED])
        )
        raise NoSuchStream(f"stream={shown(wanted)}: the audio streams of this {kind.name} are {told}")
    return found[0]


def _leave_out_others(container: Any, stream: Any) -> None:
    """The packets of other streams are not read; with them damaged, their tables could end the sound too."""
    for other in container.streams:
        if other.index != stream.index:
            with contextlib.suppress(AttributeError):  # an older PyAV, which drops them once they are read
                other.discard = _DISCARD_ALL


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
    streams = container.streams.audio
    place = next(place for place, other in enumerate(streams) if other.index == stream.index)
    return AudioInfo(codec.codec.canonical_name, channels, rate, num_samples, place, len(streams))
