"""Log-mel features of one clip. One algorithm: numpy runs it on the CPU, CuPy on a GPU.

Frames that touch nothing but padding are filled, not computed: their power is 0, so the result is the same.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.mel_power import mel_power
from gpuflow.ops.mel_tables import mel_tables
from gpuflow.presets.mel import MelSpec


def log_mel(samples: Any, spec: MelSpec, *, xp: Any, out: Any = None) -> tuple[Any, int]:
    """Features of one clip as of a batch of one, and how many of its frames hold sound.

    Args:
        samples: ``(n,)`` float32 at ``spec.sample_rate``, of ``xp``; what lies beyond ``spec.max_seconds`` is cut off.
        xp: ``numpy`` or ``cupy``; on a GPU the work is queued on the current stream.
        out: ``(n_mels, num_frames)`` float32 to write to; a new array without it.

    Returns:
        ``(n_mels, num_frames)`` float32 and ``ceil(n / hop_length)``, at most ``num_frames``.

    Source: ``WhisperFeatureExtractor``; equal to it within 1e-4 (tests/parity/tolerances.py).
    """
    samples = samples[: spec.pad_samples]
    features = xp.empty((spec.n_mels, spec.num_frames), np.float32) if out is None else out
    live = live_frames(len(samples), spec)
    sound = features[:, :live]
    padded = _padded(samples, live, spec, xp)
    if xp is np:
        mel_power(padded, spec, first=0, count=live, out=sound)
    else:
        _mel_power(padded, spec, xp, sound)
    xp.log10(xp.maximum(sound, np.float32(spec.floor)), out=sound)
    silence = np.float32(math.log10(spec.floor))
    loudest = sound.max() if live else silence  # 0-d on a GPU: nothing waits for it
    least = loudest - np.float32(spec.clamp_range)
    xp.maximum(sound, least, out=sound)
    sound *= np.float32(spec.scale)
    sound += np.float32(spec.offset)
    features[:, live:] = xp.maximum(xp.asarray(silence), least) * np.float32(spec.scale) + np.float32(spec.offset)
    return features, min(-(-len(samples) // spec.hop_length), spec.num_frames)


def live_frames(num_samples: int, spec: MelSpec) -> int:
    """Frames that touch a sample of the clip. Reflection at the end reads within a frame, so it wakes no further one."""
    if num_samples == 0:
        return 0
    return min(spec.num_frames, (num_samples + spec.pad_left - 1) // spec.hop_length + 1)


def place_log_mel(samples: NDArray[np.float32], spec: MelSpec, lease: Lease, tensor: TensorSpec) -> int:
    """``log_mel`` of host samples into a block, on the block's device; returns the valid length."""
    out: Any = lease.array(tensor)
    if lease.device == "cpu":
        return log_mel(samples, spec, xp=np, out=out)[1]
    import cupy

    with out.device, cupy.cuda.Stream.ptds as stream:
        uploaded = cupy.empty(samples.shape, np.float32)
        uploaded.set(np.ascontiguousarray(samples), stream=stream)
        valid_length = log_mel(uploaded, spec, xp=cupy, out=out)[1]
        lease.record_stream(stream)
    return valid_length


def _padded(samples: Any, live: int, spec: MelSpec, xp: Any) -> Any:
    """The padded, reflected clip, as far as the live frames reach."""
    reach = max((live - 1) * spec.hop_length + spec.n_fft, 2 * spec.pad_left + 1)
    padded = xp.zeros(reach, np.float32)
    count = min(len(samples), reach - spec.pad_left)
    padded[spec.pad_left : spec.pad_left + count] = samples[:count]
    padded[: spec.pad_left] = padded[2 * spec.pad_left : spec.pad_left : -1]
    end = spec.pad_left + spec.pad_samples
    if reach > end:
        padded[end:] = padded[end - 2 : end - 2 - (reach - end) : -1]
    return padded


def _mel_power(padded: Any, spec: MelSpec, xp: Any, out: Any) -> None:
    """Write mel-filtered squared spectra of the frames to ``out``, ``(n_mels, frames)``."""
    window, filters = _device_tables(spec, xp.cuda.Device().id)
    step = padded.strides[0]
    shape, strides = (out.shape[1], spec.n_fft), (spec.hop_length * step, step)
    spectrum = xp.fft.rfft(xp.lib.stride_tricks.as_strided(padded, shape, strides) * window)
    out[...] = filters @ (xp.square(spectrum.real) + xp.square(spectrum.imag)).T


@functools.lru_cache(maxsize=16)
def _device_tables(spec: MelSpec, device: int) -> tuple[Any, Any]:
    import cupy

    with cupy.cuda.Device(device):
        window, filters = (cupy.asarray(table) for table in mel_tables(spec))
        cupy.cuda.get_current_stream().synchronize()  # other threads' streams use them too
    return window, filters
