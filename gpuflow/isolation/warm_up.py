"""One decode by every backend, of media that we made: what loads or opens a file on first use does it now."""

from __future__ import annotations

import contextlib
import importlib
import io
import struct
from fractions import Fraction
from typing import Any

import numpy as np

from gpuflow.codecs.audio import decode_audio
from gpuflow.codecs.base import FrameSink, MediaType, Surface
from gpuflow.codecs.images import decode_image
from gpuflow.codecs.probe import image_info, sniff
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.source import PacketSource
from gpuflow.codecs.videos import cpu_decoder
from gpuflow.config import Limits
from gpuflow.errors import GpuflowError
from gpuflow.ops.audio import resample

_SIDE = 16
_RATE = 8_000
_TEXT = ("ascii", "cp1252", "latin_1", "utf_8", "utf_8_sig", "utf_16", "utf_16_le", "utf_16_be", "utf_32")
_LATE = ("statistics", "struct", "traceback", "fractions", "xml.etree.ElementTree", "PIL.ExifTags", "PIL.TiffTags")


class _NoDeadline:
    def check(self) -> None:
        pass


class _Nowhere:
    """``FrameSink`` that converts and forgets."""

    def put(self, index: int, surface: Surface) -> None:
        surface.rgb_into(np.empty((_SIDE, _SIDE, 3), np.uint8))


def warm_up() -> None:
    """Load every library and decode with it."""
    for name in (*(f"encodings.{text}" for text in _TEXT), *_LATE):
        importlib.import_module(name)
    for data in (*_pictures(), _wide_png()):
        _image(data)
    for data in (_wave(), _clip("mp4", "libx264"), _clip("matroska", "mpeg4")):
        _sound_and_video(data)
    resample(np.zeros((1, 64), np.float32), _RATE, 2 * _RATE)


def _image(data: bytes) -> None:
    decode_image(data, image_info(data, sniff(data)), torch_free=True)
    damaged = data[: len(data) // 2]  # an error's way through a library loads modules too
    with contextlib.suppress(GpuflowError):
        decode_image(damaged, image_info(damaged, sniff(damaged)), torch_free=True)


def _sound_and_video(data: bytes) -> None:
    kind: MediaType = sniff(data)
    for part in (data, data[: 2 * len(data) // 3]):
        with contextlib.suppress(GpuflowError):
            decode_audio(part, kind, limits=Limits(), deadline=_NoDeadline())
        if kind.modality == "video":
            with contextlib.suppress(GpuflowError):
                _frames(part, kind)


def _frames(data: bytes, kind: MediaType) -> None:
    source = PacketSource.open(data, kind, limits=Limits(), deadline=_NoDeadline())
    sink: FrameSink = _Nowhere()
    plan = source.plan([0], limits=Limits())
    for _ in source.demuxed.payloads(0, 0):  # the bitstream filter
        pass
    decode_frames(source.demuxed, source.info, plan, sink, decoder=cpu_decoder, deadline=_NoDeadline())


def _pictures() -> list[bytes]:
    from PIL import Image

    made: list[bytes] = []
    exif = Image.Exif()
    exif[0x0112] = 3
    for form, mode in (
        ("JPEG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("WEBP", "RGB"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("AVIF", "RGB"),
        ("TIFF", "RGB"),
    ):
        out, options = io.BytesIO(), {} if form in ("GIF", "BMP", "TIFF") else {"exif": exif}
        try:
            Image.new(mode, (_SIDE, _SIDE)).save(out, form, **options)
        except (KeyError, OSError):  # a Pillow without AVIF
            continue
        made.append(out.getvalue())
    with contextlib.suppress(ImportError, OSError):  # optional
        import pillow_heif

        out = io.BytesIO()
        pillow_heif.from_pillow(Image.new("RGB", (_SIDE, _SIDE))).save(out)
        made.append(out.getvalue())
    return made


def _wide_png() -> bytes:
    """A PNG of 16 bits a channel, as libavcodec writes it."""
    import av

    context: Any = av.CodecContext.create("png", "w")
    context.width = context.height = _SIDE
    context.pix_fmt, context.time_base = "rgb48be", Fraction(1, 10)
    frame = av.VideoFrame(_SIDE, _SIDE, "rgb48be")
    return b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))


def _wave() -> bytes:
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + 512, b"WAVE", b"fmt ", 16, 1, 1, _RATE, 2 * _RATE, 2, 16, b"data", 512
    )
    return header + bytes(512)


def _clip(container: str, codec: str) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=container) as output:
        video: Any = output.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = _SIDE, _SIDE, "yuv420p"
        video.codec_context.thread_count = 1
        sound: Any = output.add_stream("aac", rate=_RATE, layout="mono")
        for _ in range(2):
            output.mux(video.encode(av.VideoFrame(_SIDE, _SIDE, "yuv420p")))
        output.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = _RATE
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    return out.getvalue()
