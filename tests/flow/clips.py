"""Clips made by real encoders; every frame carries its number as a barcode, so that it can be read back."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

BITS = 16
FORMATS = {"mp4": "mov", "mov": "mov", "webm": "matroska", "matroska": "matroska", "mpegts": "mpegts", "avi": "avi"}
FORMATS |= {name: name for name in ("h264", "hevc", "obu", "ivf")}
SPEED = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12"},
}


def picture(number: int, width: int = 160, height: int = 96) -> NDArray[np.uint8]:
    """A moving pattern; over its top half the bits of ``number`` as black and white bars, the lowest bit leftmost."""
    y, x = np.mgrid[0:height, 0:width]
    moving = 96 + 48 * np.sin((x + 3 * number) / 9.0) + 40 * np.cos((y - 2 * number) / 7.0)
    rgb = np.stack([moving, 255 - moving, 128 + 0 * moving], -1).clip(0, 255).astype(np.uint8)
    for bit in range(BITS):
        rgb[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 235 if number >> bit & 1 else 20
    return rgb


def barcode(frame: NDArray[np.uint8]) -> int:
    """The number that ``picture`` wrote."""
    height, width = frame.shape[:2]
    row = frame[height // 4 - 2 : height // 4 + 2].astype(float).mean((0, 2))
    centres = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    return sum(int(row[centre - 1 : centre + 2].mean() > 128) << bit for bit, centre in enumerate(centres))


def make_clip(
    codec: str = "libx264",
    num_frames: int = 60,
    *,
    container: str = "mp4",
    size: tuple[int, int] = (160, 96),
    gop: int = 30,
    bframes: int = 2,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    rotation: float = 0.0,
    colour: tuple[int, int] | None = None,
    draw: Callable[[int, int, int], NDArray[np.uint8]] | None = None,
) -> bytes:
    """Encode ``num_frames`` pictures. ``times``: their pts in ``time_base``; ``colour``: AVColorSpace and AVColorRange."""
    buffer = io.BytesIO()
    chosen = SPEED.get(codec, {}) | (options or {})
    with av.open(buffer, "w", format=container, options=muxing or {}) as output:
        stream: Any = output.add_stream(codec, rate=30, options=chosen)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        context = stream.codec_context
        context.time_base, context.gop_size, context.thread_count = time_base, gop, 1
        if codec in {"libx264", "libx265", "mpeg4"}:
            context.max_b_frames = bframes
        if colour is not None:
            context.colorspace, context.color_range = colour
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(num_frames):
            rgb = (draw or picture)(number, *size)
            frame = av.VideoFrame.from_ndarray(rgb).reformat(format=pixel_format, **_colour_arguments(colour))
            frame.pts, frame.time_base = (times[number] if times else number), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


def decode_all(data: bytes, container: str = "mp4") -> list[NDArray[np.uint8]]:
    """The reference: every frame in order, by PyAV's own loop and conversion, turned as the display matrix says."""
    with av.open(io.BytesIO(data), format=FORMATS[container]) as source:
        stream = source.streams.best("video")
        assert stream is not None
        stream.codec_context.thread_count = 1
        return [np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in source.decode(stream)]


def spoiled(data: bytes, container: str = "mp4") -> set[int]:
    """Numbers of the frames that FFmpeg marks as corrupt, and of those behind one of them that is no B picture, up to a
    keyframe."""
    found: set[int] = set()
    spreads = False
    with av.open(io.BytesIO(data), format=FORMATS[container]) as source:
        stream: Any = source.streams.best("video")
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(source.decode(stream)):
            if frame.is_corrupt:
                spreads = spreads or frame.pict_type != PictureType.B
            elif frame.key_frame:
                spreads = False
            if spreads or frame.is_corrupt:
                found.add(number)
    return found


def _colour_arguments(colour: tuple[int, int] | None) -> dict[str, int]:
    if colour is None:
        return {}
    matrix = {6: 5}.get(colour[0], colour[0])  # swscale's name of SMPTE 170M
    return {"dst_colorspace": matrix, "dst_color_range": colour[1], "src_color_range": 2}
