"""Media made with real encoders: photographs stand-ins, a clip that counts its frames, speech-like sound."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

FPS = 30
SECONDS = 20
WIDTH, HEIGHT = 640, 360
CODE_BITS = 12
CODE_SIDE = 20
SPEECH_RATE = 44_100


def picture(image_format: str, *, width: int = 960, height: int = 640) -> bytes:
    """A scene with smooth shades, edges and fine texture, as ``"JPEG"``, ``"PNG"`` or ``"WEBP"``."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(_scene(width, height)).save(out, image_format, quality=90)
    return out.getvalue()


def clip(*, seconds: float = SECONDS) -> bytes:
    """An MP4 with H.264 at 30 fps, closed GOPs of 60 and B-frames, and AAC speech: every frame shows its number twice,
    as digits and as a 12-bit code that survives compression (see ``read_code``)."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": "60", "bf": "2"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=SPEECH_RATE, layout="mono")
        background = _scene(WIDTH + 400, HEIGHT)
        for number in range(round(seconds * FPS)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(_numbered(background, number), format="rgb24")))
        container.mux(video.encode())
        samples = speech(seconds=seconds)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = SPEECH_RATE, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return buffer.getvalue()


def read_code(frame: np.ndarray[Any, Any]) -> int:
    """The number in a frame's code, ``(H, W, 3)`` uint8."""
    height = frame.shape[0]
    centre = height - CODE_SIDE // 2
    columns = [CODE_SIDE // 2 + CODE_SIDE * bit for bit in range(CODE_BITS)]
    return sum(int(frame[centre, column].mean() > 127) << bit for bit, column in enumerate(columns))


def recording() -> bytes:
    """Five seconds of speech-like sound as MP3."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, speech(seconds=5.0), SPEECH_RATE, format="MP3")
    return out.getvalue()


def speech(*, seconds: float) -> np.ndarray[Any, Any]:
    """``(samples,)`` float32 at 44.1 kHz: a gliding voice with three formants, in syllables, over faint noise."""
    time = np.arange(int(seconds * SPEECH_RATE)) / SPEECH_RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / SPEECH_RATE
    vowel = 0.5 + 0.5 * np.sin(2 * np.pi * 0.9 * time)
    voice = np.zeros_like(time)
    for harmonic in range(1, 40):
        frequency = harmonic * pitch
        formants = ((500 + 300 * vowel, 90.0), (1500 + 700 * vowel, 140.0), (2800 + 0 * vowel, 200.0))
        gain = sum(np.exp(-(((frequency - centre) / width) ** 2) / 8) for centre, width in formants)
        voice += gain * np.sin(harmonic * phase) / harmonic**0.3
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * time), 0, 1) ** 0.5
    noise = np.random.default_rng(7).normal(size=len(time))
    return (0.06 * voice * syllables + 0.002 * noise).clip(-1, 1).astype(np.float32)


def _numbered(background: np.ndarray[Any, Any], number: int) -> np.ndarray[Any, Any]:
    from PIL import Image, ImageDraw, ImageFont

    shift = abs(400 - (number * 3) % 800)
    frame = Image.fromarray(background[:, shift : shift + WIDTH])
    draw = ImageDraw.Draw(frame)
    x, y = 320 + 250 * np.sin(number / 17), 150 + 90 * np.cos(number / 11)
    draw.ellipse((x - 40, y - 40, x + 40, y + 40), fill=(230, 90, 40))
    draw.rectangle((8, 8, 128, 48), fill=(0, 0, 0))
    draw.text((16, 10), f"{number:05d}", fill=(255, 255, 255), font=ImageFont.load_default(30))
    top = HEIGHT - CODE_SIDE
    for bit in range(CODE_BITS):
        level = 255 * (number >> bit & 1)
        draw.rectangle((CODE_SIDE * bit, top, CODE_SIDE * (bit + 1) - 1, HEIGHT), fill=(level, level, level))
    return np.asarray(frame)


def _scene(width: int, height: int) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / height, y / height
    hills = 0.72 + 0.07 * np.sin(5.1 * u) + 0.04 * np.sin(13.7 * u + 1) + 0.015 * np.sin(41 * u)
    ground = (v > hills)[..., None]
    sky = np.stack([70 + 110 * v, 120 + 90 * v, 200 + 40 * v], -1)
    texture = 18 * np.sin(90 * u * (1 + v)) * np.sin(70 * v) + np.random.default_rng(3).normal(0, 5, (height, width))
    grass = np.stack([60 + texture, 110 + 40 * (v - hills) + texture, 50 + texture / 2], -1)
    sun = np.exp(-(((u - 1.1) ** 2 + (v - 0.28) ** 2) / 0.006))[..., None] * np.array([190, 150, 40])
    return (np.where(ground, grass, sky + sun) + 0.5).clip(0, 255).astype(np.uint8)
