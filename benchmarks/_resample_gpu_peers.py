"""Other ways from stored 44.1 kHz stereo on the host to 16 kHz mono in a GPU's memory: each takes a batch of ``(n, 2)``
int16 and the device, and returns ``(n,)`` float32 of each clip there, done. On ``"cpu"`` they are the libraries' CPU paths."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._resample_peers import dali_pipeline, torchaudio_resampler
from benchmarks._sounds import FILE_RATE, RATE

Interleaved = Sequence[NDArray[np.int16]]
GpuResample = Callable[[Interleaved, str], Any]


def by_torchaudio(sounds: Interleaved, device: str, *, best: bool = False) -> Any:
    """One upload and one convolution for the batch, whose clips have one length."""
    import torch

    batch = torch.from_numpy(np.stack(sounds)).to(device)
    mono = batch.float().mean(dim=2).mul_(2**-15)
    return _done(torchaudio_resampler(FILE_RATE, best, device)(mono), device)


def by_cupyx(sounds: Interleaved, device: str) -> Any:
    """``cupyx.scipy.signal.resample_poly``; SciPy's on the CPU."""
    xp, resample_poly = _arrays(device)
    divisor = math.gcd(FILE_RATE, RATE)
    mono = xp.asarray(np.stack(sounds)).astype(np.float32).mean(axis=2) * np.float32(2**-15)
    made = resample_poly(mono, RATE // divisor, FILE_RATE // divisor, axis=1)
    if device != "cpu":
        xp.cuda.get_current_stream().synchronize()
    return made


def by_dali(sounds: Interleaved, device: str) -> Any:
    """DALI's ``audio_resample`` of the mean, which the host makes: it has no node for that."""
    import torch

    pipeline, feed = _pipeline(len(sounds), device)
    feed.append([sound.mean(axis=1, dtype=np.float32) * np.float32(2**-15) for sound in sounds])
    (out,) = pipeline.run()
    return _done(torch.utils.dlpack.from_dlpack(out.as_tensor()).clone(), device)


RESAMPLE_PEERS: dict[str, GpuResample] = {
    "torchaudio (aliases)": by_torchaudio,
    "torchaudio, kaiser_best": functools.partial(by_torchaudio, best=True),
    "cupyx resample_poly (aliases)": by_cupyx,
    "DALI (no filter)": by_dali,
}


def _arrays(device: str) -> tuple[Any, Any]:
    if device == "cpu":
        import scipy.signal

        return np, scipy.signal.resample_poly
    import cupy
    from cupyx.scipy.signal import resample_poly

    return cupy, resample_poly


@functools.cache
def _pipeline(count: int, device: str) -> tuple[Any, list[Any]]:
    return dali_pipeline(FILE_RATE, count, device=device)


def _done(values: Any, device: str) -> Any:
    """What was queued is done."""
    if device != "cpu":
        import torch

        torch.cuda.current_stream().synchronize()
    return values
