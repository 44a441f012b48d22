"""What the audio benchmarks call of gpuflow, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._sounds import RATE
from gpuflow.config import AudioOptions
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Media
from gpuflow.ops.audio import resample
from gpuflow.ops.mel import features as mel_features
from gpuflow.presets.mel_specs import mel_spec

SHORT_WINDOW, LONG_WINDOW = 30, 300  # seconds that clips are padded to
SPECS = {SHORT_WINDOW: "whisper-128", LONG_WINDOW: "qwen2.5-omni"}


def features(waves: Sequence[NDArray[np.float32]], window_seconds: int) -> list[Any]:
    """Features alone, a clip after another: ``(128, frames)`` each."""
    spec = mel_spec(SPECS[window_seconds])
    return [mel_features(wave, spec)[spec.features_name] for wave in waves]


def load(flow: SyncFlow, data: bytes) -> Media:
    """A file to features of 30 s, in a lease."""
    return flow.load(data, options=AudioOptions(features=SPECS[SHORT_WINDOW]))


def resampled(sound: NDArray[np.float32], from_hz: int) -> Any:
    """``(channels, n)`` at 16 kHz."""
    return resample(sound, from_hz, RATE)
