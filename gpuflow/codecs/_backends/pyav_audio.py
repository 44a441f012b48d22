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

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.pyav_demux import AUDIO_CODECS, MAX_FRAME_SAMPLES, open_options
from gpuflow.codecs._backends.pyav_skip import Steps
from gpuflow.codecs.base import Capability, Deadline, MediaType, Support
from gpuflow.codecs.kept import Samples
from gpuflow.codecs.pcm import AudioInfo, Gathering, Pcm, Section
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError, NoSuchStream, UnsupportedFormat
from gpuflow.values import shown

_GUESSED_DURATION = frozenset({"aac", "mp3", "ac3", "eac3", "amr"})  # bit rate times size, wrong by any factor
_LEFT_OUT = frozenset({"aiff", "au", "caf"})  # no demuxer that is not needed
_WITHIN_16_BITS = frozenset({"s16", "s16p"})
_SEEK_FROM_SECONDS = 5.0  # what takes less to decode is not worth other noise, where a codec has noise
_MAX_NAMED = 16
_BLOCK_SAMPLES = 32_768
_CHECKED_PACKETS = 64
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
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
        self._exact = section.exact and getattr(stream.codec_context.format, "name", "") in _WITHIN_16_BITS
        self._steps = Steps(self._claims.codec, self._claims.channels)
        self._indexed = kind.format == "mov"
        self._gathering = self._gather(self._claims)
        self._frames: _Frames | None = None
        self._block = self._next_block()

    def gathered(self, *, sought: bool) -> Gathering:
        """Everything that is wanted. ``sought``: what lies before it is stepped over where that is known to be right.

        A last packet that cannot be decoded is what a cut recording ends with, and ends it.
        """
        import av

        refused: Exception | None = None
        for count, packet in enumerate(self._sought() if sought else self._container.demux(self._stream)):
            if count % _CHECKED_PACKETS == 0:
                self._deadline.check()
            if refused is not None and packet.size:
                raise CorruptMedia("an audio packet in the middle of the stream cannot be decoded") from refused
            try:
                frames = packet.decode()
            except av.error.InvalidDataError as error:
                refused = error
                continue
            if sought:
                self._steps.learn(packet, sum(frame.samples for frame in frames))
            if not all(map(self._take, frames)):
                break
        self._hand_on()
        return self._gathering

    def _gather(self, info: AudioInfo) -> Gathering:
        dtype: Literal["int16", "float32"] = "int16" if self._exact else "float32"
        return Gathering(info, self._section, limits=self._limits, deadline=self._deadline, dtype=dtype)

    def _next_block(self) -> int:
        """How many samples are handed on at once; what comes after a section is not decoded for it."""
        missing = self._gathering.missing
        return _BLOCK_SAMPLES if missing is None else min(_BLOCK_SAMPLES, missing)

    def _take(self, frame: Any) -> bool:
        """Whether more is wanted."""
        if not frame.samples:
            return True
        frames = self._frames
        if frames is None or frames.form != _form(frame):
            frames = self._change(frame)
        frames.take(frame)
        return frames.count < self._block or self._hand_on()

    def _change(self, frame: Any) -> _Frames:
        name, channels, rate = _form(frame)
        found, before = replace(self._claims, channels=channels, sample_rate=rate), self._gathering.info
        if found != before and self._frames is not None:
            raise UnsupportedFormat(f"the audio changes from {_shape(before)} to {_shape(found)}")
        if self._exact and name not in _WITHIN_16_BITS:
            raise UnsupportedFormat(f"the samples change to {name} within the stream")
        self._hand_on()
        if found != before:  # HE-AAC and AMR: the header may say half of what the decoder gives
            self._gathering = self._gather(found)
            self._block = self._next_block()
        self._frames = _Frames(frame)
        return self._frames

    def _hand_on(self) -> bool:
        """Whether more is wanted than has come."""
        if self._frames is None or not self._frames.count:
            return True
        more = self._gathering.put(self._frames.samples)
        self._frames.clear()
        self._block = self._next_block()
        return more

    def _skip(self, count: int) -> None:
        self._gathering.skip(count)
        self._block = self._next_block()

    def _sought(self) -> Iterator[Any]:
        """Packets from the beginning until it is known how many samples they hold, and then those from a little before
        the section on."""
        steps, stepping, stepped = self._steps, True, False
        for packet in self._container.demux(self._stream):
            if stepping and steps.settled and packet.size:
                self._hand_on()
                if self._indexed and (jump := self._jump(packet)) is not None:
                    yield from jump
                    return
                count = steps.samples(packet)
                if count and self._gathering.seen + count <= self._begin:
                    self._deadline.check()
                    self._skip(count)
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
        self._skip(count * each)
        return self._from(target)

    def _from(self, target: int) -> Iterator[Any]:
        first = True
        for packet in self._container.demux(self._stream):
            if first and packet.pts != target:
                raise CorruptMedia("the file's index does not lead to where it says")
            first = False
            yield packet


class _Frames:
    """Frames of one form one after another, as the decoder gives them: handed on one by one, the 1,300 of 30 s of AAC took
    as long again as their decoding. Copied as bytes, which takes half as long as by numpy."""

    def __init__(self, frame: Any) -> None:
        self.form = _form(frame)
        if (dtype := _DTYPES.get(frame.format.packed.name)) is None:
            raise CorruptMedia(f"the decoder gives samples as {self.form[0]}, which no codec in use does")
        planar, channels = bool(frame.format.is_planar), self.form[1]
        rows, self._each = (channels, 1) if planar else (1, channels)
        self._dtype = np.dtype(dtype)
        self._sample_bytes = self._each * self._dtype.itemsize
        self._nbytes = 0
        self._use(np.empty((rows, (_BLOCK_SAMPLES + frame.samples) * self._sample_bytes), np.uint8))

    @property
    def count(self) -> int:
        """Samples of a channel."""
        return self._nbytes // self._sample_bytes

    def take(self, frame: Any) -> None:
        """Copy one of this form."""
        count = frame.samples * self._sample_bytes
        first, last = self._nbytes, self._nbytes + count
        if last > self._array.shape[1]:
            self._use(np.concatenate([self._array, np.empty_like(self._array, shape=(len(self._array), last))], axis=1))
        planes = frame.planes
        if len(planes) < len(self._memory):
            raise CorruptMedia(f"a frame of {self.form[1]} channels has {len(planes)} planes")
        for row, plane in zip(self._memory, planes, strict=False):  # of more than 8 PyAV lists some that are none
            row[first:last] = memoryview(plane)[:count]
        self._nbytes = last

    @property
    def samples(self) -> Samples:
        """``(channels, n)`` as they are, channels in the stream's order; valid until the next is taken."""
        rows = self._array.view(self._dtype)[:, : self.count * self._each]
        return rows if self._each == 1 else rows.reshape(-1, self._each).T

    def clear(self) -> None:
        """Begin again."""
        self._nbytes = 0

    def _use(self, array: NDArray[np.uint8]) -> None:
        self._array, self._memory = array, [memoryview(row) for row in array]


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


def _form(frame: Any) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate


def _shape(info: AudioInfo) -> str:
    return f"{info.channels} channels at {info.sample_rate} Hz"
