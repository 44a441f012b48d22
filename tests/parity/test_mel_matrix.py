"""Every built-in mel spec on every clip: features, masks and counts equal Hugging Face's, and a float64 computation."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpuflow.errors import NoSuchStream
from gpuflow.ops.mel import features, planned
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec
from tests.parity.audio_extractors import CALLS, Tensors, hugging_face
from tests.parity.mel_reference import reference
from tests.parity.mel_signals import SIGNALS, Signal, tone
from tests.parity.tolerances import TOLERANCES

Array = NDArray[Any]
_ALIKE = (
    "speech",
    "noise",
    "tone",
    "quiet",
    "one sample",
    "longer",
)  # of specs that differ from another in parts alone
_PERIODIC = ("seamless-m4t", "tone")  # whose frames repeat: a band's deviation is 0 but for rounding
_FEWER = {
    "qwen2.5-omni": _ALIKE[:5],  # Hugging Face's own takes 0.2 s a clip
    "music-flamingo": _ALIKE,
    "wav2vec2-masked": _ALIKE[:4],
    **dict.fromkeys(("qwen2-audio", "audio-flamingo-3", "glm-asr", "parakeet-128", "granite-speech"), _ALIKE),
}
MATRIX = [(spec, clip) for spec in CALLS for clip in _FEWER.get(spec, SIGNALS)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """A team of threads takes ten times as long on a busy machine."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@functools.lru_cache(maxsize=4)
def _signal(clip: str) -> Signal:
    return SIGNALS[clip]()


def _of_hugging_face(name: str, signal: Signal) -> Tensors | None:
    """``None`` where the extractor raises, gives no frame, or divides by none."""
    try:
        made = hugging_face(name, signal)
    except (RuntimeError, ValueError):
        return None
    values = made[mel_spec(name).features_name]
    return made if values.size and np.isfinite(values).all() else None


def _linear(values: Array, base: Array, spec: MelSpec) -> Array:
    """Levels as they are before logarithm and normalisation; ``base``: the exact ones, before normalisation."""
    rows = values.reshape(-1, spec.n_mels)[: len(base)].astype(np.float64)
    if spec.normalize == "feature":
        deviation = base.std(axis=0, ddof=1)
        by = np.sqrt(deviation**2 + spec.norm_eps) if spec.eps_in_sqrt else deviation + spec.norm_eps
        rows = rows * by + base.mean(axis=0)
    return np.exp(rows) - (spec.floor if spec.floor_mode == "add" else 0)


def _bases(signal: Signal, spec: MelSpec, exact: Array) -> list[Array]:
    """The exact levels of the valid frames of each part, ``(frames, n_mels)``, before normalisation."""
    plain = replace(spec, normalize="none", stack=1, frame_multiple=1)
    whole, clip = exact if plain == spec else reference(signal, plain), planned(signal, plain)
    parts = whole if clip.in_parts else whole[None]
    return [part[:valid] for part, valid in zip(parts, clip.valid_lengths, strict=True)]


def _key(spec: MelSpec, clip: str) -> str | None:
    """Of the tolerance of features themselves; ``None`` where levels are compared instead."""
    if spec.kind == "raw" or spec.clamp != "none":
        return "mel/clamped"
    if spec.precision == "float32":
        return None
    return "mel/float64-periodic" if (spec.name, clip) == _PERIODIC else f"mel/{spec.name}"


def _check(values: Array, expected: Array, bases: list[Array], spec: MelSpec, key: str) -> None:
    """Of float32 without a clamp: they differ by a part of each frame's loudest level, because the logarithm of what lies
    100 dB under it is that of rounding."""
    pairs = (values, expected) if spec.split != "none" else (values[None], expected[None])
    for got, wanted, base in zip(*pairs, bases, strict=True):
        exact = np.exp(base) - (spec.floor if spec.floor_mode == "add" else 0)
        loudest = exact.max(axis=1, keepdims=True, initial=0) + spec.floor
        off = np.abs(_linear(got, base, spec) - _linear(wanted, base, spec)) / loudest
        kind = "normalised" if spec.normalize == "feature" else "unclamped"
        assert off.max(initial=0) <= TOLERANCES[f"mel/{kind}{key}"].max_abs
        behind = len(base) * spec.n_mels
        assert np.abs(got.reshape(-1)[behind:] - wanted.reshape(-1)[behind:]).max(initial=0) <= 1e-6


@pytest.mark.parametrize(("name", "clip"), MATRIX)
def test_a_clip_gives_what_hugging_face_and_a_float64_computation_give(name: str, clip: str) -> None:
    spec, signal = mel_spec(name), _signal(clip)
    expected = _of_hugging_face(name, signal)
    if expected is None:
        with pytest.raises(NoSuchStream, match="too short for a frame"):
            features(signal, spec)
        return
    made = features(signal, spec)
    assert {key: (value.shape, value.dtype) for key, value in made.items()} == {
        key: (value.shape, value.dtype) for key, value in expected.items()
    }
    for key in made.keys() - {spec.features_name}:
        assert np.array_equal(made[key], expected[key]), key
    exact = reference(signal, spec)
    values, theirs = made[spec.features_name], expected[spec.features_name]
    assert values.shape == exact.shape
    if (of_theirs := _key(spec, clip)) is None:
        bases = _bases(signal, spec, exact)
        _check(values, theirs, bases, spec, "")
        offset = spec.f_min > 0 and clip == "speech with an offset"
        _check(values, exact, bases, spec, "-float64-offset" if offset else "-float64")
        return
    of_exact = "mel/float64" if spec.precision == "float64" else "mel/clamped-float64"
    assert np.abs(values - theirs).max() <= TOLERANCES[of_theirs].max_abs
    assert np.abs(values - exact).max() <= TOLERANCES[of_exact].max_abs


@pytest.mark.parametrize("name", ["whisper-80", "whisper-128", "granite-speech", "granite-speech5"])
def test_a_tone_at_the_edge_of_the_band_equals_hugging_face(name: str) -> None:
    signal = tone(7_999.0, 1.0)
    made, expected = features(signal, mel_spec(name)), hugging_face(name, signal)
    assert np.abs(made["input_features"] - expected["input_features"]).max() <= TOLERANCES["mel/clamped"].max_abs


@pytest.mark.parametrize("count", [16_000, 50_000])
@pytest.mark.parametrize("name", [name for name in CALLS if mel_spec(name).normalize == "none"])
def test_digital_silence_is_to_the_bit_what_hugging_face_has(name: str, count: int) -> None:
    """And the frames of padding behind it, where there are any."""
    signal, key = np.zeros(count, np.float32), mel_spec(name).features_name
    assert np.array_equal(features(signal, mel_spec(name))[key], hugging_face(name, signal)[key])


@pytest.mark.parametrize("name", ["whisper-80", "qwen2-audio", "audio-flamingo-3"])
def test_padding_behind_a_quiet_clip_is_to_the_bit_what_hugging_face_has(name: str) -> None:
    """Nothing is raised there: it is the floor's logarithm."""
    signal = _signal("quiet")
    made, theirs = features(signal, mel_spec(name))["input_features"], hugging_face(name, signal)["input_features"]
    assert np.array_equal(made[..., 202:], theirs[..., 202:])
    assert np.unique(made[..., 202:]).tolist() == [-1.5]
