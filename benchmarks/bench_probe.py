"""The scan of media before a decoder opens them, against how long the libraries take to open the same bytes.

Sniffing is part of gpuflow's time. A round has 20 of each, so that it is longer than the clock's grain: the time of one
is a twentieth of what is shown, and, in CPU time, ``scan_microseconds`` in the JSON.

    python -m benchmarks.bench_probe [--rounds N] [--quick]
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from gpuflow.codecs.probe import check, sniff
from gpuflow.config import Limits
from gpuflow.demo import samples

EACH = 20
LIMITS = Limits()
IMAGES = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "AVIF": "avif", "TIFF": "tiff"}
CLIPS: dict[str, tuple[str, str, dict[str, str]]] = {  # muxer, codec, options
    "MP4": ("mp4", "libx264", {}),
    "MP4, fragmented": ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "Matroska": ("matroska", "libx264", {}),
    "WebM": ("webm", "libvpx", {}),
    "AVI": ("avi", "mpeg4", {}),
    "MPEG-TS": ("mpegts", "libx264", {}),
}
SOUNDS = {
    "WAV": ("WAV", "PCM_16"),
    "FLAC": ("FLAC", "PCM_16"),
    "MP3": ("MP3", "MPEG_LAYER_III"),
    "Ogg": ("OGG", "VORBIS"),
}


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    seconds, side = (0.2, 64) if wanted.quick else (10.0, 1_080)
    files = [(f"{form} {side * 16 // 9}x{side}", _picture(form, side), _pillow) for form in IMAGES]
    files += [(f"{name} of {seconds:g} s", _clip(*how, seconds), _ffmpeg) for name, how in CLIPS.items()]
    files += [(f"{name} of {3 * seconds:g} s", _sound(*how, 3 * seconds), _sndfile) for name, how in SOUNDS.items()]
    files.append((f"AAC of {3 * seconds:g} s", _aac(3 * seconds), _ffmpeg))
    rows = measure([_row(name, data, peer) for name, data, peer in files], rounds=wanted.rounds)
    each = {row["name"]: round(1e3 * row["entries"]["gpuflow scan"]["cpu_ms"] / EACH, 1) for row in rows}
    note = f"{EACH} in a round; a scan decodes nothing and opens no library"
    print(save("probe", rows, out=wanted.out, note=note, scan_microseconds=each))


def _row(name: str, data: bytes, opener: Callable[[bytes], Any]) -> Row:
    def scan() -> Any:
        for _ in range(EACH):
            found = check(data, sniff(data), LIMITS)
        return found

    def opening() -> Any:
        for _ in range(EACH):
            found = opener(data)
        return found

    return Row(
        f"{name}, {len(data) / 1e3:,.0f} kB",
        [Contender("gpuflow scan", scan), Contender(opener.__name__.strip("_") + " open", opening)],
    )


def _pillow(data: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.size


def _ffmpeg(data: bytes) -> Any:
    import av

    with av.open(io.BytesIO(data), format=sniff(data).format) as container:
        return len(container.streams)


def _sndfile(data: bytes) -> Any:
    import soundfile

    return soundfile.info(io.BytesIO(data)).frames


def _picture(form: str, side: int) -> bytes:
    return samples.picture(form, width=side * 16 // 9, height=side)


def _clip(muxer: str, codec: str, options: dict[str, str], seconds: float) -> bytes:
    import av

    out = io.BytesIO()
    pictures = [np.roll(_texture(), 8 * n, axis=1) for n in range(8)]
    with av.open(out, "w", format=muxer, options=options) as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(round(30 * seconds)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pictures[number % 8], format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


@functools.cache
def _texture() -> Any:
    y, x = np.mgrid[0:360, 0:640]
    return (
        np.stack([96 + 60 * np.sin(x / 9) + 60 * np.cos(y / (7 + n)) for n in range(3)], -1)
        .clip(0, 255)
        .astype(np.uint8)
    )


def _sound(form: str, subtype: str, seconds: float) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples.speech(seconds=seconds), 44_100, format=form, subtype=subtype)
    return out.getvalue()


def _aac(seconds: float) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="adts") as container:
        stream: Any = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            samples.speech(seconds=seconds)[None].astype(np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44_100
        for packets in (stream.encode(frame), stream.encode()):
            container.mux(packets)
    return out.getvalue()


if __name__ == "__main__":
    main()
