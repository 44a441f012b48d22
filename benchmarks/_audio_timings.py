"""Questions about the audio kernels' time that a GPU answers."""

from __future__ import annotations

import contextlib
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import _audio_place as on
from benchmarks._audio_steps import WHISPER, expected, off, stored
from benchmarks._sounds import FILE_RATE, RATE, clip, stereo
from gpuflow.ops import kernels, mel_launch
from gpuflow.ops.pcm import PcmSamples
from gpuflow.presets.mel_specs import mel_spec

_FRAMES = re.compile(r"^constexpr int FRAMES = .*;$", re.M)
_FLUSH_BYTES = 256 << 20  # more than any L2
_SOUNDS = 16


def launch_times(quick: bool) -> dict[str, Any]:
    """6: microseconds of each launch by itself, by batch, samples on the device; what the bytes take at the copy's rate."""
    found: dict[str, Any] = {}
    for name in (WHISPER,) if quick else (WHISPER, "gemma3n", "parakeet", "phi4-multimodal"):
        for count in (1, 2) if quick else (1, 8, 64, 256):
            found[f"{name}, {count} clips"] = _launch_times(name, count, 0.5 if quick else 30.0)
    return found


def _launch_times(name: str, count: int, seconds: float) -> dict[str, Any]:
    waves = [clip(seconds, seed % _SOUNDS) for seed in range(count)]
    batch = on.feature_batch([on.on_device(stored(wave)) for wave in waves], mel_spec(name))
    times: dict[str, list[float]] = defaultdict(list)
    launches = on.PLACE.launches(batch.clips)
    for launch in launches:
        times[launch.name].append(on.PLACE.microseconds(functools.partial(on.PLACE.queue, launch)))
    whole = on.PLACE.microseconds(functools.partial(on.queue_all, launches))
    moved = sum(wave.nbytes for wave in waves) + sum(out.nbytes for out in batch.outs)
    by_kernel = {kernel: round(sum(each), 2) for kernel, each in times.items()}
    return {
        "microseconds": by_kernel,
        "all": whole,
        "launches": len(launches),
        "gigabytes_per_second": round(moved / whole / 1e3, 2),
    }


def frames_per_block(quick: bool) -> dict[str, Any]:
    """7: how many frames a block should take: microseconds of the mel kernel by frames and batch; whether it stays right."""
    found: dict[str, Any] = {}
    wave = clip(0.5 if quick else 30.0)
    spec = mel_spec(WHISPER)
    for frames in (4, 8) if quick else (1, 2, 4, 8, 16, 32):
        with _block_of(frames):
            (out,) = _written(wave)
            entry: dict[str, Any] = {"off": off(out, expected(wave, spec))}
            for count in (1, 2) if quick else (1, 2, 8, 64):
                batch = on.feature_batch([on.on_device(stored(wave))] * count, spec)
                mels = [launch for launch in on.PLACE.launches(batch.clips) if launch.name == "audio/mel"]
                entry[f"{count} clips"] = on.PLACE.microseconds(functools.partial(on.queue_all, mels))
            found[f"{frames} frames"] = entry
    return found


def _written(wave: Any) -> list[Any]:
    batch = on.feature_batch([on.on_device(stored(wave))], mel_spec(WHISPER))
    on.queue_all(on.PLACE.launches(batch.clips))
    return [on.as_float32(on.PLACE.host(out)) for out in batch.outs]


@contextlib.contextmanager
def _block_of(frames: int) -> Iterator[None]:
    """The mel kernel with so many frames a block, whatever shared memory that takes."""
    usual = kernels.source

    def changed(name: str) -> str:
        code, count = _FRAMES.subn(f"constexpr int FRAMES = {frames};", usual(name))
        if name == "audio/mel" and count != 1:
            raise ValueError("kernels/audio/mel.cu says FRAMES no more, or twice")
        return code

    kernels._compiled.cache_clear()
    with (
        mock.patch.object(kernels, "source", changed),
        mock.patch.object(mel_launch, "frames_per_block", return_value=frames),
    ):
        yield
    kernels._compiled.cache_clear()


def staging(quick: bool) -> dict[str, Any]:
    """8: what staging samples by cp.async could hide at most: the mel kernel with its samples in L2, and flushed from it."""
    found: dict[str, Any] = {}
    flush = on.PLACE.empty((1 << 20 if quick else _FLUSH_BYTES,), np.uint8)
    for count in (1,) if quick else (1, 8):
        waves = [clip(0.5 if quick else 30.0, seed) for seed in range(count)]
        batch = on.feature_batch([on.on_device(stored(wave)) for wave in waves], mel_spec(WHISPER))
        mels = [launch for launch in on.PLACE.launches(batch.clips) if launch.name == "audio/mel"]
        run = functools.partial(on.queue_all, mels)
        cold = [on.PLACE.microseconds(run, rounds=1) for _ in range(3 if quick else 15) if _touched(flush)]
        found[f"{count} clips"] = {"in_l2": on.PLACE.microseconds(run), "after_a_flush": sorted(cold)[len(cold) // 2]}
    return found


def _touched(array: Any) -> bool:
    array[...] = 1
    return True


def resample_times(quick: bool) -> dict[str, Any]:
    """9: microseconds of stored stereo of 16 bits to 16 kHz mono, samples on the device, by rate and batch."""
    found: dict[str, Any] = {}
    seconds = 0.2 if quick else 30.0
    for rate in (FILE_RATE,) if quick else (8_000, 24_000, FILE_RATE, 48_000):
        sound = np.round(stereo(seconds)[:, : round(seconds * rate)] * 32_767).astype(np.int16)
        pcm = on.on_device(PcmSamples.of(sound, rate))
        for count in (1,) if quick else (1, 8, 64):
            batch = on.wave_batch([pcm] * count, RATE)  # which holds what the launches write to
            launches = on.PLACE.launches(batch.clips)
            taken = on.PLACE.microseconds(functools.partial(on.queue_all, launches))
            found[f"{rate} Hz, {count} clips"] = taken
    return found
