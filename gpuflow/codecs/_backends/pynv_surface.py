"""A frame of PyNvVideoCodec as a ``Surface``: checked against the clip, then converted from where it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpuflow.codecs.base import VideoInfo
from gpuflow.errors import UnsupportedFormat
from gpuflow.planes import Plane, Planes

Convert = Callable[..., None]  # gpuflow.ops.color.nv12_to_rgb; handed in, because codecs do not import ops
_LEGACY, _PER_THREAD = 1, 2  # of ``__cuda_array_interface__["stream"]``: the two default streams


class PyNvSurface:
    """``Surface`` of an NVDEC frame: NV12 for 8 bits, P016 for more, two planes in device memory."""

    __slots__ = ("_convert", "_frame", "_info", "_stream")
    corrupt = False  # unknown: PyNvVideoCodec does not hand on what NVDEC says of a picture

    def __init__(self, frame: Any, info: VideoInfo, convert: Convert, stream: Any) -> None:
        self._frame = frame
        self._info = info
        self._convert = convert
        self._stream = stream

    @property
    def displayed_size(self) -> tuple[int, int]:
        """``(height, width)``: the clip's, for ``planes`` refuses others."""
        return self._info.displayed_size

    def rgb_into(self, out: Any) -> None:
        """Queue the conversion into a CuPy ``(H, W, 3)`` uint8 view. Raises what ``planes`` does."""
        info = self._info
        luma, chroma = self.planes().planes
        self._convert(
            luma.address, chroma.address, out,
            luma_pitch=luma.pitch, chroma_pitch=chroma.pitch, width=info.width, height=info.height,
            matrix=info.matrix, full_range=info.full_range, bit_depth=info.bit_depth, rotation=info.rotation,
            mirrored=info.mirrored, stream=self._stream,
        )  # fmt: skip

    def planes(self) -> Planes:
        """Where it lies; our stream waits for whoever writes it.

        Raises:
            UnsupportedFormat: the picture has another size, depth or chroma than the clip; the kernel would read what
                lies beside it.
        """
        info = self._info
        views = self._frame.cuda()
        luma, chroma, pitch = planes([view.__cuda_array_interface__ for view in views], info)
        self._follow(views[0].__cuda_array_interface__.get("stream"))
        item = 2 if info.bit_depth > 8 else 1
        rows = ((luma, info.height, info.width), (chroma, -(-info.height // 2), info.width + info.width % 2))
        return Planes(
            tuple(Plane(address, pitch, count, samples * item) for address, count, samples in rows),
            info.width,
            info.height,
            info.matrix,
            info.full_range,
            info.bit_depth,
            shift=16 - info.bit_depth if item == 2 else 0,
            rotation=info.rotation,
            mirrored=info.mirrored,
            owner=self._frame,
        )

    def _follow(self, written_on: int | None) -> None:
        """Wait, on our stream, for the stream that the frame says it is written on."""
        if not written_on or written_on == self._stream.ptr:
            return
        import cupy

        default = {_LEGACY: cupy.cuda.Stream.null, _PER_THREAD: cupy.cuda.Stream.ptds}
        other = default[written_on] if written_on in default else cupy.cuda.ExternalStream(written_on)
        self._stream.wait_event(other.record())


def planes(views: list[dict[str, Any]], info: VideoInfo) -> tuple[int, int, int]:
    """Addresses of luma and chroma, and the bytes from row to row, of the array interfaces of a frame's planes.

    A frame is one allocation: chroma lies behind luma, at its pitch. Of planes of 16 bits the library gives strides in
    samples, and addresses that follow from them; the first address and the sizes are right.
    Source: the GPU route of another project that reads this library's frames, PyNvVideoCodec 2.2.

    Raises:
        UnsupportedFormat: packets may hold other pictures than the first one of the clip, whose facts ``info`` has.
    """
    item = 2 if info.bit_depth > 8 else 1
    even = (info.height + info.height % 2, info.width + info.width % 2)
    if len(views) != 2:
        raise UnsupportedFormat(f"the picture has {len(views)} planes, where 4:2:0 of NVDEC has 2")
    rows, samples = views[0]["shape"][:2]
    found = int(views[0]["typestr"][2:])
    if rows not in (info.height, even[0]) or samples not in (info.width, even[1]) or found != item:
        raise UnsupportedFormat(
            f"the picture changes from {info.width}x{info.height}, {info.bit_depth} bits, to {samples}x{rows}, "
            f"{8 * found} bits in memory, within the clip"
        )
    chroma_rows, pairs = views[1]["shape"][:2]
    if chroma_rows < even[0] // 2 or pairs * (views[1]["shape"][2] if len(views[1]["shape"]) > 2 else 1) < even[1]:
        raise UnsupportedFormat(f"the chroma plane is smaller than 4:2:0 of {info.width}x{info.height}")
    strides = views[0].get("strides")
    pitch = int(strides[0]) if strides else item * even[1]
    if pitch < item * samples:
        pitch *= item
    if pitch < item * even[1]:
        raise UnsupportedFormat(f"rows of {pitch} bytes are shorter than {info.width} samples")
    luma = int(views[0]["data"][0])
    return luma, luma + pitch * rows, pitch
