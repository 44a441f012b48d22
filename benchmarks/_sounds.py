"""Sounds to measure with: speech-like clips by length and seed, at a model's rate and as files of 44.1 kHz stereo."""

from __future__ import annotations

import functools
import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.demo import samples

Form = Literal["mp3", "m4a", "wav", "flac"]
FORMS: tuple[Form, ...] = ("mp3", "m4a", "wav", "flac")
RATE, FILE_RATE = 16_000, 44_100
_ENCODERS: dict[Form, tuple[str, str, int]] = {
    "mp3": ("mp3", "libmp3lame", 128_000), "m4a": ("mp4", "aac", 128_000),
    "wav": ("wav", "pcm_s16le", 0), "flac": ("flac", "flac", 0),
}  # fmt: skip


@functools.lru_cache(maxsize=64)
def clip(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """``(n,)`` float32 at 16 kHz, other sound for each seed."""
    count, begin = round(seconds * RATE), 997 * seed
    sound = samples.speech(seconds=(count + begin) / FILE_RATE + 0.1)[begin : begin + count]
    noise = np.random.default_rng(seed).standard_normal(count) * 1e-4
    return np.asarray(sound + noise, np.float32)


@functools.lru_cache(maxsize=64)
def encoded(form: Form, seconds: float, seed: int = 0) -> bytes:
    """A clip of 44.1 kHz, two channels, as a file; MP3 and AAC at 128 kbit/s."""
    import av

    container_format, codec, bits_per_second = _ENCODERS[form]
    out = io.BytesIO()
    with av.open(out, "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=FILE_RATE, layout="stereo")
        if bits_per_second:
            stream.bit_rate = bits_per_second
        floats = "fltp" in {form.name for form in stream.codec.audio_formats}
        sound = stereo(seconds, seed)
        planes = sound if floats else np.round(sound * 32_767).astype(np.int16).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(planes), format="fltp" if floats else "s16", layout="stereo"
        )
        frame.sample_rate = FILE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def stereo(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """``(2, n)`` float32 at 44.1 kHz, within -0.9 .. 0.9."""
    count = round(seconds * FILE_RATE)
    begin = 997 * seed
    sound = samples.speech(seconds=(count + begin) / FILE_RATE + 0.1)[begin : begin + count]
    both = np.stack([sound, 0.6 * np.roll(sound, 441)])
    return np.asarray(0.9 * both / np.abs(both).max(), np.float32)
