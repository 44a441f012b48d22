"""Audio bytes to Whisper features: gpuflow against the paths that servers use today, and the features alone.

    python -m benchmarks.bench_audio [--rounds N] [--quick] [--device cuda]

End to end starts from encoded bytes in memory and ends with (128, 3000) float32 features. The peers decode and resample
as transformers' pipelines and vLLM do (librosa, or soundfile with soxr), then call Hugging Face's extractor.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from gpuflow.config import AudioOptions
from gpuflow.demo import samples
from gpuflow.flow.sync import SyncFlow
from gpuflow.ops.mel import features
from gpuflow.presets.mel_specs import mel_spec

RATE = 16_000
OPTIONS = AudioOptions(features="whisper-128")
TOLERANCE = 5e-3  # MP3 decoders differ by 2e-6 in a sample, which the logarithm of silence amplifies


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    clips = [("MP3", 5.0)] if wanted.quick else [("MP3", 5.0), ("MP3", 30.0), ("FLAC", 11.0), ("WAV", 30.0)]
    with SyncFlow(device=wanted.device) as flow:
        rows = [_end_to_end(flow, form, seconds) for form, seconds in clips]
        rows += [_features_only(seconds) for seconds in ((5.0,) if wanted.quick else (2.0, 5.0, 11.0, 30.0))]
        measured = measure(rows, rounds=wanted.rounds)
        print(save("audio", measured, out=wanted.out, device=flow.flow.device.name, note="44.1 kHz mono; batch of one"))


def _end_to_end(flow: SyncFlow, form: str, seconds: float) -> Row:
    data = _encoded(form, seconds)

    def ours() -> Any:
        with flow.load(data, options=OPTIONS) as features:
            return features.numpy().copy()

    def librosa_then_hf() -> Any:
        import librosa

        wave, _ = librosa.load(io.BytesIO(data), sr=RATE, mono=True)
        return _extractor()(wave, sampling_rate=RATE, return_tensors="np").input_features[0]

    def soundfile_then_hf() -> Any:
        import soundfile
        import soxr

        wave, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        wave = soxr.resample(wave.mean(1), rate, RATE)
        return _extractor()(wave, sampling_rate=RATE, return_tensors="np").input_features[0]

    def torchaudio_then_hf() -> Any:
        import soundfile
        import torch

        wave, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        wave = _torchaudio_resampler(rate)(torch.from_numpy(wave.mean(1)))
        return _extractor()(wave.numpy(), sampling_rate=RATE, return_tensors="np").input_features[0]

    peers = [("librosa + HF", librosa_then_hf), ("soundfile, soxr + HF", soundfile_then_hf)]
    contenders = [Contender("gpuflow", ours), *(Contender(name, run) for name, run in peers)]
    contenders.append(Contender("soundfile, torchaudio + HF (aliases)", torchaudio_then_hf))
    return Row(f"{form} {seconds:g} s to (128, 3000)", contenders, _checker(soundfile_then_hf))


def _features_only(seconds: float) -> Row:
    wave = samples.speech(seconds=seconds * 44_100 / RATE)[: int(seconds * RATE)].copy()
    spec = mel_spec("whisper-128")

    def hugging_face() -> Any:
        return _extractor()(wave, sampling_rate=RATE, return_tensors="np").input_features[0]

    def torchaudio_mel() -> Any:
        import torch

        padded = torch.zeros(480_000)
        padded[: len(wave)] = torch.from_numpy(wave)
        power = _torchaudio_mel()(padded)[:, :-1]
        log = torch.clamp(power, min=1e-10).log10()
        return (torch.maximum(log, log.max() - 8.0).add(4.0).div(4.0)).numpy()

    def librosa_mel() -> Any:
        import librosa

        padded = np.zeros(480_000, np.float32)
        padded[: len(wave)] = wave
        power = librosa.feature.melspectrogram(
            y=padded, sr=RATE, n_fft=400, hop_length=160, n_mels=128, pad_mode="reflect"
        )[:, :-1]
        log = np.log10(np.maximum(power, 1e-10))
        return (np.maximum(log, log.max() - 8.0) + 4.0) / 4.0

    contenders = [
        Contender("gpuflow", lambda: features(wave, spec)["input_features"]),
        Contender("HF WhisperFeatureExtractor", hugging_face),
        Contender("torchaudio", torchaudio_mel),
        Contender("librosa", librosa_mel),
    ]
    return Row(f"features alone, {seconds:g} s at 16 kHz", contenders, _checker(hugging_face))


def _checker(reference: Callable[[], Any]) -> Callable[[str, Any], None]:
    wanted = reference()

    def check(name: str, result: Any) -> None:
        assert result.shape == wanted.shape == (128, 3000), name
        if "aliases" not in name:
            assert float(np.abs(result - wanted).max()) < TOLERANCE, name

    return check


def _encoded(form: str, seconds: float) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples.speech(seconds=seconds), samples.SPEECH_RATE, format=form)
    return out.getvalue()


@functools.cache
def _extractor() -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=128)


@functools.cache
def _torchaudio_resampler(rate: int) -> Any:
    import torchaudio

    return torchaudio.transforms.Resample(rate, RATE)


@functools.cache
def _torchaudio_mel() -> Any:
    import torchaudio

    return torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=400, hop_length=160, n_mels=128, norm="slaney", mel_scale="slaney", pad_mode="reflect"
    )


if __name__ == "__main__":
    main()
