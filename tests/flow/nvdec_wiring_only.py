"""Fakes of PyNvVideoCodec and of CuPy's streams, for wiring only: libavcodec decodes the packets into host memory, work
that is queued on a stream runs when somebody waits for it, and surfaces are overwritten by the decoder's next call.

What NVDEC itself does with packets only a machine with a GPU can tell.
"""

# ruff: noqa: N802, N815 - the names are the vendor's
from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.codecs._backends import pynv_caps
from gpuflow.codecs.base import Capability

DECODERS = {"vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}
NAMES = {"H264": "h264", "HEVC": "hevc", "VP8": "vp8", "VP9": "vp9", "AV1": "av1", "MPEG4": "mpeg4", "JPEG": "mjpeg"}
POISON = 0xCD
CAPS = {
    "supported": 1, "num_decoder_engines": 7, "width_min": 48, "width_max": 4_096,
    "height_min": 48, "height_max": 4_096, "mb_num_max": 65_536,
}  # fmt: skip


@contextmanager
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvdecWiringOnly]:
    """The fakes in place of both libraries, and a driver that is said to be there."""
    fake = NvdecWiringOnly()
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", fake)
    monkeypatch.setitem(sys.modules, "cupy", fake.cupy())
    monkeypatch.setattr(pynv_caps, "capability", lambda: Capability(True))
    pynv_caps._caps.cache_clear()
    yield fake
    pynv_caps._caps.cache_clear()


class StreamWiringOnly:
    """Keeps what is queued until it is waited for. ``log`` is that of the library."""

    def __init__(self, log: list[str]) -> None:
        self.ptr = id(self)
        self.log = log
        self.queued: list[Callable[[], None]] = []
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def synchronize(self) -> None:
        self.run_until(len(self.queued))

    def run_until(self, number: int) -> None:
        while self.done < number:
            self.queued[self.done]()
            self.done += 1


class EventWiringOnly:
    """The moment of ``record`` on a stream."""

    def __init__(self) -> None:
        self._at: tuple[StreamWiringOnly, int] | None = None

    def record(self, stream: StreamWiringOnly) -> None:
        self._at = (stream, len(stream.queued))
        stream.log.append("record")

    def synchronize(self) -> None:
        assert self._at is not None
        self._at[0].log.append("synchronize")
        self._at[0].run_until(self._at[1])


class NvdecWiringOnly:
    """Stands for the module. ``limit``: open sessions from which on making one fails, as where memory is short.
    ``before``: called before each packet is decoded, with its decoder and timestamp."""

    __version__ = "wiring only"
    OutputColorType = SimpleNamespace(NATIVE="native", RGB="rgb")
    DisplayDecodeLatencyType = SimpleNamespace(NATIVE="native", LOW="low")
    cudaVideoCodec = SimpleNamespace(**{name: name for name in NAMES})

    def __init__(self, *, limit: int = 1_000, caps: dict[str, int] | None = None) -> None:
        self.limit = limit
        self.caps = CAPS | (caps or {})
        self.lock = threading.Lock()
        self.open = 0
        self.most_open = 0
        self.num_made = 0
        self.num_caps_asked = 0
        self.most_frames = 0
        self.log: list[str] = []
        self.before: Callable[[DecoderWiringOnly, int], None] = lambda decoder, pts: None

    def PacketData(self) -> Any:
        return SimpleNamespace(bsl=0, bsl_data=0, pts=0)

    def GetDecoderCaps(self, gpuid: int, codec: str, bitdepth: int) -> dict[str, int]:
        self.num_caps_asked += 1
        return self.caps

    def CreateDecoder(self, **arguments: Any) -> DecoderWiringOnly:
        with self.lock:
            if self.open >= self.limit:
                raise RuntimeError("CUDA driver API error CUDA_ERROR_OUT_OF_MEMORY")
            self.open += 1
            self.num_made += 1
            self.most_open = max(self.most_open, self.open)
        return DecoderWiringOnly(self, **arguments)

    def closed(self) -> None:
        with self.lock:
            self.open -= 1

    def SimpleDecoder(self, path: str, **arguments: Any) -> SimpleWiringOnly:
        return SimpleWiringOnly(self, path, **arguments)

    def cupy(self) -> Any:
        """Stands for CuPy."""
        return SimpleNamespace(
            cuda=SimpleNamespace(
                Device=lambda index: nullcontext(),
                Stream=lambda non_blocking: StreamWiringOnly(self.log),
                Event=lambda block, disable_timing: EventWiringOnly(),
                driver=SimpleNamespace(ctxGetCurrent=lambda: 1),
                runtime=SimpleNamespace(memGetInfo=lambda: (1 << 30, 1 << 30)),
            )
        )


class DecoderWiringOnly:
    """One session: elementary-stream packets to NV12 in host memory."""

    def __init__(self, nvdec: NvdecWiringOnly, *, codec: str, maxwidth: int, maxheight: int, **_: Any) -> None:
        self._nvdec = nvdec
        self._name = NAMES[codec]
        self._most = (maxwidth, maxheight)
        self._told: tuple[int, int] | None = None
        self._given: list[NDArray[np.uint8]] = []
        self._using = threading.Lock()
        self._context = self._new()

    def __del__(self) -> None:
        self._nvdec.closed()

    def setReconfigParams(self, width: int, height: int) -> int:
        self._nvdec.log.append(f"reconfigure {width}x{height}")
        self._told = (width, height)
        return 1

    def Decode(self, packet: Any) -> list[Any]:
        assert self._using.acquire(blocking=False), "one session, two threads"
        try:
            self._nvdec.log.append("Decode")
            for surface in self._given:
                surface[:] = POISON
            self._given.clear()
            self._nvdec.before(self, packet.pts)
            return [self._surface(frame) for frame in self._decoded(packet)]
        finally:
            self._using.release()

    def _decoded(self, packet: Any) -> list[Any]:
        if packet.bsl:
            payload = ctypes.string_at(packet.bsl_data, packet.bsl)
            fed = av.Packet(len(payload))
            fed.update(payload)
            fed.pts = fed.dts = packet.pts
            return list(self._context.decode(fed))
        drained = list(self._context.decode(None))
        self._context = self._new()
        return drained

    def _surface(self, frame: Any) -> Any:
        if frame.width > self._most[0] or frame.height > self._most[1]:
            raise RuntimeError("Reconfigure Not supported when width/height > maxwidth/maxheight")
        if self._told not in (None, (frame.width, frame.height)):
            raise RuntimeError("it was told another size")
        memory = interleaved(frame)
        self._given.append(memory)
        return FrameWiringOnly(memory, frame.width, frame.height, frame.pts)

    def _new(self) -> Any:
        context: Any = av.CodecContext.create(DECODERS.get(self._name, self._name), "r")
        context.thread_count = 1
        return context


class SimpleWiringOnly:
    """``SimpleDecoder``: decodes the file at a path, by libavformat and libavcodec."""

    def __init__(self, nvdec: NvdecWiringOnly, path: str, **arguments: Any) -> None:
        self._nvdec = nvdec
        self._given: list[NDArray[np.uint8]] = []
        nvdec.num_made += 1
        self.reconfigure_decoder(path)

    def reconfigure_decoder(self, path: str) -> None:
        assert path.startswith("/proc/self/fd/")
        self._nvdec.log.append("load")
        with av.open(path) as container:
            self._codec = container.streams.video[0].codec_context.codec.canonical_name
            self._frames = list(container.decode(video=0))

    def get_stream_metadata(self) -> Any:
        first = self._frames[0]
        return SimpleNamespace(
            codec_name=self._codec, width=first.width, height=first.height, num_frames=len(self._frames)
        )

    def get_batch_frames_by_index(self, indices: list[int]) -> list[Any]:
        for surface in self._given:
            surface[:] = POISON
        self._given = [interleaved(self._frames[index]) for index in indices]
        self._nvdec.most_frames = max(self._nvdec.most_frames, len(indices))
        return [
            FrameWiringOnly(memory, self._frames[index].width, self._frames[index].height, index)
            for memory, index in zip(self._given, indices, strict=True)
        ]


class FrameWiringOnly:
    """NV12 in host memory, of even rows."""

    def __init__(self, memory: NDArray[np.uint8], width: int, height: int, pts: int) -> None:
        self._memory = memory
        self._size = (height, width + width % 2)
        self._pts = pts

    def getPTS(self) -> int:
        return self._pts

    def cuda(self) -> list[Any]:
        height, width = self._size
        address = self._memory.ctypes.data
        return [
            plane((height, width, 1), (width, 1, 1), address),
            plane((-(-height // 2), width // 2, 2), (width, 2, 1), address + height * width),
        ]


def plane(shape: tuple[int, ...], strides: tuple[int, ...] | None, address: int = 4_096, kind: str = "|u1") -> Any:
    """A view as ``frame.cuda()`` gives it."""
    interface = {"shape": shape, "strides": strides, "typestr": kind, "data": (address, False)}
    return SimpleNamespace(__cuda_array_interface__=interface)


def interleaved(frame: Any) -> NDArray[np.uint8]:
    """A yuv420p frame as NV12, its rows padded to an even number of samples."""
    luma, *chroma = (
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    )
    width = frame.width + frame.width % 2
    both = np.stack(chroma, -1).reshape(len(chroma[0]), -1)
    padded = np.pad(luma, ((0, 0), (0, width - frame.width)), mode="edge")
    return np.concatenate([padded, both]).reshape(-1)


def convert(
    luma: int,
    chroma: int,
    out: NDArray[np.uint8],
    *,
    luma_pitch: int,
    width: int,
    height: int,
    full_range: bool,
    stream: Any,
    **_: Any,
) -> None:
    """Stands for the kernel: queued on the stream, reads the surface when the stream comes to it."""

    def run() -> None:
        rows = -(-height // 2)
        frame = av.VideoFrame(width, height, "yuvj420p" if full_range else "yuv420p")
        y = np.frombuffer(ctypes.string_at(luma, height * luma_pitch), np.uint8).reshape(height, luma_pitch)
        uv = np.frombuffer(ctypes.string_at(chroma, rows * luma_pitch), np.uint8).reshape(rows, luma_pitch // 2, 2)
        for target, values in zip(frame.planes, (y[:, :width], uv[..., 0], uv[..., 1]), strict=True):
            whole = np.zeros((target.height, target.line_size), np.uint8)
            whole[:, : target.width] = values[:, : target.width]
            target.update(whole)
        stream.log.append("converted")
        out[...] = frame.to_ndarray(format="rgb24")

    stream.log.append("convert")
    stream.queued.append(run)
