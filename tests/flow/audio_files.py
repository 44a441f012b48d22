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
        MediaType("aiff", "audio", "aiff"),
        MediaType("au", "audio", "au"),
        MediaType("caf", "audio", "caf"),
        MediaType("ac3", "audio", "ac3"),
        MediaType("eac3", "audio", "eac3"),
        MediaType("amr", "audio", "amr"),
        MediaType("wma", "audio", "asf"),
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


def noise(seconds: float, rate: int, channels: int = 1) -> Samples:
    """``(channels, n)``: what speech codecs take for sound: noise below a third of the band that comes and goes, otherwise in
    every channel."""
    count = round(seconds * rate)
    rng, t = np.random.default_rng(5), np.arange(count) / rate
    rows = [
        0.02 * np.convolve(rng.standard_normal(count), np.hanning(17), "same") * (1 + np.sin(2 * np.pi * 3 * t + c))
        for c in range(channels)
    ]
    return np.stack(rows).astype(np.float32)


def lag(got: Samples, expected: Samples) -> int:
    """How many samples ``got`` comes late, by cross-correlation."""
    size = 1 << (len(got) + len(expected)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(got, size) * np.conj(np.fft.rfft(expected, size)), size)
    late = int(np.argmax(correlation))
    return late - size if late > size // 2 else late


def with_ffmpeg(
    samples: Samples | None,
    rate: int,
    muxer: str,
    codec: str,
    *,
    video: bool = False,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    sample_format: str = "",
) -> bytes:
    """Encode by FFmpeg, beside ten frames of MPEG-4 video where that is asked for; ``samples=None`` leaves sound out."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=muxer, options=muxing or {}) as container:
        pictures = _add_video(container) if video else None
        sound = (
            None
            if samples is None
            else _add_sound(container, samples, rate, codec, bit_rate, options, sample_format=sample_format)
        )
        for stream in (pictures, sound):
            for packet in [] if stream is None else stream():
                container.mux(packet)
    return out.getvalue()


def with_languages(sounds: dict[str, Samples], rate: int, muxer: str, codec: str, *, video: bool = True) -> bytes:
    """Encode by FFmpeg several audio streams, each in a language, behind ten frames of video."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=muxer) as container:
        streams = [_add_video(container)] if video else []
        streams += [_add_sound(container, samples, rate, codec, language=name) for name, samples in sounds.items()]
        for stream in streams:
            for packet in stream():
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


def _add_sound(
    container: Any,
    samples: Samples,
    rate: int,
    codec: str,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    language: str = "",
    sample_format: str = "",
) -> Any:
    import av

    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(samples)]
    stream = container.add_stream(codec, rate=rate, options=options or {})
    stream.layout = layout
    if bit_rate:
        stream.bit_rate = bit_rate
    if sample_format:
        stream.format = sample_format
    if language:
        stream.metadata["language"] = language

    def packets() -> Any:
        packed = len(samples) > 7  # which PyAV does not make planar
        for first in range(0, samples.shape[1], rate):
            rows = samples[:, first : first + rate]
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(rows.T.reshape(1, -1) if packed else rows),
                format="flt" if packed else "fltp",
                layout=layout,
            )
            frame.sample_rate, frame.pts = rate, first
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return packets
