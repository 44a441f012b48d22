"""What `audio/mel_finish` must do, small: clamps, bins, statistics of several chunks, deltas, stacks, parts, both layouts,
three types of number, frames of padding and of zeros, rows with gaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel_launch import MAX_BLOCKS
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import mel_plan
from tests.kernels_host.clips import Clip, Laid, chunked

_MAXIMUM = -1.25
_ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_PLAIN = MelSpec("plain", pad_to="fixed", pad_samples=16_000, n_mels=37, clamp_range=2.0)
_FIXED = replace(_PLAIN, name="fixed", clamp="fixed", fixed_max=-4.0, layout="TM", frame_multiple=7)
_DELTAS = replace(_PLAIN, name="deltas", delta_window=5, stack=2, layout="TM", max_samples=None, pad_to="none")
_FAR = replace(_DELTAS, name="far", delta_window=17, n_mels=5, layout="MT", stack=1)
_PARTS = replace(_PLAIN, name="parts", split="after_mel", split_frames=25, max_splits=2, pad_to="multiple", pad_samples=4_000)
_BANDS = MelSpec(
    "bands", max_samples=None, pad_to="none", n_fft=32, win_length=32, hop_length=1, pad_left=16, pad_right=16, n_mels=40,
    log="ln", floor=2.0**-24, clamp="none", scale=1.0, offset=0.0, normalize="feature", norm_eps=1e-5, layout="TM",
    bin_mean=tuple(np.linspace(-9.0, -6.0, 40).tolist()), bin_std=tuple(np.linspace(1.0, 3.0, 40).tolist()),
)  # fmt: skip
_INSIDE = replace(_BANDS, name="inside", norm_eps=0.5, eps_in_sqrt=True, valid="win", zero_invalid=True, layout="MT", bin_mean=())
_ODD = replace(_BANDS, name="odd", frame_multiple=2, stack=2, pad_to="multiple", pad_samples=90, drop_last=False)


def check(run: Callable[[Launch], None]) -> None:
    """Raise ``AssertionError`` unless ``run`` does what the kernel's header says."""
    clips = [
        Clip(_sized(9_000), _PLAIN),
        Clip(_sized(5_000), _FIXED, "bfloat16", gap=3),
        Clip(_sized(7_000), _DELTAS),
        Clip(_sized(70), _BANDS),
        Clip(_sized(2_000), _FAR, "float16", gap=1),
        Clip(_sized(4_200), replace(_INSIDE, n_mels=3, bin_std=()), "float16"),
        Clip(_sized(9_000), _PARTS, "float32", gap=2),
        Clip(_sized(90), _INSIDE),
        Clip(_sized(0), _PLAIN),
        Clip(_sized(80), _ODD, "bfloat16"),
    ]
    expect(run, clips, blocks=2)
    expect(run, clips[::-1])


def expect(run: Callable[[Launch], None], clips: list[Clip], *, blocks: int = MAX_BLOCKS) -> None:
    """Fill levels, maxima and statistics, run all clips side by side, compare all that they write with float64."""
    laid = Laid(clips, blocks=blocks)
    random = np.random.default_rng(7)
    laid.maxima[...] = np.float32(_MAXIMUM).view(np.int32) ^ 0x7FFFFFFF
    expected = []
    for index, clip in enumerate(clips):
        levels = laid.levels(index)
        levels[...] = -3.0 + random.normal(size=levels.shape)
        values = _values(levels.astype(np.float64), clip)
        if clip.spec.normalize == "feature":
            for band, row in enumerate(values[:, : mel_plan(replace(clip.spec, stack=1), len(clip.samples)).valid]):
                for number, chunk in enumerate(chunked(row)):
                    pivot = np.float32(chunk[0])
                    squares = ((chunk - chunk.mean()) ** 2).sum()
                    laid.statistics(index)[band, number] = pivot, chunk.mean() - pivot, squares
        expected.append(_finished(values, clip))
    laid.run(run, "audio/mel_finish")
    for index, clip in enumerate(clips):
        allowed = _ROUNDING[clip.dtype] * abs(expected[index]) + 4e-6
        assert laid.features(index).shape == expected[index].shape
        assert (abs(laid.features(index) - expected[index]) <= allowed).all(), clip


def _values(levels: NDArray[np.float64], clip: Clip) -> NDArray[np.float64]:
    """``(n_mels, framed)``: raised, scaled, by the bins."""
    spec, plan = clip.spec, mel_plan(clip.spec, len(clip.samples))
    floor = np.log(spec.floor) if spec.log == "ln" else np.log10(spec.floor)
    levels = np.pad(levels, ((0, 0), (0, plan.framed - plan.live)), constant_values=floor)
    if spec.clamp != "none":
        levels = np.maximum(levels, (_MAXIMUM if spec.clamp == "clip_max" else spec.fixed_max) - spec.clamp_range)
    levels = levels * spec.scale + spec.offset
    mean, deviation = spec.bin_mean or (0.0,) * spec.n_mels, spec.bin_std or (1.0,) * spec.n_mels
    return np.asarray((levels - np.array(mean)[:, None]) / np.array(deviation)[:, None])


def _finished(values: NDArray[np.float64], clip: Clip) -> NDArray[np.float64]:
    spec, plan = clip.spec, mel_plan(clip.spec, len(clip.samples))
    valid = mel_plan(replace(spec, stack=1), len(clip.samples)).valid
    if spec.normalize == "feature":
        sound = values[:, :valid]
        deviation = sound.std(axis=1, ddof=1, keepdims=True)
        by = np.sqrt(deviation**2 + spec.norm_eps) if spec.eps_in_sqrt else deviation + spec.norm_eps
        values = (values - sound.mean(axis=1, keepdims=True)) / by
    if spec.delta_window:
        values = np.concatenate([values, _deltas(values, (spec.delta_window - 1) // 2)])
    if spec.zero_invalid:
        values[:, valid:] = 0
    values = np.pad(values, ((0, 0), (0, plan.frames - plan.framed)))
    rows = plan.frames // spec.stack
    made = values[:, : rows * spec.stack].T.reshape(rows, -1)
    if spec.split == "after_mel":
        parts = min(rows // spec.split_frames, spec.max_splits or rows)
        cut = made[: parts * spec.split_frames].reshape(parts, spec.split_frames, -1)
        return cut if spec.layout == "TM" else cut.swapaxes(1, 2)
    return made if spec.layout == "TM" else made.T


def _deltas(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    count = values.shape[1]
    at: Any = lambda off: values[:, np.clip(np.arange(count) + off, 0, count - 1)]  # noqa: E731
    return np.asarray(sum(n * (at(n) - at(-n)) for n in range(1, half + 1)) / (2 * sum(n * n for n in range(1, half + 1))))


def _sized(count: int) -> NDArray[np.float32]:
    """Only their number matters here."""
    return np.zeros(count, np.float32)
