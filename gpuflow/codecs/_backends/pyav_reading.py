"""One audio stream on its way through libavcodec: sought, held to its times, gathered.

Samples are counted; presentation times only say when the first is heard, and where a container that stores them has a gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from gpuflow.codecs._backends.pyav_blocks import NotInBlocks
from gpuflow.codecs._backends.pyav_demux import shown_stream
from gpuflow.codecs._backends.pyav_samples import BLOCK_SAMPLES, Frames, form
from gpuflow.codecs._backends.pyav_skip import Steps, flac_number
from gpuflow.codecs.base import Deadline, MediaType
from gpuflow.codecs.pcm import AudioInfo, Gathering, Section
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_TIMED = frozenset({"mov", "matroska", "mpegts", "asf"})  # the others' times are libavformat's own counting
# What is farther from its time than this is so because something is missing. Sound that is earlier than its picture is
# noticed from 45 ms on (Source: ITU-R BT.1359-1); containers round to milliseconds, and recorders jitter by some 10
_JITTER_SECONDS = 0.05
_WITHIN_16_BITS = frozenset({"s16", "s16p"})
_HEAD_BYTES = 16
_CHECKED_PACKETS = 64
_MOST_IN_LAST = 2_048  # samples of a packet of AAC


class Reading:
    """A section of one stream, once: ``of_blocks`` or ``of_packets``. ``info``: what the header says of it."""

    def __init__(
        self,
        container: Any,
        stream: Any,
        kind: MediaType,
        info: AudioInfo,
        section: Section,
        limits: Limits,
        deadline: Deadline,
    ) -> None:
        self._in_blocks = False
        self._container = container
        self._stream = stream
        self._section = section
        self._limits = limits
        self._deadline = deadline
        self._info = info
        self._exact = section.exact and getattr(stream.codec_context.format, "name", "") in _WITHIN_16_BITS
        self._steps = Steps(info.codec, info.channels)
        self._indexed = kind.format == "mov"
        self._gathering = self._gather(info)
        self._frames: Frames | None = None
        self._timed = kind.format in _TIMED
        self._numbered = kind.format == "flac"
        self._number: int | None = None  # of the next frame
        self._samples_a_tick, self._zero, self._latest = 0.0, 0.0, math.inf
        self._held: Any = None  # a frame before which there may be a gap
        self._go_on()

    def of_blocks(self, frames: Iterator[Any]) -> Gathering:
        """Everything that is wanted, of frames that ``blocks`` joined.

        Raises:
            NotInBlocks: a block begins late, also the first behind a section, or the last one ends elsewhere than the file's
                index.
        """
        more = self._in_blocks = True
        for frame in frames:
            if more:
                more = self._take(frame)
            elif frame.pts is None or self._gap(frame.pts) > self._jitter:
                raise NotInBlocks
            else:
                return self._gathering
        self._hand_on()
        if not self._ended_by_index():
            raise NotInBlocks
        return self._gathering

    def _ended_by_index(self) -> bool:
        """Whether the last packet that the file lists was the last that came out: it begins before the end, and nothing
        comes behind it."""
        entries = self._stream.index_entries
        if not (self._samples_a_tick and len(entries)):
            return False
        last = entries[len(entries) - 1].timestamp * self._samples_a_tick
        return bool(last < self._zero + self._gathering.seen <= last + _MOST_IN_LAST)

    def of_packets(self, *, sought: bool) -> Gathering:
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
            if self._numbered:
                self._check_number(packet)
            try:
                frames = packet.decode()
            except (av.error.InvalidDataError, av.error.UndefinedError) as error:  # the latter: what looks like ADTS
                refused = error.with_traceback(None)  # which would hold this frame, and all that it has, in a cycle
                continue
            if sought:
                self._steps.learn(packet, sum(frame.samples for frame in frames))
            if not all(map(self._take, frames)):
                break
        self._release()
        self._hand_on()
        if refused is not None and self._frames is None:
            raise CorruptMedia("the recording breaks off before its first sample") from refused
        return self._gathering

    def _check_number(self, packet: Any) -> None:
        """libavformat leaves frames out whose checksums are wrong."""
        number = flac_number(memoryview(packet)[:_HEAD_BYTES])
        if None not in (number, self._number) and number != self._number:
            raise CorruptMedia("an audio packet in the middle of the stream is damaged")
        self._number = None if number is None else number + 1

    def _gather(self, info: AudioInfo) -> Gathering:
        dtype: Literal["int16", "float32"] = "int16" if self._exact else "float32"
        return Gathering(info, self._section, limits=self._limits, deadline=self._deadline, dtype=dtype)

    def _go_on(self) -> None:
        """From where the gathering is: how many samples are handed on at once, for what comes after a section is not decoded
        for it; and the time after which a frame has a gap before it."""
        missing = self._gathering.missing
        self._block = BLOCK_SAMPLES if missing is None else min(BLOCK_SAMPLES, missing)
        if self._samples_a_tick:
            self._latest = self._zero + self._gathering.seen + self._jitter

    @property
    def _jitter(self) -> float:
        """Samples that a frame may come late."""
        return _JITTER_SECONDS * self._gathering.info.sample_rate

    def _set_clock(self, frame: Any) -> None:
        """The first frame says when the sound begins."""
        base, zero, gathering = self._stream.time_base, self._section.zero_seconds, self._gathering
        if not self._timed or frame.pts is None or base is None:
            return
        from_zero = zero if zero is not None else _picture_seconds(self._container)
        if from_zero is not None:
            gathering.begin(seconds=float(frame.pts * base) - from_zero, aligned=zero is not None)
        self._samples_a_tick = float(base * gathering.info.sample_rate)
        self._zero = frame.pts * self._samples_a_tick - gathering.seen
        self._go_on()

    def _gap(self, pts: int) -> int:
        """Samples that are missing before this time, once all that came is handed on."""
        return round(pts * self._samples_a_tick - self._zero) - self._gathering.seen

    def _look_at_time(self, frame: Any) -> bool:
        """A frame comes later than what was before it ended, and waits for the next, whose time has to say so too: one that
        lies moves nothing. Whether more is wanted."""
        if self._in_blocks:
            raise NotInBlocks
        held, self._held = self._held, None
        if not self._hand_on():
            return False
        self._go_on()
        if held is None:
            self._held, self._latest = frame, -math.inf
            return True
        late = frame.pts is not None and frame.pts * self._samples_a_tick - held.samples > self._latest
        gap = min(self._gap(held.pts), self._gap(frame.pts) - held.samples) if late else 0
        more = not gap or self._gathering.fill(gap)
        self._go_on()
        return more and self._add(held) and self._add(frame)

    def _add(self, frame: Any) -> bool:
        assert self._frames is not None
        return self._frames.take(frame, frame.samples) < self._block or self._hand_on()

    def _release(self) -> None:
        """Nothing follows what waits."""
        if self._held is not None:
            held, self._held = self._held, None
            self._go_on()
            self._add(held)

    def _take(self, frame: Any) -> bool:
        """Whether more is wanted."""
        if not (count := frame.samples):
            return True
        frames, pts = self._frames, frame.pts
        if frames is None or frames.form != (frame.format.name, frame.layout.nb_channels, frame.sample_rate):
            frames = self._change(frame)
        if self._held if pts is None else pts * self._samples_a_tick - frames.count > self._latest:
            return self._look_at_time(frame)
        return frames.take(frame, count) < self._block or self._hand_on()

    def _change(self, frame: Any) -> Frames:
        name, channels, rate = form(frame)
        found, before = replace(self._info, channels=channels, sample_rate=rate), self._gathering.info
        if found != before and self._frames is not None:
            raise UnsupportedFormat(f"the audio changes from {_shape(before)} to {_shape(found)}")
        if self._exact and name not in _WITHIN_16_BITS:
            raise UnsupportedFormat(f"the samples change to {name} within the stream")
        self._release()
        self._hand_on()
        if found != before:  # HE-AAC and AMR: the header may say half of what the decoder gives
            self._gathering = self._gather(found)
        if self._frames is None:
            self._set_clock(frame)
        self._frames = Frames(frame)
        self._go_on()
        return self._frames

    def _hand_on(self) -> bool:
        """Whether more is wanted than has come."""
        if self._frames is None or not self._frames.count:
            return True
        more = self._gathering.put(self._frames.samples)
        self._frames.clear()
        self._go_on()
        return more

    def _skip(self, count: int) -> None:
        self._gathering.skip(count)
        self._go_on()

    def _sought(self) -> Iterator[Any]:
        """Packets from the beginning until it is known how many samples they hold, and then those from a little before
        the section on."""
        steps, stepping, stepped = self._steps, True, False
        for packet in self._container.demux(self._stream):
            if stepping and steps.settled and packet.size:
                self._hand_on()
                if self._held or (packet.pts is not None and packet.pts * self._samples_a_tick > self._latest):
                    raise CorruptMedia(
                        "times have a gap before the section: what fills it is known when all is decoded"
                    )
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


def _picture_seconds(container: Any) -> float | None:
    """When the first picture is shown, by the container's clock; ``None`` without video: cover art is none."""
    stream = shown_stream(container)
    start = None if stream is None else stream.start_time
    return None if start is None else float(start * stream.time_base)


def _shape(info: AudioInfo) -> str:
    return f"{info.channels} channels at {info.sample_rate} Hz"
