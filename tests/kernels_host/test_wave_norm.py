"""Long waveforms: what their normalisation costs, and that it is right."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpuflow.ops.kernels import source
from gpuflow.presets.mel import MelSpec
from tests.kernels_host.building import HostKernel, Schedule, build_for_host
from tests.kernels_host.clips import Clip, Laid, tone_and_noise
from tests.kernels_host.conftest import Run
from tests.parity.mel_reference import reference
from tests.parity.tolerances import TOLERANCES

_NORMALISED = MelSpec(
    "normalised", kind="raw", max_samples=None, pad_to="none", normalize="clip", norm_eps=1e-7, eps_in_sqrt=True
)
_OVER_CHUNKS = re.compile(r"for \(int i = [^)]*clip\.chunks[^)]*\) \{")
_SECONDS = 16_000


@pytest.mark.parametrize(("threads", "blocks"), [(1, 3), (64, 3), (256, 2)])
def test_a_block_goes_through_a_clips_chunks_once_however_many_tiles_and_threads_it_has(
    threads: int, blocks: int, run_on_host: Run, tmp_path: Path
) -> None:
    code, loops = _OVER_CHUNKS.subn(lambda found: f"{found[0]} ++turns;", source("audio/wave_norm"))
    assert loops == 2
    built = build_for_host(
        "audio/wave_norm", f'extern "C" {{ long long turns = 0; }}\n{code}', tmp_path / "counted.so", ()
    )
    kernel, turns = HostKernel(built), ctypes.c_longlong.in_dll(ctypes.CDLL(str(built)), "turns")
    clips = [Clip(tone_and_noise(count), _NORMALISED) for count in (12 * _SECONDS, 7 * _SECONDS)]
    laid = Laid(clips, blocks=blocks)
    laid.run(run_on_host, "audio/mel_statistics")
    laid.run(lambda launch: kernel.run(launch, Schedule(block=(threads, 1))), "audio/wave_norm")
    chunks = sum(-(-len(clip.samples) // 4_096) for clip in clips)
    assert turns.value <= 2 * chunks * blocks, "once for the mean and once for the squares"
    for index, clip in enumerate(clips):
        np.testing.assert_allclose(laid.features(index), reference(clip.samples, clip.spec), rtol=0, atol=1e-5)


def test_a_long_clip_has_no_more_blocks_than_a_gpu_has_room_for() -> None:
    short, long = (Laid([Clip(np.zeros(count, np.float32), _NORMALISED)]) for count in (9_000, 600 * _SECONDS))
    assert [launch.grid for launch in short.launches] == [(3, 1), (3, 1)]
    assert [launch.grid for launch in long.launches] == [(2_344, 1), (1_024, 1)]


def test_ten_minutes_are_those_of_float64_and_as_beside_another(run_on_host: Run) -> None:
    samples = tone_and_noise(600 * _SECONDS, offset=3.0)
    clips = [Clip(samples, _NORMALISED), Clip(tone_and_noise(5_000), replace(_NORMALISED, name="another"))]
    alone, beside = Laid(clips[:1]), Laid(clips[::-1], blocks=7)
    for laid in (alone, beside):
        laid.run(run_on_host)
    exact = samples.astype(np.float64)
    expected = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)
    assert abs(alone.features(0) - expected).max() <= TOLERANCES["mel/wave"].max_abs
    np.testing.assert_array_equal(alone.features(0), beside.features(1))
