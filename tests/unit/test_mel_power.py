"""Mel levels of frames: equal to float64's, and to the bit the same whichever frames are computed together."""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpuflow.ops import mel_power as module
from gpuflow.ops.mel_power import mel_power
from gpuflow.ops.mel_tables import mel_tables
from gpuflow.presets.mel import MelSpec

WHISPER = MelSpec("whisper", n_mels=128)
HTK: dict[str, Any] = {"mel_scale": "htk", "mel_norm": None}
KALDI: dict[str, Any] = {"mel_scale": "kaldi", "mel_norm": None, "triangles": "mel", "window_at": "left"}
SPECS = {
    spec.name: spec
    for spec in (
        WHISPER,
        MelSpec("centred in 512", n_fft=512, periodic=False),
        MelSpec(
            "magnitudes of 1024", n_fft=1024, win_length=512, window_at="left", power=1, frame_preemphasis=0.97, **HTK
        ),
        MelSpec("left in 512", n_fft=512, win_length=320, window_at="left", power=1, frame_extra=1, n_mels=128, **HTK),
        MelSpec("hamming", n_fft=512, window="hamming", periodic=False, frame_preemphasis=0.97, f_max=7_690.0, **KALDI),
        MelSpec("povey", n_fft=512, window="povey", remove_dc=True, frame_preemphasis=0.97, f_min=20.0, **KALDI),
        MelSpec("a mean removed", remove_dc=True, window="ones"),
        MelSpec(
            "povey in float64", n_fft=512, window="povey", remove_dc=True, frame_preemphasis=0.97, precision="float64", **KALDI
        ),
    )
}  # fmt: skip
FRAMES = 2 * module.BLOCK_FRAMES + 77  # of the signal
SIGNAL = np.random.default_rng(3).standard_normal(160 * FRAMES + 1024).astype(np.float32)
SIGNAL[20_000:50_000] *= 1e-4


def levels(spec: MelSpec, first: int, count: int, samples: NDArray[np.float32] = SIGNAL) -> NDArray[Any]:
    out = np.full((spec.n_mels, count), np.nan, spec.precision)
    mel_power(samples, spec, first=first, count=count, out=out)
    return out


def by_float64(spec: MelSpec, first: int, count: int) -> NDArray[np.float64]:
    """Written from ``MelSpec``'s docstring."""
    window, filters = mel_tables(spec)
    inset = (spec.n_fft - spec.win_length) // 2 if spec.window_at == "centre" else 0
    made = []
    for number in range(first, first + count):
        begin = number * spec.hop_length + inset
        frame = SIGNAL[begin : begin + spec.win_length].astype(np.float64)
        if spec.remove_dc:
            frame = frame - frame.mean()
        before = np.concatenate([frame[:1], frame[:-1]])
        windowed = np.zeros(spec.n_fft)
        windowed[inset : inset + spec.win_length] = (frame - spec.frame_preemphasis * before) * window
        made.append(filters.astype(np.float64) @ np.abs(np.fft.rfft(windowed)) ** spec.power)
    return np.array(made).T


@functools.cache
def _whole(spec: MelSpec) -> NDArray[Any]:
    return levels(spec, 0, FRAMES)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_levels_equal_a_float64_computation(spec: MelSpec) -> None:
    expected = by_float64(spec, 100, 200)
    off = np.abs(levels(spec, 100, 200) - expected) / expected.max(axis=0)
    assert off.max() <= (5e-7 if spec.precision == "float32" else 1e-15)


def test_the_logarithm_of_whispers_levels_is_within_its_tolerance() -> None:
    expected = np.log10(by_float64(WHISPER, 0, 500))
    assert np.abs(np.log10(levels(WHISPER, 0, 500)) - expected).max() / 4 <= 1e-4


@settings(max_examples=300, deadline=None)
@given(
    spec=st.sampled_from(list(SPECS.values())),
    first=st.integers(0, FRAMES - 1),
    count=st.integers(1, module.BLOCK_FRAMES + 300),
    cut=st.integers(0, FRAMES - 1),
    shift=st.integers(0, 17),
)
def test_a_frames_bits_do_not_depend_on_what_is_computed_with_it(
    spec: MelSpec, first: int, count: int, cut: int, shift: int
) -> None:
    count, whole = min(count, FRAMES - first), _whole(spec)
    assert np.array_equal(levels(spec, first, count), whole[:, first : first + count])
    cut = min(cut, first)  # the clip begins later, and at another address
    room = np.empty(len(SIGNAL) + 64, np.float32)
    moved = room[shift : shift + len(SIGNAL) - cut * spec.hop_length]
    moved[:] = SIGNAL[cut * spec.hop_length :]
    assert np.array_equal(levels(spec, first - cut, count, moved), whole[:, first : first + count])
    reach = (first + count - 1) * spec.hop_length + spec.n_fft
    moved[: (first - cut) * spec.hop_length] = 1e4  # so do the other frames' samples
    moved[reach - cut * spec.hop_length :] = -1e4
    assert np.array_equal(levels(spec, first - cut, count, moved), whole[:, first : first + count])


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_bits_and_torchs_threads_are_the_same_before_and_after(num_threads: int) -> None:
    expected, usual = levels(WHISPER, 0, FRAMES), torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        assert np.array_equal(levels(WHISPER, 0, FRAMES), expected)
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(usual)


def test_threads_side_by_side_compute_the_same() -> None:
    expected, found = levels(WHISPER, 0, FRAMES), {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: levels(WHISPER, 0, FRAMES)})) for name in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(each, expected) for each in found.values())


@pytest.mark.parametrize("count", [1, module.BLOCK_FRAMES - 1, module.BLOCK_FRAMES, module.BLOCK_FRAMES + 1])
def test_levels_are_written_to_any_strides_and_nowhere_else(count: int) -> None:
    expected = levels(WHISPER, 3, count)
    room = np.full((count + 2, WHISPER.n_mels + 2), np.nan, np.float32)
    mel_power(SIGNAL, WHISPER, first=3, count=count, out=room[1:-1, 1:-1].T)
    assert np.array_equal(room[1:-1, 1:-1].T, expected)
    assert np.isnan(room).sum() == room.size - expected.size


def test_samples_that_are_read_only_are_taken() -> None:
    samples = SIGNAL.copy()
    samples.setflags(write=False)
    assert np.array_equal(levels(WHISPER, 0, 5, samples), levels(WHISPER, 0, 5))


def test_no_frame_writes_nothing() -> None:
    assert levels(WHISPER, 0, 0).shape == (128, 0)


def test_a_band_without_a_bin_is_silent() -> None:
    """128 bands of HTK's scale up to 4 kHz are narrower than a bin at the bottom."""
    spec = replace(SPECS["left in 512"], f_max=4_000.0)
    empty = ~mel_tables(spec)[1].any(axis=1)
    found = levels(spec, 0, 10)
    assert empty.any()
    assert np.array_equal((found == 0).all(axis=1), empty)
