"""One audio stream of any allowed container by libavformat and libavcodec.

No resampler and no rematrix: swresample's stereo to mono is 3 dB louder than the mean. Priming and edit lists are
trimmed as libavformat says; presentation times are not used, for they begin above 0 in MP3 and MPEG-TS.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from gpuflow.codecs._backends.pyav_demux import AUDIO_CODECS, MAX_FRAME_SAMPLES, open_options
from gpuflow.codecs._backends.pyav_skip import Steps
from gpuflow.codecs.base import Capability, Deadline, MediaType, Support
from gpuflow.codecs.pcm import AudioInfo, Gathering, Pcm, Samples, Section, planar_float
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError, NoSuchStream, UnsupportedFormat
from gpuflow.values import shown

_GUESSED_DURATION = frozenset({"aac", "mp3", "ac3", "eac3", "amr"})  # bit rate times size, wrong by any factor
_LEFT_OUT = frozenset({"aiff", "au", "caf"})  # no demuxer that is not needed
_WITHIN_16_BITS = frozenset({"s16", "s16p"})
_SEEK_FROM_SECONDS = 5.0  # what takes less to decode is not worth other noise, where a codec has noise
_MAX_NAMED = 16
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

    def decode(self, data: bytes, kind: MediaType, section: Section, *, limits: Limits, deadline: Deadline) -> Pcm:
        """See ``AudioDecoder``. Where a section is sought and does not come out, all before it is decoded."""
        if section.start_seconds >= _SEEK_FROM_SECONDS:
            with contextlib.suppress(CorruptMedia, UnsupportedFormat):
                gathering = _gathered(data, kind, section, limits, deadline, sought=True)
                if gathering.found:
                    return gathering.finish(self.name)
        return _gathered(data, kind, section, limits, deadline, sought=False).finish(self.name)


def _gathered(
    data: bytes, kind: MediaType, section: Section, limits: Limits, deadline: Deadline, *, sought: bool
) -> Gathering:
    with _opened(data, kind, section.stream, limits) as (container, stream):
        return _Reading(container, stream, kind, section, limits, deadline).gathered(sought=sought)


class _Reading:
    """One stream on its way through its decoder."""

    def __init__(
        self, container: Any, stream: Any, kind: MediaType, section: Section, limits: Limits, deadline: Deadline
    ) -> None:
        self._container = container
        self._stream = stream
        self._section = section
        self._limits = limits
        self._deadline = deadline
        self._claims = _claims(container, stream, kind)
        self._exact = section.native and getattr(stream.codec_context.format, "name", "") in _WITHIN_16_BITS
        self._steps = Steps(self._claims.codec, self._claims.channels)
        self._indexed = kind.format == "mov"
        self._gathering = self._gather(self._claims)
        self._started = False

    def gathered(self, *, sought: bool) -> Gathering:
        """Everything that is wanted. ``sought``: what lies before it is stepped over where that is known to be right.

        A last packet that cannot be decoded is what a cut recording ends with, and ends it.
        """
        import av

        refused: Exception | None = None
        for packet in self._sought() if sought else self._container.demux(self._stream):
            self._deadline.check()
            if refused is not None and packet.size:
                raise CorruptMedia("an audio packet in the middle of the stream cannot be decoded") from refused
            try:
                frames = [frame for frame in packet.decode() if frame.samples]
            except av.error.InvalidDataError as error:
                refused = error
                continue
            self._steps.learn(packet, sum(frame.samples for frame in frames))
            if not all(self._take(frame) for frame in frames):
                break
        return self._gathering

    def _gather(self, info: AudioInfo) -> Gathering:
        dtype: Literal["int16", "float32"] = "int16" if self._exact else "float32"
        return Gathering(info, self._section, limits=self._limits, deadline=self._deadline, dtype=dtype)

    def _take(self, frame: Any) -> bool:
        found = replace(self._claims, channels=frame.layout.nb_channels, sample_rate=frame.sample_rate)
        if found != self._gathering.info:
            if self._started:
                raise UnsupportedFormat(f"the audio changes from {_shape(self._gathering.info)} to {_shape(found)}")
            self._gathering = self._gather(found)  # HE-AAC and AMR: the header may say half of what the decoder gives
        self._started = True
        return self._gathering.put(_planar(frame, exact=self._exact))

    def _sought(self) -> Iterator[Any]:
        """Packets from the beginning until it is known how many samples they hold, and then those from a little before
        the section on."""
        steps, stepping, stepped = self._steps, True, False
        for packet in self._container.demux(self._stream):
            if stepping and steps.settled and packet.size:
                if self._indexed and (jump := self._jump(packet)) is not None:
                    yield from jump
                    return
                count = steps.samples(packet)
                if count and self._gathering.seen + count <= self._begin:
                    self._deadline.check()
                    self._gathering.skip(count)
                    stepped = True
                    continue
                stepping = False
                if stepped:
                    self._stream.codec_context.flush_buffers()
            yield packet

    @property
    def _begin(self) -> int:
        """The sample from which on everything is decoded."""
        return self._gathering.first - self._steps.preroll(self._gathering.info.sample_rate)

    def _jump(self, packet: Any) -> Iterator[Any] | None:
        """Packets from ``_begin`` on by the file's index, where every one up to there is as long as it is said to be."""
        self._indexed, gathering, entries = False, self._gathering, self._stream.index_entries
        each = self._steps.each
        count = (self._begin - gathering.seen) // each if each else 0
        here = entries.search_timestamp(packet.pts, any_frame=True) if count > 0 and packet.pts is not None else -1
        if here < 0 or here + count >= len(entries):
            return None
        start, target = entries[here].timestamp, entries[here + count].timestamp
        if (
            start != packet.pts
            or (target - start) * self._stream.time_base * gathering.info.sample_rate != count * each
        ):
            return None
        self._container.seek(target, stream=self._stream)
        gathering.skip(count * each)
        return self._from(target)

    def _from(self, target: int) -> Iterator[Any]:
        first = True
        for packet in self._container.demux(self._stream):
            if first and packet.pts != target:
                raise CorruptMedia("the file's index does not lead to where it says")
            first = False
            yield packet


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
            stream.codec_context.options = {"max_samples": str(MAX_FRAME_SAMPLES)}
            stream.codec_context.thread_count = 1
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


def _planar(frame: Any, *, exact: bool) -> Samples:
    """``(channels, n)`` of one frame, channels in the stream's order: float32, or int16 as it is."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(frame.samples, frame.layout.nb_channels).T
    if exact and frame.format.name not in _WITHIN_16_BITS:
        raise UnsupportedFormat(f"the samples change to {frame.format.name} within the stream")
    return array if exact else planar_float(array)


def _shape(info: AudioInfo) -> str:
    return f"{info.channels} channels at {info.sample_rate} Hz"
