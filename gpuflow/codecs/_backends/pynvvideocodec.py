"""NVDEC through PyNvVideoCodec: our packets in, NV12 or P016 surfaces out, converted on our stream.

The library ends the process when the driver does not start, so the driver is asked first, through ctypes. It is given
elementary-stream packets only: it never sees a path or a URL from outside and never probes bytes itself. Its RGB
output is not used: that keeps the colour matrix in one global of the process.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

from gpuflow.codecs.base import Capability, Deadline, FrameSink, Guard, Support, VideoInfo
from gpuflow.codecs.video.plan import Segment
from gpuflow.codecs.video.stream import ElementaryStream, targets_by_position
from gpuflow.device import driver
from gpuflow.errors import CorruptMedia, GpuflowError, UnsupportedFormat
from gpuflow.observe import log

Convert = Callable[..., None]  # gpuflow.ops.color.nv12_to_rgb; handed in, because codecs do not import ops

_CODECS = {"h264": "H264", "hevc": "HEVC", "vp8": "VP8", "vp9": "VP9", "av1": "AV1", "mpeg4": "MPEG4", "mjpeg": "JPEG"}
_MATRICES = frozenset({"bt601", "bt709", "bt2020", "smpte240m", "fcc"})
_PIP = "pip install 'gpuflow[cu13]'"


@functools.cache
def capability() -> Capability:
    """Whether NVDEC can be used here; never loads the library without a driver."""
    found = driver()
    if found.count == 0:
        return Capability(False, found.reason)
    try:
        nvc = _library()
    except (ImportError, OSError, RuntimeError) as error:  # it raises RuntimeError where a driver library is missing
        hint = f"{_PIP}; in a container NVIDIA_DRIVER_CAPABILITIES must name video"
        return Capability(False, f"PyNvVideoCodec does not load ({type(error).__name__}): {hint}")
    return Capability(True, version=str(nvc.__version__))


@functools.cache
def caps(device_index: int, codec: str, bit_depth: int) -> dict[str, int]:
    """What NVDEC says about a codec at 4:2:0; asked once, for the question is slow and contended."""
    nvc = _library()

    return dict(
        nvc.GetDecoderCaps(gpuid=device_index, codec=getattr(nvc.cudaVideoCodec, _CODECS[codec]), bitdepth=bit_depth)
    )


class NvdecVideoDecoder:
    """``VideoDecoder`` on one GPU. Drained sessions are kept for the next segment of the same shape; a session that
    raised is dropped, because a failed one stays failed."""

    name = "pynvvideocodec"
    device: Literal["cuda"] = "cuda"

    def __init__(self, device_index: int, convert: Convert, *, reuse: bool = True, guard: Guard = nullcontext) -> None:
        self._index = device_index
        self._convert = convert
        self._reuse = reuse
        self._guard = guard
        self._idle: dict[tuple[object, ...], list[_Session]] = {}
        self._lock = threading.Lock()

    def capability(self) -> Capability:
        """Whether driver and library are there."""
        return capability()

    def supports(self, info: VideoInfo) -> Support:
        """Codec, depth, chroma, size and macroblocks against the GPU's own answer."""
        if not (ready := capability()):
            return Support(False, ready.reason)
        if info.codec not in _CODECS or info.chroma != "420" or info.matrix not in _MATRICES:
            return Support(False, f"NVDEC is not used for {info.codec} {info.chroma} {info.matrix}")
        if info.mirrored:
            return Support(False, "the colour kernel turns pictures and does not mirror them")
        try:
            return _within(info, caps(self._index, info.codec, info.bit_depth))
        except Exception as error:  # noqa: BLE001  the library raises several unrelated types
            return Support(False, f"NVDEC does not answer for {info.codec} ({type(error).__name__})")

    def decode(
        self, stream: ElementaryStream, info: VideoInfo, segment: Segment, sink: FrameSink, deadline: Deadline
    ) -> set[int]:
        """See ``VideoDecoder``.

        Raises:
            CorruptMedia: NVDEC refuses the packets.
            UnsupportedFormat: a picture is smaller than the clip.
            DeviceLost: the GPU's context has ended.
        """
        found: set[int] = set()
        with self._session(info) as session:
            positions = targets_by_position(stream, segment)
            for number, (position, frame) in enumerate(session.pictures(stream, segment, deadline)):
                index = segment.targets.get(number) if segment.counted else positions.get(position)
                if index is None or index in found:
                    continue
                session.put(index, frame, sink, self._convert)
                found.add(index)
        return found

    @contextmanager
    def _session(self, info: VideoInfo) -> Iterator[_Session]:
        """A session for this shape; kept afterwards, unless something was raised."""
        key = (info.codec, info.width, info.height, info.bit_depth)
        with self._lock:
            idle = self._idle.setdefault(key, [])
            session = idle.pop() if idle else None
        session = session or _Session(self._index, info, self._guard)
        try:
            yield session
        except BaseException:
            session.abandon()
            raise
        if self._reuse:
            with self._lock:
                self._idle[key].append(session)
        else:
            session.close()


class _Session:
    """One NVDEC session and the stream that its surfaces are written and read on."""

    def __init__(self, device_index: int, info: VideoInfo, guard: Guard) -> None:
        import cupy

        nvc = _library()

        self._info = info
        self._guard = guard
        self._device = cupy.cuda.Device(device_index)
        with self._device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
        with _translated(info.codec), guard():
            self._decoder: Any = nvc.CreateDecoder(
                gpuid=device_index,
                codec=getattr(nvc.cudaVideoCodec, _CODECS[info.codec]),
                cudastream=self.stream.ptr,
                usedevicememory=1,
                maxwidth=info.width,
                maxheight=info.height,
                outputColorType=nvc.OutputColorType.NATIVE,
            )

    def pictures(self, stream: ElementaryStream, segment: Segment, deadline: Deadline) -> Iterator[tuple[int, Any]]:
        """``(position of its packet, frame)`` in display order; a frame is valid until the next one is asked for.

        The position travels as the packet's timestamp, so that pictures are named exactly whatever their times are.
        """
        import numpy as np

        nvc = _library()

        for position, payload in stream.payloads(segment.first, segment.last, segment.skipped):
            deadline.check()
            raw = np.frombuffer(payload, np.uint8)  # must live until Decode returns: the packet holds a bare address
            packet = nvc.PacketData()
            packet.bsl_data, packet.bsl, packet.pts = raw.ctypes.data, raw.size, position
            yield from self._decode(packet)
        end = nvc.PacketData()
        end.bsl = 0
        yield from self._decode(end)

    def put(self, index: int, frame: Any, sink: FrameSink, convert: Convert) -> None:
        """Convert inside the sink, then wait: the surface belongs to the decoder again after this."""
        with self._device, self.stream, self._guard():
            sink.put(index, _Surface(frame, self._info, convert, self.stream))
            self.stream.synchronize()

    def close(self) -> None:
        """Give the session back to the driver."""
        self.stream.synchronize()
        self._decoder = None

    def abandon(self) -> None:
        """Close one that failed, of which what failed says more than how it closes."""
        try:
            self.close()
        except Exception:  # noqa: BLE001 - the library raises several unrelated types
            log.warning("an NVDEC session that failed did not close either", exc_info=True)

    def _decode(self, packet: Any) -> Iterator[tuple[int, Any]]:
        with self._device, _translated(self._info.codec), self._guard():
            frames = self._decoder.Decode(packet)
        for frame in frames:
            yield int(frame.getPTS()), frame


class _Surface:
    """``Surface`` of an NVDEC frame: NV12 for 8 bits, P016 for more, two planes in device memory."""

    __slots__ = ("_convert", "_frame", "_info", "_stream")

    def __init__(self, frame: Any, info: VideoInfo, convert: Convert, stream: Any) -> None:
        self._frame = frame
        self._info = info
        self._convert = convert
        self._stream = stream

    @property
    def displayed_size(self) -> tuple[int, int]:
        """The clip's: NVDEC's surface says no other."""
        return self._info.displayed_size

    def rgb_into(self, out: Any) -> None:
        """Queue the conversion into a CuPy ``(H, W, 3)`` uint8 view.

        Raises:
            UnsupportedFormat: the surface is smaller than the clip; the kernel would read what lies behind it.
        """
        info = self._info
        planes = self._frame.cuda()[:2]
        _require_size(planes[0], info)
        (luma, luma_pitch), (chroma, chroma_pitch) = (_plane(view) for view in planes)
        self._convert(
            luma, chroma, out,
            luma_pitch=luma_pitch, chroma_pitch=chroma_pitch, width=info.width, height=info.height,
            matrix=info.matrix, full_range=info.full_range, bit_depth=info.bit_depth, rotation=info.rotation,
            stream=self._stream,
        )  # fmt: skip


def _require_size(luma: Any, info: VideoInfo) -> None:
    """Packets may hold other pictures than the first one of the clip, whose facts ``info`` has."""
    interface = luma.__cuda_array_interface__
    rows, samples = interface["shape"][:2]
    row_bytes = max(int(interface["typestr"][2:]) * samples, (interface.get("strides") or [0])[0])
    if rows < info.height or samples < info.width or row_bytes < info.width * (2 if info.bit_depth > 8 else 1):
        raise UnsupportedFormat(
            f"the picture changes from {info.width}x{info.height}, {info.bit_depth} bits, to {samples}x{rows} within the clip"
        )


def _plane(view: Any) -> tuple[int, int]:
    """Address and bytes from row to row of one plane."""
    interface = view.__cuda_array_interface__
    shape, strides = interface["shape"], interface.get("strides")
    item = int(interface["typestr"][2:])
    pitch = strides[0] if strides else item * shape[1] * (shape[2] if len(shape) > 2 else 1)
    return int(interface["data"][0]), int(pitch)


def _within(info: VideoInfo, answer: dict[str, int]) -> Support:
    what = f"{info.codec} {info.bit_depth} bit {info.width}x{info.height}"
    if not answer.get("supported", answer.get("num_decoder_engines", 0)):
        return Support(False, f"this GPU's NVDEC does not decode {info.codec} with {info.bit_depth} bits")
    if not answer["width_min"] <= info.width <= answer["width_max"]:
        return Support(False, f"NVDEC takes widths of {answer['width_min']} .. {answer['width_max']}: {what}")
    if not answer["height_min"] <= info.height <= answer["height_max"]:
        return Support(False, f"NVDEC takes heights of {answer['height_min']} .. {answer['height_max']}: {what}")
    blocks = -(-info.width // 16) * -(-info.height // 16)
    if blocks > answer["mb_num_max"]:
        return Support(False, f"NVDEC takes {answer['mb_num_max']} macroblocks, this picture has {blocks}: {what}")
    return Support(True)


def _library() -> Any:
    import PyNvVideoCodec

    return PyNvVideoCodec


@contextmanager
def _translated(codec: str) -> Iterator[None]:
    try:
        yield
    except GpuflowError:
        raise
    except Exception as error:
        raise CorruptMedia(f"NVDEC cannot decode this {codec} stream") from error
