"""What `audio/mel` must do, small: every size of the FFT, every step before the logarithm, clips of every length side by
side; a range of more than 80 dB, so that a lost maximum shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel_launch import MAX_BLOCKS
from gpuflow.presets.mel import MelSpec
from tests.kernels_host.clips import Clip, Laid, linear, logs, tone_and_noise

_CENTRED = MelSpec("centred", max_samples=None, pad_to="fixed", pad_samples=3_000, n_mels=13)
_LEFT = MelSpec(
    "left", max_samples=None, pad_to="none", n_fft=512, window="povey", periodic=False, window_at="left", pad_left=0, pad_right=0,
    pad_mode="constant", drop_last=False, input_scale=8.0, remove_dc=True, frame_preemphasis=0.97, n_mels=13, mel_scale="kaldi",
    mel_norm=None, triangles="mel", f_min=20.0, log="ln", floor=1e-7, clamp="none",
)  # fmt: skip
_EXACT = replace(_LEFT, name="exact", input_scale=32_768.0, precision="float64")
_MAGNITUDES = replace(
    _LEFT, name="magnitudes", n_fft=1_024, win_length=512, window="hamming", remove_dc=False, power=1, frame_extra=1, pad_left=300,
    floor=1e-3, floor_mode="add", clamp="clip_max", max_samples=2_900,
)  # fmt: skip
_EMPHASISED = replace(
    _CENTRED, name="emphasised", n_fft=512, pad_left=256, pad_right=256, pad_mode="constant", signal_preemphasis=0.97,
    window="ones",
)  # fmt: skip


def check(run: Callable[[Launch], None]) -> None:
    """Raise ``AssertionError`` unless ``run`` does what the kernel's header says."""
    clips = [
        Clip(tone_and_noise(2_700, drop=True), _CENTRED),
        Clip(tone_and_noise(2_000, offset=0.3), _LEFT),
        Clip(tone_and_noise(1_300, offset=0.3), _EXACT),
        Clip(tone_and_noise(3_000, seed=1), _MAGNITUDES),
        Clip(tone_and_noise(2_222, seed=2), _EMPHASISED),
        Clip(tone_and_noise(3_000, seed=3), _CENTRED),
        Clip(tone_and_noise(300, seed=4), _EMPHASISED),
        Clip(np.zeros(0, np.float32), _CENTRED),
        Clip(tone_and_noise(1, seed=5), _CENTRED),
    ]
    expect(run, clips, blocks=1)
    expect(run, clips[::-1])


def expect(run: Callable[[Launch], None], clips: list[Clip], *, blocks: int = MAX_BLOCKS) -> None:
    """Run all clips side by side; levels within 1e-5 of their frame's peak, of float64 but for the rounding of their
    logarithms; maxima as the levels that were written."""
    laid = Laid(clips, blocks=blocks)
    silent = laid.maxima.copy()
    laid.run(run, "audio/mel")
    for index, clip in enumerate(clips):
        found, expected = laid.levels(index), logs(clip)
        live = found.shape[1]
        ours, theirs = linear(found, clip.spec), linear(expected[:, :live], clip.spec)
        exact = clip.spec.precision == "float64"
        allowed = (1e-14 if exact else 1e-5) * theirs.max(axis=0, initial=0) + (2e-6 if exact else 1e-6) * theirs
        assert (abs(ours - theirs) <= allowed).all(), f"{clip.spec.name} {abs(ours - theirs).max()}"
        assert (linear(expected[:, live:], clip.spec) <= clip.spec.floor * (1 + 1e-9)).all()
        loudest = found.max(initial=-np.inf).astype(np.float32).view(np.int32)
        wanted = max(silent[index], loudest if loudest >= 0 else loudest ^ np.int32(0x7FFFFFFF))
        assert laid.maxima[index] == (wanted if clip.spec.clamp == "clip_max" else silent[index])
