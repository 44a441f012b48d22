"""Questions about the audio kernels that a GPU answers: whether what they write is right, wherever and with whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _audio_place as on
from benchmarks._resample_peers import alias_db
from benchmarks._sounds import RATE, clip
from gpuflow.ops.audio_gpu import FeatureClip
from gpuflow.ops.mel import features
from gpuflow.ops.mel_launch import obstacle
from gpuflow.ops.pcm import PcmSamples
from gpuflow.presets.clip_plan import clip_plan
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names

Sound = NDArray[np.float32]
WHISPER = "whisper-128"
UNTOUCHED = 0xAA
_FEW = (WHISPER, "gemma3n", "parakeet")
_BETWEEN = 3  # numbers around a result in the room that it is written in


def every_spec(quick: bool) -> dict[str, Any]:
    """1: how far the features of every built-in spec are from the CPU's, which Hugging Face's are compared with."""
    found: dict[str, Any] = {}
    for name in _FEW if quick else mel_spec_names():
        spec = mel_spec(name)
        if (reason := obstacle(spec)) is not None:
            found[name] = {"not_on_a_gpu": reason}
            continue
        found[name] = {
            kind: off(written([sound], spec)[0], expected(sound, spec)) for kind, sound in sounds(quick).items()
        }
    return found


def hard_signals(quick: bool) -> dict[str, Any]:
    """2: the same for signals that are hard to transform in float32, and for features of 16 bits."""
    spec = mel_spec(WHISPER)
    found: dict[str, Any] = {}
    for name, sound in hard(0.5 if quick else 5.0).items():
        found[name] = off(written([sound], spec)[0], expected(sound, spec))
    speech = clip(1.0 if quick else 11.0)
    for dtype in ("float16", "bfloat16"):
        found[dtype] = off(written([speech], spec, dtype)[0], expected(speech, spec))
    return found


def repeats(quick: bool) -> dict[str, Any]:
    """3: whether the bits are the same again and again, alone or in a batch of any lengths, in any order."""
    lengths = (0.3, 1.0, 0.011) if quick else (3.0, 30.0, 0.011, 11.0, 0.5, 7.7)
    found: dict[str, Any] = {}
    for name in _FEW:
        spec = mel_spec(name)
        waves = [clip(seconds, seed) for seed, seconds in enumerate(lengths) if _long_enough(spec, seconds)]
        alone = [written([wave], spec)[0] for wave in waves]
        times = 2 if quick else 50
        differing = sum(not _same(written(waves, spec), alone) for _ in range(times))
        turned = written(waves[::-1], spec)[::-1]
        found[name] = {"batches": times, "differing": differing, "same_turned_round": _same(turned, alone)}
    return found


def into_the_slab(quick: bool) -> dict[str, Any]:
    """4: whether features go to their place in a larger block and nowhere else."""
    found: dict[str, Any] = {}
    wave = clip(0.5 if quick else 7.0)
    for name in _FEW:
        for dtype in ("float32", "bfloat16"):
            found[f"{name}, {dtype}"] = _within_a_room(wave, mel_spec(name), dtype)
    return found


def _within_a_room(wave: Sound, spec: MelSpec, dtype: str) -> dict[str, bool]:
    plan = clip_plan(spec, len(wave), dtype=dtype)
    shape = plan.tensors[spec.features_name][1]
    room = on.PLACE.empty((math.prod(shape) + 2 * _BETWEEN,), on.ITEM_TYPES[dtype])
    sound = on.feature_batch([stored(wave)], spec, dtype)
    (one,) = sound.clips
    assert isinstance(one, FeatureClip)
    on.PLACE.write([FeatureClip(one.sound, plan, on.PLACE.address(room) + _BETWEEN * room.itemsize)])
    values = on.PLACE.host(room)
    inside = values[_BETWEEN:-_BETWEEN].reshape(shape)
    outside = np.ones(values.shape, bool)
    outside[_BETWEEN:-_BETWEEN] = False
    untouched = np.frombuffer(bytes([UNTOUCHED]) * values.itemsize, values.dtype)[0]
    same = np.array_equal(on.as_float32(inside), written([wave], spec, dtype)[0])
    kept = values[outside].view(np.uint8) == untouched.tobytes()[0]
    return {"same": same, "outside_untouched": bool(kept.all())}


def resampling(quick: bool) -> dict[str, Any]:
    """5: how far the resampling kernel is from soxr, and what it lets through of what 16 kHz cannot hold."""
    import soxr

    found: dict[str, Any] = {}
    for rate in (44_100, 8_000) if quick else (8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000):
        noise = (0.1 * np.random.default_rng(rate).standard_normal(rate)).astype(np.float32)
        wanted, got = soxr.resample(noise, rate, RATE, quality="HQ"), resampled(noise, rate)
        wrong = np.sum((got[8:] - wanted[8:]).astype(np.float64) ** 2)
        found[f"{rate} Hz"] = {
            "same_length": len(got) == len(wanted),
            "snr_db": round(float(10 * np.log10(np.sum(wanted[8:].astype(np.float64) ** 2) / max(wrong, 1e-30))), 1),
        }
    tones = (8_500,) if quick else (8_100, 8_200, 8_500, 10_000, 15_000)
    return found | {"alias_db": {rate: alias_db(resampled, rate, tones) for rate in (44_100, 48_000)}}


def resampled(sound: Sound, rate: int) -> Sound:
    """One channel at 16 kHz by the kernel."""
    batch = on.wave_batch([PcmSamples.of(sound[None], rate)], RATE)
    on.PLACE.write(batch.clips)
    made: Sound = on.PLACE.host(batch.outs[0])[0]
    return made


def stored(wave: Sound) -> PcmSamples:
    """A clip of 16 kHz on the host."""
    return PcmSamples.of(wave[None], RATE)


def written(waves: Sequence[Sound], spec: MelSpec, dtype: str = "float32") -> list[NDArray[np.float32]]:
    """Features of a batch by the kernels."""
    batch = on.feature_batch([stored(wave) for wave in waves], spec, dtype)
    on.PLACE.write(batch.clips)
    return [on.as_float32(on.PLACE.host(out)) for out in batch.outs]


def expected(wave: Sound, spec: MelSpec) -> NDArray[np.float32]:
    """Features by the CPU."""
    made: NDArray[np.float32] = features(wave, spec)[spec.features_name]
    return made


def off(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> dict[str, float]:
    """The largest and the mean difference."""
    if got.shape != wanted.shape:
        raise ValueError(f"features of shape {got.shape}, where the CPU's are {wanted.shape}")
    away = np.abs(got.astype(np.float64) - wanted)
    return {"max": float(f"{away.max():.3g}"), "mean": float(f"{away.mean():.3g}")}


def sounds(quick: bool) -> dict[str, Sound]:
    """Speech, noise, a tone, and noise that is hardly there."""
    count = RATE // 2 if quick else 11 * RATE
    noise = np.random.default_rng(7).standard_normal(count).astype(np.float32)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(count) / RATE)
    return {
        "speech": clip(count / RATE), "noise": 0.1 * noise, "tone": tone.astype(np.float32),
        "quiet": np.float32(1e-4) * noise,
    }  # fmt: skip


def hard(seconds: float) -> dict[str, Sound]:
    """By what is hard about them."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(8).standard_normal(len(time))
    made = {
        "a constant": np.full(len(time), 0.5),
        "a square wave": 0.5 * np.sign(np.sin(2 * np.pi * 100 * time)),
        "one impulse": np.where(np.arange(len(time)) == len(time) // 2, 1.0, 0.0),
        "80 dB quieter after a half": 0.3 * noise * np.where(time < seconds / 2, 1.0, 1e-4),
        "a sweep": 0.5 * np.sin(2 * np.pi * (4_000 / seconds) * time**2),
        "a tone of 7,999 Hz": 0.5 * np.sin(2 * np.pi * 7_999 * time),
        "silence": np.zeros(len(time)),
    }
    return {name: sound.astype(np.float32) for name, sound in made.items()}


def _long_enough(spec: MelSpec, seconds: float) -> bool:
    return spec.pad_to == "fixed" or seconds * RATE >= 2 * spec.n_fft


def _same(some: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))
