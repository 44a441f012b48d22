"""Audio files made at run time with real encoders: libsndfile's and FFmpeg's."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.base import MediaType
from gpuflow.media import Blob

Samples = NDArray[np.float32]
KINDS = {
    kind.name: kind
    for kind in (
        MediaType("wav", "audio", "wav"),
        MediaType("flac", "audio", "flac"),
        MediaType("mp3", "audio", "mp3"),
        MediaType("ogg", "audio", "ogg"),
        MediaType("aac", "audio", "aac"),
        MediaType("m4a", "audio", "mp4"),
        MediaType("mp4", "video", "mp4"),
        MediaType("matroska", "video", "matroska"),
        MediaType("mpegts", "video", "mpegts"),
        MediaType("avi", "video", "avi"),
    )
}


def blob(data: bytes) -> Blob:
    """Bytes as the fetch stage hands them over."""
    return Blob(data, "0" * 64)


def chirp(seconds: float, rate: int, channels: int = 1) -> Samples:
    """``(channels, n)``: a tone that climbs, in noise; every channel other than the next, none periodic."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(7)
    rows = [
        0.3 * np.sin(2 * np.pi * (200 + 700 * (c + 1) * t) * t) + 0.02 * rng.standard_normal(len(t))
        for c in range(channels)
    ]
    return np.stack(rows).astype(np.float32)


def with_soundfile(samples: Samples, rate: int, format: str, subtype: str) -> bytes:
    """Encode by libsndfile."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples.T, rate, format=format, subtype=subtype)
    return out.getvalue()


def with_ffmpeg(samples: Samples | None, rate: int, muxer: str, codec: str, *, video: bool = False) -> bytes:
    """Encode by FFmpeg, beside ten frames of MPEG-4 video where that is asked for; ``samples=None`` leaves sound out."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=muxer) as container:
        pictures = _add_video(container) if video else None
        sound = None if samples is None else _add_sound(container, samples, rate, codec)
        for stream in (pictures, sound):
            for packet in [] if stream is None else stream():
                container.mux(packet)
    return out.getvalue()


def _add_video(container: Any) -> Any:
    import av

    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height = 32, 16

    def packets() -> Any:
        for level in range(10):
            picture = np.full((16, 32, 3), 20 * level, np.uint8)
            yield from stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        yield from stream.encode(None)

    return packets


def _add_sound(container: Any, samples: Samples, rate: int, codec: str) -> Any:
    import av

    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    stream = container.add_stream(codec, rate=rate)
    stream.layout = layout

    def packets() -> Any:
        if samples.shape[1]:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return packets
