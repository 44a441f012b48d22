"""Other ways from the bytes of a file to Whisper's features of 30 s, ``(128, 3000)``, on the CPU.

What is named "as vLLM does" is its ``load_audio`` and resampler written by hand, not vLLM, which cannot be installed beside
this environment's torch: libsndfile, or PyAV for what that cannot open; the mean of the channels; swresample.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._audio_peers import hf_torch
from benchmarks._resample_peers import by_swresample
from benchmarks._sounds import RATE, Form

WINDOW_SECONDS = 30
Load = Callable[[bytes], Any]


def librosa_hf(data: bytes) -> Any:
    """``librosa.load``: libsndfile, mean, soxr HQ."""
    import librosa

    wave, _ = librosa.load(io.BytesIO(data), sr=RATE, mono=True)
    return _features(wave)


def soundfile_soxr_hf(data: bytes) -> Any:
    """The same steps by hand."""
    import soxr

    wave, rate = _by_soundfile(data)
    return _features(soxr.resample(wave, rate, RATE))


def torchcodec_hf(data: bytes) -> Any:
    """As Hugging Face's ``load_audio`` where torchcodec is installed: decoder, mixer and resampler are FFmpeg's."""
    from torchcodec.decoders import AudioDecoder

    return _features(AudioDecoder(data, sample_rate=RATE, num_channels=1).get_all_samples().data[0].numpy())


def torchcodec_soxr_hf(data: bytes) -> Any:
    """torchcodec's decoder alone, then mean and soxr."""
    import soxr
    from torchcodec.decoders import AudioDecoder

    sound = AudioDecoder(data).get_all_samples()
    return _features(soxr.resample(sound.data.numpy().mean(axis=0), sound.sample_rate, RATE))


def as_vllm(data: bytes) -> Any:
    """Steps of ``vllm/multimodal/media/audio.py`` and ``vllm/multimodal/audio.py``."""
    import soundfile

    try:
        wave, rate = _by_soundfile(data)
    except soundfile.LibsndfileError:
        wave, rate = _by_pyav(data)
    return _features(by_swresample(wave, rate))


LOADS: dict[str, Load] = {
    "librosa + HF": librosa_hf,
    "soundfile, soxr + HF": soundfile_soxr_hf,
    "torchcodec + HF (louder, aliases)": torchcodec_hf,
    "torchcodec, soxr + HF": torchcodec_soxr_hf,
    "as vLLM does + HF (aliases)": as_vllm,
}
BY_SWRESAMPLE = frozenset({"torchcodec + HF (louder, aliases)", "as vLLM does + HF (aliases)"})
SOUNDFILE_ONLY = ("librosa + HF", "soundfile, soxr + HF")


def absent(form: Form) -> dict[str, str]:
    """Peers that cannot open such a file, and why."""
    return dict.fromkeys(SOUNDFILE_ONLY, "libsndfile does not read it") if form == "m4a" else {}


def _features(wave: NDArray[np.float32]) -> Any:
    return hf_torch([wave], WINDOW_SECONDS)[0]


def _by_soundfile(data: bytes) -> tuple[NDArray[np.float32], int]:
    import soundfile

    with soundfile.SoundFile(io.BytesIO(data)) as file:
        return np.mean(file.read(dtype="float32", always_2d=True).T, axis=0), file.samplerate


def _by_pyav(data: bytes) -> tuple[NDArray[np.float32], int]:
    import av

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        stream.thread_type = "AUTO"
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        return np.concatenate(frames, axis=-1).astype(np.float32).mean(axis=0), int(stream.rate or 0)
