"""Samplers against the video processors of transformers that are installed here: their own ``sample_frames``."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.errors import InvalidOptions
from gpuflow.samplers import SAMPLERS, ClipFacts, Wish, sampler_named
from gpuflow.samplers.spacing import arange_float32, linspace, rounded, truncated

RATES = st.sampled_from(
    [1.0, 8.0, 10.0, 12.5, 15.0, 23.976, 24000 / 1001, 24.0, 25.0, 29.97, 30000 / 1001, 30.0, 59.94, 60.0]
)
TOTALS = st.one_of(st.integers(1, 80), st.integers(1, 3_000), st.integers(1, 40_000))
WISHED_FPS = st.one_of(st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0]), st.floats(0.05, 12.0))


@functools.cache
def processor(name: str) -> Any:
    import transformers

    return getattr(transformers, name)()


def answer(name: str, total: int, rate: float, seconds: float, **wish: Any) -> list[int] | None:
    """The processor's own choice, within the clip; ``None`` where it fails."""
    from transformers.video_utils import VideoMetadata

    facts = VideoMetadata(total_num_frames=total, fps=rate, duration=seconds)
    try:
        indices = processor(name).sample_frames(metadata=facts, **wish)
    except (ValueError, ZeroDivisionError, RuntimeError):
        return None
    return [min(int(index), total - 1) for index in indices] or None


def ours(name: str, total: int, rate: float, seconds: float, wish: Wish) -> list[int] | None:
    try:
        return sampler_named(name).choose(ClipFacts(total, rate, seconds, (0.0,)), wish)
    except InvalidOptions:
        return None


BY_RATE = {
    "hf": "LlavaOnevisionVideoProcessor",
    "hf-qwen2-vl": "Qwen2VLVideoProcessor",
    "hf-qwen3-vl": "Qwen3VLVideoProcessor",
    "hf-glm4v": "Glm4vVideoProcessor",
    "hf-glm5-next": "Glm5NextVideoProcessor",
    "hf-glmga": "GlmgaVideoProcessor",
    "hf-internvl": "InternVLVideoProcessor",
    "hf-video-llama-3": "VideoLlama3VideoProcessor",
}
BY_NUMBER = ("hf", "hf-qwen2-vl", "hf-qwen3-vl", "hf-internvl", "hf-video-llama-3")


@pytest.mark.parametrize("name", BY_RATE)
@settings(max_examples=60, deadline=None)
@given(total=TOTALS, rate=RATES, fps=WISHED_FPS)
def test_a_rate_gives_the_processors_own_frames(name: str, total: int, rate: float, fps: float) -> None:
    expected = answer(BY_RATE[name], total, rate, total / rate, fps=fps)
    assert ours(name, total, rate, total / rate, Wish(fps=fps)) == expected


@pytest.mark.parametrize("name", BY_NUMBER)
@settings(max_examples=50, deadline=None)
@given(total=TOTALS, rate=RATES, count=st.integers(1, 200))
def test_a_number_gives_the_processors_own_frames(name: str, total: int, rate: float, count: int) -> None:
    expected = answer(BY_RATE[name], total, rate, total / rate, num_frames=count)
    assert ours(name, total, rate, total / rate, Wish(num_frames=count)) == expected


@pytest.mark.parametrize("name", ["hf-glm4v", "hf-glm46v", "hf-glm5-next", "hf-glmga", "hf-qwen3-vl"])
@settings(max_examples=50, deadline=None)
@given(total=TOTALS, rate=RATES, off=st.floats(-0.5, 0.5))
def test_processors_that_sample_by_themselves_are_met_without_a_wish(
    name: str, total: int, rate: float, off: float
) -> None:
    seconds = max(0.01, total / rate + off)
    kind = (BY_RATE | {"hf-glm46v": "Glm46VVideoProcessor"})[name]
    assert ours(name, total, rate, seconds, Wish()) == answer(kind, total, rate, seconds)


@settings(max_examples=60, deadline=None)
@given(total=TOTALS, rate=RATES, fps=st.sampled_from([0.5, 1.0, 2.0]), most=st.integers(1, 128))
def test_smolvlm_leaves_out_the_ends_of_long_clips(total: int, rate: float, fps: float, most: int) -> None:
    expected = answer("SmolVLMVideoProcessor", total, rate, total / rate, fps=fps, num_frames=most)
    assert ours("hf-smolvlm", total, rate, total / rate, Wish(fps=fps, max_frames=most)) == expected


@settings(max_examples=50, deadline=None)
@given(total=TOTALS, rate=RATES, fps=WISHED_FPS, most=st.integers(2, 128))
def test_a_cap_on_the_rate_is_the_processors_max_frames(total: int, rate: float, fps: float, most: int) -> None:
    wish = Wish(fps=fps, max_frames=most)
    for name, kind in (("hf-qwen2-vl", "Qwen2VLVideoProcessor"), ("hf-video-llama-3", "VideoLlama3VideoProcessor")):
        expected = answer(kind, total, rate, total / rate, fps=fps, max_frames=most)
        assert ours(name, total, rate, total / rate, wish) == expected


@settings(max_examples=150, deadline=None)
@given(total=st.integers(1, 200_000), count=st.integers(1, 2_000), shift=st.floats(0, 50))
def test_float32_ranges_are_torchs(total: int, count: int, shift: float) -> None:
    step = total / count
    for start in (0.0, min(shift, total - 0.5)):
        assert arange_float32(start, total, step) == torch.arange(start, total, step).int().tolist()


@settings(max_examples=150, deadline=None)
@given(last=st.integers(0, 500_000), count=st.integers(1, 1_000))
def test_spaces_are_numpys(last: int, count: int) -> None:
    assert linspace(0, last, count) == np.linspace(0, last, count).tolist()
    assert truncated(0, last, count) == np.linspace(0, last, count, dtype=int).tolist()
    assert rounded(0, last, count) == np.linspace(0, last, count).round().astype(int).tolist()


def test_every_sampler_of_hugging_face_is_compared_here() -> None:
    named = {name for name in SAMPLERS if name.startswith("hf")}
    assert named == {*BY_RATE, "hf-glm46v", "hf-smolvlm"}


@pytest.mark.parametrize("rate", [30.0, 0.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_clip_that_a_rule_cannot_take_is_an_error_of_ours(name: str, rate: float) -> None:
    chosen = ours(name, 1, rate, 1 / 30, Wish())
    assert chosen is None or set(chosen) == {0}
