"""A decoder that is given packets without a container, as NVDEC is: libavcodec, told nothing but the codec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.base import Capability, Deadline, FrameSink, Support, Surface, VideoInfo
from gpuflow.codecs.video.plan import PacketRow, Segment
from gpuflow.codecs.video.stream import ElementaryStream, targets_by_position

DECODERS = {"vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}


class FromPackets:
    """``VideoDecoder`` of elementary streams on the CPU. Keeps what it was given, by segment; ``before`` each packet
    something may happen."""

    name = "from-packets"
    device: Literal["cpu"] = "cpu"
    lanes = None
    restart_packets = 0
    contended = False

    def __init__(self, before: Callable[[int], None] = lambda position: None) -> None:
        self.given: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        self.tables: dict[tuple[int, int], tuple[PacketRow, ...]] = {}
        self._before = before

    def capability(self) -> Capability:
        return Capability(True)

    def supports(self, info: VideoInfo) -> Support:
        return Support(True)

    def decode(
        self, stream: ElementaryStream, info: VideoInfo, segment: Segment, sink: FrameSink, deadline: Deadline
    ) -> set[int]:
        """As ``NvdecVideoDecoder`` does: pictures are known by the position of their packet."""
        span = (segment.first, segment.last)
        self.tables[span] = tuple(stream.table(*span))
        positions = targets_by_position(stream, segment)
        context: Any = av.CodecContext.create(DECODERS.get(info.codec, info.codec), "r")
        context.thread_count = 1
        frames: list[Any] = []
        given = self.given[span] = []
        for position, payload in stream.payloads(*span, segment.skipped):
            self._before(position)
            deadline.check()
            given.append((position, payload))
            packet = av.Packet(len(payload))  # of bytes it would have no zeros behind them, which decoders read
            packet.update(payload)
            packet.pts = packet.dts = position
            frames += context.decode(packet)
        frames += context.decode(None)
        found: set[int] = set()
        for number, frame in enumerate(frames):
            index = segment.targets.get(number) if segment.counted else positions.get(frame.pts)
            if index is not None and index not in found:
                sink.put(index, _Shown(frame, info))
                found.add(index)
        return found


class _Shown:
    """``Surface``, converted as the reference is."""

    corrupt = False

    def __init__(self, frame: Any, info: VideoInfo) -> None:
        self._frame = frame
        self._info = info

    @property
    def displayed_size(self) -> tuple[int, int]:
        return self._info.displayed_size

    def planes(self) -> None:
        """None that a kernel would take."""

    def rgb_into(self, out: NDArray[np.uint8]) -> None:
        out[...] = np.rot90(self._frame.to_ndarray(format="rgb24"), self._info.rotation // 90)


class Kept:
    """``ArraySink`` that keeps every picture."""

    places: dict[int, int] | None = None

    def __init__(self, info: VideoInfo) -> None:
        self.frames: dict[int, NDArray[np.uint8]] = {}
        self._shape = (*info.displayed_size, 3)

    def put(self, index: int, surface: Surface) -> None:
        self.frames[index] = np.empty(self._shape, np.uint8)
        surface.rgb_into(self.frames[index])

    def take(self, index: int, rgb: NDArray[np.uint8]) -> None:
        self.frames[index] = rgb.copy()

    def repeat(self, index: int) -> None:
        raise AssertionError("no picture was written to a place")

    def mark_corrupt(self, index: int) -> None:
        raise AssertionError("no picture is damaged")
