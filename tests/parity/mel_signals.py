"""Clips at 16 kHz that a mel front end may meet, made anew each time they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
Signal = NDArray[np.float32]


def speech(seconds: float = 5.3) -> Signal:
    """A pulse train through three formants, in syllables, 60 dB between its loudest and quietest parts; digitally clean:
    above 5 kHz there is nothing but the rounding of its samples."""
    t = np.arange(int(seconds * RATE)) / RATE
    pitch = 2 * np.pi * np.cumsum(110 + 20 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    voice = sum(
        np.sin(k * pitch) / k * np.exp(-(((k * 110 - f) / 300) ** 2)) for k in range(1, 40) for f in (500, 1500, 2500)
    )
    syllables = 0.001 + np.maximum(0, np.sin(2 * np.pi * 3 * t)) ** 2
    return np.asarray(0.3 * voice * syllables, np.float32)


def in_a_room(seconds: float = 5.3) -> Signal:
    """The same with the noise of a quiet room, which recordings have in the bands that it leaves empty."""
    clean = speech(seconds)
    return clean + noise(len(clean), 1e-4)


def noise(count: int, level: float = 0.1) -> Signal:
    return (np.random.default_rng(count).standard_normal(count) * level).astype(np.float32)


def tone(hz: float, seconds: float) -> Signal:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def drop() -> Signal:
    """80 dB down in the middle."""
    return np.concatenate([noise(20_000, 0.3), noise(20_000, 3e-5)])


def swelling(seconds: float) -> Signal:
    """Noise that a listener would cut in two places."""
    t = np.arange(int(seconds * RATE)) / RATE
    return (noise(len(t)) * (0.02 + np.abs(np.sin(t / 5)))).astype(np.float32)


SIGNALS: dict[str, Callable[[], Signal]] = {
    "speech": speech,
    "speech in a room": in_a_room,
    "noise": lambda: noise(50_001),
    "tone": lambda: tone(440.0, 3.0),
    "quiet": lambda: noise(32_000, 1e-4),
    "speech with an offset": lambda: speech() + np.float32(0.05),
    "speech at -60 dB": lambda: in_a_room() * np.float32(1e-3),
    "80 dB drop": drop,
    "an odd hop": lambda: noise(16_160),
    "short": lambda: noise(150),
    "one sample": lambda: np.array([0.25], np.float32),
    "exactly 30 s": lambda: noise(480_000),
    "longer": lambda: swelling(40.0),
}
