"""Where long audio is cut: as Cohere's extractor, vLLM's and SGLang's splitters and the ASR pipeline of transformers cut it."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpuflow.errors import LimitExceeded
from gpuflow.ops.audio_parts import MAX_PARTS, WINDOW_SAMPLES, quietest_parts, strides, window_parts
from gpuflow.presets.clip_plan import Parts

RATE = 16_000
Samples = NDArray[np.float32]


def _signal(name: str, num_samples: int) -> Samples:
    t = np.arange(num_samples) / RATE
    noise = np.random.default_rng(3).standard_normal(num_samples)
    made = {
        "noise": 0.1 * noise,
        "bursts": 0.2 * noise * (np.sin(2 * np.pi * 0.37 * t) > -0.4),
        "silence": np.zeros(num_samples),
        "constant": np.full(num_samples, 0.1),
        "tone": np.sin(2 * np.pi * 440 * t),
    }
    return made[name].astype(np.float32)


def _by_the_servers_rule(samples: Samples, limit: int, search: int, window: int) -> Parts:
    """The rule of vLLM and SGLang again, a window at a time."""
    parts, begin = [], 0
    while begin + limit < len(samples):
        first, end = begin + limit - search, begin + limit
        quietest, least = first, math.inf
        for at in range(first, end - window, window):
            level = np.sqrt((samples[at : at + window] ** 2).mean())
            if level < least:
                quietest, least = at, level
        cut = quietest if quietest > begin else end
        parts.append((begin, cut))
        begin = cut
    return (*parts, (begin, len(samples))) if len(samples) else ()


@pytest.mark.parametrize("name", ["noise", "bursts", "silence", "constant", "tone"])
@pytest.mark.parametrize("seconds", [1.0, 34.9, 35.0, 35.1, 70.0, 200.0])
def test_the_cuts_are_cohere_asrs(name: str, seconds: float) -> None:
    from transformers import CohereAsrFeatureExtractor

    samples = _signal(name, round(seconds * RATE))
    theirs = CohereAsrFeatureExtractor()._split_audio_chunks_energy(torch.from_numpy(samples))
    ours = quietest_parts(samples, limit=35 * RATE, search=5 * RATE, middle=True)
    assert [last - first for first, last in ours] == [len(part) for part in theirs]


@pytest.mark.parametrize(("limit", "search"), [(2.0, 0.1), (2.0, 0.05), (1.0, 0.5), (3.0, 1.07)])
def test_the_cuts_are_cohere_asrs_at_other_settings(limit: float, search: float) -> None:
    from transformers import CohereAsrFeatureExtractor

    samples = _signal("bursts", 20 * RATE + 11)
    extractor = CohereAsrFeatureExtractor(max_audio_clip_s=limit, overlap_chunk_second=search)
    theirs = extractor._split_audio_chunks_energy(torch.from_numpy(samples))
    ours = quietest_parts(samples, limit=round(limit * RATE), search=round(search * RATE), middle=True)
    assert [last - first for first, last in ours] == [len(part) for part in theirs]


@pytest.mark.parametrize("name", ["noise", "bursts", "silence", "constant", "tone"])
@pytest.mark.parametrize(("limit", "search"), [(30.0, 1.0), (10.0, 5.0), (2.0, 0.1), (1.0, 0.05)])
def test_the_cuts_are_those_of_the_servers(name: str, limit: float, search: float) -> None:
    samples = _signal(name, round(95.3 * RATE))
    limit_samples, search_samples = round(limit * RATE), round(search * RATE)
    expected = _by_the_servers_rule(samples, limit_samples, search_samples, WINDOW_SAMPLES)
    assert quietest_parts(samples, limit=limit_samples, search=search_samples) == expected


@given(
    st.integers(0, 900), st.integers(8, 90), st.integers(1, 12), st.floats(0.01, 0.5), st.integers(0, 99), st.booleans()
)
def test_quietest_parts_hold_everything_once_and_none_is_too_long_or_empty(
    num_samples: int, limit: int, window: int, share: float, seed: int, middle: bool
) -> None:
    samples = np.random.default_rng(seed).choice(np.array([0, 0, 1e-3, 0.5, -1], np.float32), num_samples)
    search = max(1, int(limit * share))
    parts = quietest_parts(samples, limit=limit, search=search, window=window, middle=middle)
    assert [place for first, last in parts for place in range(first, last)] == list(range(num_samples))
    assert all(0 < last - first <= limit for first, last in parts)
    assert all(last - first >= limit - search for first, last in parts[:-1])
    if not middle:
        assert parts == _by_the_servers_rule(samples, limit, search, window)


class _WholeChunk:
    """The pipeline's extractor, for its cuts alone."""

    sampling_rate = RATE

    def __call__(self, chunk: Samples, **_: Any) -> dict[str, Samples]:
        return {"chunk": chunk}


@given(st.integers(1, 3000), st.integers(6, 500), st.floats(0.0, 0.25))
@settings(max_examples=200, deadline=None)  # the first imports the pipeline
def test_windows_and_strides_are_those_of_the_asr_pipeline(num_samples: int, length: int, share: float) -> None:
    from transformers.pipelines.automatic_speech_recognition import chunk_iter

    stride = int(length * share)
    samples = np.arange(num_samples)
    theirs = list(chunk_iter(samples, _WholeChunk(), length, stride, stride))
    parts = window_parts(num_samples, length=length, overlap=2 * stride)
    assert [(one["chunk"][0], one["chunk"][-1] + 1) for one in theirs] == list(parts)
    assert [one["stride"] for one in theirs] == list(strides(parts))
    assert [one["is_last"] for one in theirs] == [part is parts[-1] for part in parts]


@pytest.mark.parametrize("seconds", [12.0, 30.0, 30.1, 61.0, 300.0])
def test_a_third_of_overlap_is_what_the_pipeline_takes_by_default(seconds: float) -> None:
    from transformers.pipelines.automatic_speech_recognition import chunk_iter

    stride = round(30.0 / 6 * RATE)
    samples = np.zeros(round(seconds * RATE), np.float32)
    theirs = [one["stride"] for one in chunk_iter(samples, _WholeChunk(), 30 * RATE, stride, stride)]
    assert list(strides(window_parts(len(samples), length=30 * RATE, overlap=10 * RATE))) == theirs


@given(st.integers(0, 2000), st.integers(1, 400), st.floats(0.0, 0.5))
def test_windows_hold_everything_and_what_is_left_of_their_strides_holds_it_once(
    num_samples: int, length: int, share: float
) -> None:
    overlap = 2 * (int(length * share) // 2)
    parts = window_parts(num_samples, length=length, overlap=overlap)
    assert all(0 < last - first <= length for first, last in parts)
    assert all(before[1] - after[0] == overlap for before, after in pairwise(parts))
    kept = [
        place
        for (first, last), (_, left, right) in zip(parts, strides(parts), strict=True)
        for place in range(first + left, last - right)
    ]
    assert kept == list(range(num_samples))


def test_more_parts_than_a_descriptor_holds_are_refused() -> None:
    samples = np.zeros(MAX_PARTS * 10 + 1, np.float32)
    with pytest.raises(LimitExceeded, match="more than 2048 parts"):
        window_parts(len(samples), length=10)
    with pytest.raises(LimitExceeded, match="more than 2048 parts"):
        quietest_parts(samples, limit=10, search=1, window=1)
    assert len(window_parts(MAX_PARTS * 10, length=10)) == MAX_PARTS


def test_an_hour_is_cut_in_far_less_than_a_second() -> None:
    samples = np.tile(_signal("noise", 60 * RATE), 60)
    started = time.perf_counter()
    parts = quietest_parts(samples, limit=30 * RATE, search=RATE)
    seconds = time.perf_counter() - started
    assert len(parts) > 120
    assert seconds < 1.0
