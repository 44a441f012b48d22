"""What `audio/wave_norm` must do, small: waveforms and frames of samples, scaled, normalised by one chunk and by several,
with zeros behind them, in three types of number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel_launch import MAX_BLOCKS
from gpuflow.presets.mel import MelSpec
from tests.kernels_host.clips import Clip, Laid, chunked, tone_and_noise
from tests.parity.mel_reference import reference

_ROUNDING = {"float32": 2.0**-23, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_NORMALISED = MelSpec(
    "normalised", kind="raw", max_samples=None, pad_to="none", normalize="clip", norm_eps=1e-7, eps_in_sqrt=True
)
_FRAMES = MelSpec("frames", kind="raw", max_samples=None, pad_to="none", frame_samples=64, input_scale=0.25)


def check(run: Callable[[Launch], None]) -> None:
    """Raise ``AssertionError`` unless ``run`` does what the kernel's header says."""
    outside = replace(_NORMALISED, eps_in_sqrt=False, norm_eps=0.125, input_scale=3.0, min_samples=500)
    padded = replace(outside, pad_to="fixed", pad_samples=9_000, max_samples=9_000)
    clips = [
        Clip(tone_and_noise(9_001, offset=20.0), _NORMALISED),
        Clip(tone_and_noise(300), outside, "float16"),
        Clip(tone_and_noise(5_000), padded, "bfloat16"),
        Clip(tone_and_noise(1_000), _FRAMES, gap=5),
        Clip(tone_and_noise(4_097), _FRAMES, "float16"),
        Clip(np.full(100, 0.7, np.float32), _NORMALISED),
        Clip(np.zeros(0, np.float32), _NORMALISED),
    ]
    expect(run, clips, blocks=2)
    expect(run, clips[::-1])


def expect(run: Callable[[Launch], None], clips: list[Clip], *, blocks: int = MAX_BLOCKS) -> None:
    """Fill the statistics, run all clips side by side, compare all that they write with float64."""
    laid = Laid(clips, blocks=blocks)
    for index, clip in enumerate(clips):
        if clip.spec.normalize == "clip" and len(clip.samples):
            own = np.pad(clip.samples.astype(np.float64), (0, max(0, clip.spec.min_samples - len(clip.samples))))
            for number, chunk in enumerate(chunked(own * clip.spec.input_scale)):
                pivot = np.float32(chunk[0])
                laid.statistics(index)[0, number] = pivot, chunk.mean() - pivot, ((chunk - chunk.mean()) ** 2).sum()
    laid.run(run, "audio/wave_norm")
    for index, clip in enumerate(clips):
        if not len(clip.samples):
            continue
        found, expected = laid.features(index), reference(clip.samples, clip.spec)
        assert found.shape == expected.shape
        assert (abs(found - expected) <= _ROUNDING[clip.dtype] * abs(expected) + 5e-6).all(), clip
