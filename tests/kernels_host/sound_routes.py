"""Stored sound to waveforms and features: by the kernels, run on the host, and by the CPU's route."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.ops.audio import to_rate
from gpuflow.ops.audio_gpu import Clip, WaveClip, batch_launches
from gpuflow.ops.mel import features
from gpuflow.ops.pcm import PcmSamples, to_float
from gpuflow.ops.sound_plan import SoundPlan, sound_plan
from gpuflow.presets.clip_plan import ClipPlan, Parts, clip_plan
from gpuflow.presets.mel import MelSpec
from tests.kernels_host.building import HostTables
from tests.kernels_host.check_image_views import HostMemory
from tests.kernels_host.conftest import Run

LIMITS = Limits()


def run_batch(run: Run, clips: list[Clip]) -> None:
    memory, tables = HostMemory(), HostTables()
    for launch in batch_launches(clips, tables=tables, upload=memory.upload, scratch=memory.scratch):
        run(launch)


def waves(run: Run, plans: list[SoundPlan]) -> list[NDArray[np.float32]]:
    """What the kernels make of clips, side by side."""
    outs = [np.full(plan.shape, np.nan, np.float32) for plan in plans]
    run_batch(run, [WaveClip(plan, int(out.ctypes.data)) for plan, out in zip(plans, outs, strict=True)])
    return outs


def planned(pcm: PcmSamples, spec: MelSpec, parts: Parts | None = None) -> tuple[SoundPlan, ClipPlan]:
    sound = sound_plan(pcm, spec.sample_rate, limits=LIMITS, max_outputs=spec.most_samples)
    return sound, clip_plan(spec, sound.outputs, parts=parts)


def on_the_cpu(pcm: PcmSamples, spec: MelSpec, parts: Parts | None = None) -> NDArray[np.float32]:
    """The CPU's route: decoded, mixed, resampled by soxr, features by numpy."""
    samples = to_rate(to_float(pcm), pcm.sample_rate, spec.sample_rate, mono=True, limits=LIMITS)[0]
    found: NDArray[np.float32] = features(samples, spec, parts=parts)[spec.features_name]
    return found


def speechlike(seconds: float, rate: int, channels: int = 2) -> NDArray[np.int16]:
    """``(channels, n)``: harmonics that glide, in bursts, over a little noise; silence at the end of each burst."""
    time = np.arange(int(seconds * rate)) / rate
    pitch = 110 + 40 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 30)) * np.clip(np.sin(2 * np.pi * 1.5 * time), 0, None)
    random = np.random.default_rng(channels)
    mixed = [0.2 * voice * (1 - 0.2 * c) + 1e-3 * random.standard_normal(len(time)) for c in range(channels)]
    return np.asarray(np.round(np.clip(mixed, -1, 1 - 2**-15) * 2**15), np.int16)
