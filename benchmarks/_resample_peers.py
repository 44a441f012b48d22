"""Other ways from one channel at any rate to 16 kHz on the CPU: ``(n,)`` float32 and the rate in, ``(m,)`` out.

``alias_db`` says what each lets through of tones that 16 kHz cannot hold: soxr HQ -140 dB, most others far more.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._sounds import RATE

Sound = NDArray[np.float32]
Resample = Callable[[Sound, int], Any]
_TONES_HZ = (8_100, 8_500, 10_000)
_EDGE = 400  # samples at each end that the filters' begin and end disturb
_DALI_QUALITY = 50.0
_kept = threading.local()


def by_soxr(sound: Sound, rate: int) -> Any:
    """soxr HQ, librosa's default."""
    import soxr

    return soxr.resample(sound, rate, RATE, quality="HQ")


def by_torchaudio(sound: Sound, rate: int, *, best: bool = False) -> Any:
    """torchaudio's default, or its imitation of librosa's ``kaiser_best``."""
    import torch

    return torchaudio_resampler(rate, best)(torch.from_numpy(sound)).numpy()


def by_swresample(sound: Sound, rate: int) -> Any:
    """FFmpeg's, through PyAV; one channel, so that it mixes nothing."""
    import av

    frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
    made = [part.to_ndarray()[0] for given in (frame, None) for part in resampler.resample(given)]
    return np.concatenate(made)


def by_scipy(sound: Sound, rate: int) -> Any:
    """``scipy.signal.resample_poly``."""
    import scipy.signal

    divisor = math.gcd(rate, RATE)
    return scipy.signal.resample_poly(sound, RATE // divisor, rate // divisor).astype(np.float32)


def by_dali(sound: Sound, rate: int) -> Any:
    """DALI's ``audio_resample``, which has no filter against aliases."""
    if not hasattr(_kept, "pipelines"):
        _kept.pipelines = {}
    if rate not in _kept.pipelines:
        _kept.pipelines[rate] = dali_pipeline(rate, 1, device="cpu")
    pipeline, feed = _kept.pipelines[rate]
    feed.append([sound])
    (out,) = pipeline.run()
    return np.array(out.at(0))


RESAMPLERS: dict[str, Resample] = {
    "soxr HQ by hand": by_soxr,
    "torchaudio": by_torchaudio,
    "torchaudio, kaiser_best": functools.partial(by_torchaudio, best=True),
    "swresample": by_swresample,
    "scipy resample_poly": by_scipy,
    "DALI CPU": by_dali,
}


@functools.cache
def torchaudio_resampler(rate: int, best: bool, device: str = "cpu") -> Any:
    """Its kernel, made once. Source of the second's settings: torchaudio's tutorial on resampling."""
    import torchaudio

    kaiser = {"lowpass_filter_width": 64, "rolloff": 0.9475937167399596, "beta": 14.769656459379492}
    chosen: dict[str, Any] = {"resampling_method": "sinc_interp_kaiser", **kaiser} if best else {}
    return torchaudio.transforms.Resample(rate, RATE, **chosen).to(device)


def dali_pipeline(rate: int, count: int, *, device: str) -> tuple[Any, list[Any]]:
    """A pipeline of so many clips, and the list that it takes its next batch from."""
    from nvidia.dali import Pipeline, fn, types

    feed: list[Any] = []

    def following() -> Any:
        return feed.pop()

    pipeline = Pipeline(
        batch_size=count, num_threads=1, device_id=None if device == "cpu" else 0,
        exec_async=False, exec_pipelined=False, prefetch_queue_depth=1,
    )  # fmt: skip
    with pipeline:
        sound = fn.external_source(source=following, dtype=types.FLOAT, ndim=1)
        sound = sound if device == "cpu" else sound.gpu()
        pipeline.set_outputs(fn.audio_resample(sound, in_rate=rate, out_rate=RATE, quality=_DALI_QUALITY))
    pipeline.build()
    return pipeline, feed


def alias_db(resample: Resample, rate: int, tones_hz: tuple[int, ...] = _TONES_HZ) -> dict[str, float]:
    """Level of what is left of tones above 8 kHz, against the tone; a sound level of 1 kHz is checked first.

    Raises:
        ValueError: a tone of 1 kHz does not come out as loud as it went in.
    """
    if abs(_level_db(resample, rate, 1_000)) > 0.1:
        raise ValueError(f"a tone of 1 kHz comes out {_level_db(resample, rate, 1_000):.2f} dB louder")
    return {f"{hz} Hz": round(_level_db(resample, rate, hz), 1) for hz in tones_hz}


def _level_db(resample: Resample, rate: int, hz: int) -> float:
    tone = (0.5 * np.sin(2 * np.pi * hz * np.arange(rate) / rate)).astype(np.float32)
    left = np.asarray(resample(tone, rate))[_EDGE:-_EDGE].astype(np.float64)
    return 10 * math.log10(max(1e-20, float(np.mean(left**2)) / 0.125))
