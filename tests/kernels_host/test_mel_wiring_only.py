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
from gpuflow.ops.mel_kernel import MelKernel, mel_kernel
from gpuflow.ops.mel_records import MelJob
from gpuflow.ops.tables import device_tables
from gpuflow.presets.mel_plan import mel_plan
from gpuflow.presets.mel_specs import mel_spec
from tests.kernels_host.clips import tone_and_noise
from tests.parity.mel_reference import reference

NAMES = ("qwen3-omni", "parakeet", "gemma4", "wav2vec2")


def _job(name: str, samples: NDArray[np.float32]) -> tuple[MelJob, NDArray[np.float32]]:
    spec = mel_spec(name)
    plan = mel_plan(spec, len(samples))
    out = np.zeros(plan.shape, np.float32)
    return MelJob(samples.ctypes.data, spec, plan, out.ctypes.data, out.strides), out


def test_clips_of_several_specs_are_written_in_one_sequence_wiring_only(cupy: Any) -> None:
    clips = [tone_and_noise(count) for count in (4_000, 5_000, 3_000, 2_000)]
    made = [_job(name, clip) for name, clip in zip(NAMES, clips, strict=True)]
    stream = cupy.cuda.Stream.ptds
    mel_kernel(0).write([job for job, _ in made], stream=stream)
    for name, clip, (_, out) in zip(NAMES, clips, made, strict=True):
        np.testing.assert_allclose(out, reference(clip, mel_spec(name)), rtol=0, atol=1e-3)
    assert [launch.name for launch in cupy.launched] == [
        "audio/mel", "audio/mel", "audio/mel_statistics", "audio/mel_finish", "audio/wave_norm",
    ]  # fmt: skip
    assert stream.awaited, "tables come on a stream of their own"
    assert stream.synchronized == 0, "nothing is waited for"


def test_tables_are_made_once_a_spec_wiring_only(cupy: Any) -> None:
    clip, sizes = tone_and_noise(2_000), []
    job, out = _job("qwen3-omni", clip)
    for _ in range(3):
        mel_kernel(0).write([job, job], stream=cupy.cuda.Stream.ptds)
        sizes.append(device_tables(0).nbytes)
    assert sizes == [sizes[0]] * 3
    assert 0 < sizes[0] < 20_000
    np.testing.assert_allclose(out, reference(clip, job.spec), rtol=0, atol=1e-4)


def test_threads_write_at_once_wiring_only(cupy: Any) -> None:
    clips = [tone_and_noise(1_000 + 300 * number) for number in range(4)]
    made, kernel = [_job("parakeet", clip) for clip in clips], MelKernel(0)
    threads = [
        threading.Thread(target=kernel.write, args=([job],), kwargs={"stream": cupy.cuda.Stream.ptds}) for job, _ in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for clip, (_, out) in zip(clips, made, strict=True):
        np.testing.assert_allclose(out, reference(clip, mel_spec("parakeet")), rtol=0, atol=1e-3)


def test_a_spec_without_kernels_says_why_wiring_only(cupy: Any) -> None:
    job, _ = _job("qwen3-omni", tone_and_noise(2_000))
    with pytest.raises(BackendUnavailable, match="deltas reach over 17 frames"):
        MelKernel(0).write([replace(job, spec=replace(job.spec, delta_window=19))], stream=cupy.cuda.Stream.ptds)
    assert cupy.launched == []
