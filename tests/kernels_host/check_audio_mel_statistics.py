"""What `audio/mel_statistics` must do, small: mean and squared deviations of bands and of waveforms, of one chunk and of
several, of levels that are nearly equal, and of frames of padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel_launch import MAX_BLOCKS
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import mel_plan
from tests.kernels_host.clips import Clip, Laid, chunked, tone_and_noise

_BANDS = MelSpec(
    "bands", max_samples=None, pad_to="none", n_fft=32, win_length=32, hop_length=1, pad_left=16, pad_right=16, n_mels=5,
    log="ln", floor=2.0**-24, clamp="none", scale=0.5, offset=-3.0, normalize="feature", norm_eps=1e-5, layout="TM",
)  # fmt: skip
_CLAMPED = replace(_BANDS, name="clamped", clamp="clip_max", clamp_range=2.0, bin_mean=(1.0, 2.0, 3.0, 4.0, 5.0))
_PADDED = replace(_BANDS, name="padded", pad_to="multiple", pad_samples=700, min_samples=600)
_WAVE = MelSpec(
    "wave", kind="raw", max_samples=None, pad_to="none", input_scale=0.5, normalize="clip", norm_eps=1e-7, min_samples=50
)


def check(run: Callable[[Launch], None]) -> None:
    """Raise ``AssertionError`` unless ``run`` does what the kernel's header says."""
    clips = [
        Clip(tone_and_noise(4_500), _BANDS),
        Clip(tone_and_noise(200), _CLAMPED),
        Clip(tone_and_noise(4_500, offset=30.0), _WAVE),
        Clip(tone_and_noise(310), _PADDED),
        Clip(tone_and_noise(40), _WAVE),
        Clip(tone_and_noise(17), _BANDS),
    ]
    expect(run, clips, blocks=2)
    expect(run, clips[::-1])


def expect(run: Callable[[Launch], None], clips: list[Clip], *, blocks: int = MAX_BLOCKS) -> None:
    """Fill the levels, run all clips side by side, compare each chunk with float64."""
    laid = Laid(clips, blocks=blocks)
    random = np.random.default_rng(len(clips))
    for index, clip in enumerate(clips):
        if clip.spec.kind == "mel":
            levels = laid.levels(index)
            levels[...] = -5.0 + random.normal(size=levels.shape)
            levels[0] = -5.0 + 1e-6 * random.normal(size=levels.shape[1])
            levels[1] = -4.1
    laid.maxima[...] = np.float32(-3.5).view(np.int32) ^ 0x7FFFFFFF
    laid.run(run, "audio/mel_statistics")
    for index, clip in enumerate(clips):
        found, values = laid.statistics(index).astype(np.float64), _values(laid, index, clip)
        assert found.shape == (len(values), -(-values.shape[1] // 4_096), 3)
        for band, row in zip(found, values, strict=True):
            for (pivot, mean, squares), chunk in zip(band, chunked(row), strict=True):
                spread = abs(chunk - chunk.mean()).max()
                np.testing.assert_allclose(pivot, chunk[0], rtol=1e-6)
                np.testing.assert_allclose(pivot + mean, chunk.mean(), rtol=0, atol=2e-6 * spread + 1e-6)
                np.testing.assert_allclose(squares, ((chunk - chunk.mean()) ** 2).sum(), rtol=2e-4, atol=1e-9)
        if clip.spec in (_BANDS, _CLAMPED):
            assert (found[1, :, 1:] == 0).all(), "equal levels have a deviation of exactly 0"


def _values(laid: Laid, index: int, clip: Clip) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """What the statistics are taken over."""
    spec, samples = clip.spec, clip.samples.astype(np.float64)
    if spec.kind == "raw":
        return np.pad(samples * spec.input_scale, (0, max(0, spec.min_samples - len(samples))))[None]
    levels = laid.levels(index).astype(np.float64)
    plan = mel_plan(spec, len(samples))
    levels = np.pad(levels, ((0, 0), (0, plan.framed - plan.live)), constant_values=np.log(spec.floor))[:, : plan.valid]
    if spec.clamp == "clip_max":
        levels = np.maximum(levels, -3.5 - spec.clamp_range)
    levels = levels * spec.scale + spec.offset
    return levels - np.array(spec.bin_mean or (0.0,) * spec.n_mels)[:, None]
