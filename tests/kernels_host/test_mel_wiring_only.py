"""Clips in what stands for a GPU's memory through tables, records, scratch and the kernels, which run on the host.

What is between them and a GPU is wiring only.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.errors import BackendUnavailable
from gpuflow.ops.audio_gpu import FeatureClip, SoundKernels, sound_kernels
from gpuflow.ops.pcm import PcmSamples
from gpuflow.ops.tables import device_tables
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec
from tests.kernels_host.clips import tone_and_noise
from tests.kernels_host.sound_routes import planned
from tests.parity.mel_reference import reference

NAMES = ("qwen3-omni", "parakeet", "gemma4", "wav2vec2")


def _clip(spec: MelSpec, samples: NDArray[np.float32]) -> tuple[FeatureClip, NDArray[np.float32]]:
    sound, clip = planned(PcmSamples.of(samples[None], spec.sample_rate), spec)
    out = np.zeros(clip.tensors[spec.features_name][1], np.float32)
    return FeatureClip(sound, clip, out.ctypes.data), out


def test_clips_of_several_specs_are_written_in_one_sequence_wiring_only(cupy: Any) -> None:
    clips = [tone_and_noise(count) for count in (4_000, 5_000, 3_000, 2_000)]
    made = [_clip(mel_spec(name), clip) for name, clip in zip(NAMES, clips, strict=True)]
    stream = cupy.cuda.Stream.ptds
    sound_kernels(0).write([clip for clip, _ in made], stream=stream)
    for name, clip, (_, out) in zip(NAMES, clips, made, strict=True):
        np.testing.assert_allclose(out, reference(clip, mel_spec(name)), rtol=0, atol=1e-3)
    assert [launch.name for launch in cupy.launched] == [
        "audio/mel", "audio/mel", "audio/mel_statistics", "audio/mel_finish", "audio/wave_norm",
    ]  # fmt: skip
    assert stream.awaited, "tables come on a stream of their own"
    assert stream.synchronized == 0, "nothing is waited for"


def test_tables_are_made_once_a_spec_wiring_only(cupy: Any) -> None:
    samples, sizes = tone_and_noise(2_000), []
    clip, out = _clip(mel_spec("qwen3-omni"), samples)
    for _ in range(3):
        sound_kernels(0).write([clip, clip], stream=cupy.cuda.Stream.ptds)
        sizes.append(device_tables(0).nbytes)
    assert sizes == [sizes[0]] * 3
    assert 0 < sizes[0] < 20_000
    np.testing.assert_allclose(out, reference(samples, mel_spec("qwen3-omni")), rtol=0, atol=1e-4)


def test_threads_write_at_once_wiring_only(cupy: Any) -> None:
    clips = [tone_and_noise(1_000 + 300 * number) for number in range(4)]
    made, kernels = [_clip(mel_spec("parakeet"), clip) for clip in clips], SoundKernels(0)
    threads = [
        threading.Thread(target=kernels.write, args=([clip],), kwargs={"stream": cupy.cuda.Stream.ptds})
        for clip, _ in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for clip, (_, out) in zip(clips, made, strict=True):
        np.testing.assert_allclose(out, reference(clip, mel_spec("parakeet")), rtol=0, atol=1e-3)


def test_a_spec_without_kernels_says_why_wiring_only(cupy: Any) -> None:
    clip, _ = _clip(replace(mel_spec("qwen3-omni"), delta_window=19), tone_and_noise(2_000))
    with pytest.raises(BackendUnavailable, match="deltas reach over 17 frames"):
        SoundKernels(0).write([clip], stream=cupy.cuda.Stream.ptds)
    assert cupy.launched == []
