"""One NVDEC session of PyNvVideoCodec: packets in, surfaces out, converted on the session's own stream.

It is given elementary-stream packets only: it never sees a path or a URL from outside and never probes bytes itself.
Its RGB output is not used: that keeps the colour matrix in one global of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpuflow.codecs._backends.pynv_caps import CODECS, library, translated
from gpuflow.codecs._backends.pynv_surface import Convert, PyNvSurface
from gpuflow.codecs.base import Deadline, FrameSink, Guard, VideoInfo
from gpuflow.codecs.video.plan import Segment
from gpuflow.codecs.video.sessions import Shape
from gpuflow.codecs.video.stream import ElementaryStream
from gpuflow.observe import log


class Stream:
    """The CUDA stream of a session, and the moment up to which the decoder's surfaces are still read.

    A surface belongs to the decoder again at its next call, so that call has to wait for what reads it.
    """

    def __init__(self, device_index: int) -> None:
        import cupy

        self.device = cupy.cuda.Device(device_index)
        with self.device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.context = int(cupy.cuda.driver.ctxGetCurrent())
            self._done = cupy.cuda.Event(block=True, disable_timing=True)  # a waiting thread sleeps
        self._reading = False

    def read(self) -> None:
        """Something that reads a surface was queued."""
        self._done.record(self.stream)
        self._reading = True

    def wait(self) -> None:
        """Until nothing that was queued reads a surface any more."""
        if self._reading:
            self._done.synchronize()
            self._reading = False


class Held:
    """A decoder of PyNvVideoCodec on its stream: how its surfaces are read, and how it ends."""

    def __init__(self, device_index: int, guard: Guard) -> None:
        self._guard = guard
        self._on = Stream(device_index)
        self._decoder: Any = None

    def put(self, index: int, frame: Any, info: VideoInfo, sink: FrameSink, convert: Convert) -> None:
        """Convert inside the sink; before its next call the decoder waits for that."""
        with self._on.device, self._on.stream, self._guard():
            sink.put(index, PyNvSurface(frame, info, convert, self._on.stream))
            self._on.read()

    def close(self) -> None:
        """Give the session back to the driver."""
        self._on.stream.synchronize()
        self._decoder = None

    def abandon(self) -> None:
        """Close one that failed, of which what failed says more than how it closes."""
        try:
            self.close()
        except Exception:  # noqa: BLE001 - the library raises several unrelated types
            log.warning("an NVDEC session that failed did not close either", exc_info=True)
            self._decoder = None


class Session(Held):
    """See ``gpuflow.codecs.video.sessions.Session``. ``made_for`` may be larger than the clips that it decodes."""

    def __init__(self, device_index: int, shape: Shape, made_for: Shape, guard: Guard) -> None:
        nvc = library()

        self.shape = shape
        self.made_for = made_for
        self.changed = False  # of size, and not used since: the decoder may still fail of it
        super().__init__(device_index, guard)
        with self._on.device, guard():
            self._decoder = nvc.CreateDecoder(
                gpuid=device_index,
                codec=getattr(nvc.cudaVideoCodec, CODECS[shape.codec]),
                cudacontext=self._on.context,
                cudastream=self._on.stream.ptr,
                usedevicememory=1,
                maxwidth=made_for.width,
                maxheight=made_for.height,
                outputColorType=nvc.OutputColorType.NATIVE,
            )

    def adopt(self, shape: Shape) -> None:
        """Tell the decoder the size of the next clip. It looks at it when packets come, and may fail only then."""
        with self._on.device, self._guard():
            self._decoder.setReconfigParams(shape.width, shape.height)
        self.shape, self.changed = shape, True

    def pictures(
        self, stream: ElementaryStream, segment: Segment, deadline: Deadline, enough: Callable[[], bool]
    ) -> Iterator[tuple[int, Any]]:
        """``(position of its packet, frame)`` in display order; a frame is valid until the next one is asked for. Feeds
        no more packets once there is ``enough``, and drains the decoder, so that it takes another segment.

        The position travels as the packet's timestamp, so that pictures are named exactly whatever their times are.
        """
        import numpy as np

        nvc = library()

        for position, payload in stream.payloads(segment.first, segment.last, segment.skipped):
            deadline.check()
            raw = np.frombuffer(payload, np.uint8)  # must live until Decode returns: the packet holds a bare address
            packet = nvc.PacketData()
            packet.bsl_data, packet.bsl, packet.pts = raw.ctypes.data, raw.size, position
            yield from self._decode(packet)
            if enough():
                break
        end = nvc.PacketData()
        end.bsl = 0
        yield from self._decode(end)
        self._on.wait()

    def _decode(self, packet: Any) -> Iterator[tuple[int, Any]]:
        self._on.wait()
        with self._on.device, translated(self.shape.codec), self._guard():
            frames = self._decoder.Decode(packet)
        for frame in frames:
            yield int(frame.getPTS()), frame
