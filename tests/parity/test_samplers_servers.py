"""Samplers against the servers' rules, written once more with numpy and torch from what their sources do, and vectors.

None of the servers is installed here; ``gpuflow.samplers.table`` says what was read. Vectors were worked out by hand,
those of Dynamo's moments were recorded from its formula.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.config import VideoOptions
from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.samplers import SAMPLERS, ClipFacts, Wish, sampler_named
from gpuflow.samplers.plain import dynamo_moments
from gpuflow.sampling import choose_indices
from tests.parity.test_samplers_hf import RATES, TOTALS, WISHED_FPS

Facts = tuple[int, float, float]
Reference = Callable[[int, float, float, Wish], list[int]]


def choose(name: str, facts: Facts, **wish: float) -> list[int] | None:
    total, rate, seconds = facts
    times = [index / rate for index in range(total)]
    try:
        return sampler_named(name).choose(ClipFacts(total, rate, seconds, times), Wish(**wish))  # type: ignore[arg-type]
    except InvalidOptions:
        return None


VECTORS: list[tuple[str, Facts, dict[str, float], list[int] | int | None]] = [
    # rounded down, where the rounded ones would be 0 33 66 99 and 0 1 2 4 5 6 8 9
    ("vllm", (100, 10.0, 10.0), {"num_frames": 4}, [0, 33, 66, 99]),
    ("vllm", (101, 10.0, 10.1), {"num_frames": 8}, [0, 14, 28, 42, 57, 71, 85, 100]),
    ("vllm", (10, 10.0, 1.0), {"num_frames": 8}, [0, 1, 2, 3, 5, 6, 7, 9]),
    ("linspace-round", (10, 10.0, 1.0), {"num_frames": 8}, [0, 1, 3, 4, 5, 6, 8, 9]),
    ("linspace-truncate", (10, 10.0, 1.0), {"num_frames": 8}, [0, 1, 2, 3, 5, 6, 7, 9]),
    ("vllm", (300, 30.0, 10.0), {}, 32),
    ("vllm", (300, 30.0, 10.0), {"fps": 2.0}, 20),
    ("vllm", (300, 30.0, 10.0), {"fps": 2.0, "max_frames": 7}, 7),
    ("vllm", (300, 30.0, 10.0), {"fps": 0.01}, [0]),
    ("vllm", (5, 30.0, 5 / 30), {"num_frames": 32}, [0, 1, 2, 3, 4]),
    # half away from zero: 2.5 is 3, where numpy says 2
    ("dynamo", (6, 1.0, 6.0), {"num_frames": 3}, [0, 3, 5]),
    ("linspace-round", (6, 1.0, 6.0), {"num_frames": 3}, [0, 2, 5]),
    ("dynamo", (100, 1.0, 100.0), {"fps": 0.5}, 50),
    ("dynamo", (300, 30.0, 10.0), {"fps": 2.0, "max_frames": 16}, 16),
    ("dynamo", (10, 100.0, 0.1), {"fps": 1.0}, [0]),
    ("dynamo", (10, 10.0, 1.0), {"num_frames": 32}, None),
    ("dynamo", (10, 10.0, 1.0), {"fps": 60.0}, None),
    ("dynamo", (3, 10.0, 0.3), {}, [0, 1, 2]),
    ("dynamo-nvdec", (10, 10.0, 1.0), {"num_frames": 32}, list(range(10))),
    ("dynamo-nvdec", (100, 10.0, 10.0), {"num_frames": 8, "fps": 0.5}, [0, 24, 49, 74, 99]),
    ("dynamo-nvdec", (100, 10.0, 10.0), {}, 32),
    # a second of 10 frames: 4 at least
    ("vllm-qwen3-vl", (10, 10.0, 1.0), {}, [0, 3, 6, 9]),
    ("vllm-qwen3-vl", (3, 10.0, 0.3), {}, [0, 1, 2]),
    ("vllm-qwen3-vl", (100_000, 25.0, 4_000.0), {}, 768),
    ("vllm-qwen2-vl", (10, 10.0, 1.0), {}, [0, 2, 5, 7]),
    ("vllm-qwen2-vl", (75, 30.0, 2.5), {}, [0, 18, 37, 56]),
    ("vllm-qwen2-vl", (1, 30.0, 1 / 30), {}, None),
    ("sglang-qwen-vl", (75, 30.0, 2.5), {}, [0, 24, 49, 74]),
    ("sglang-qwen-vl", (1, 30.0, 1 / 30), {}, None),
    ("sglang-qwen-vl", (100, 30.0, 100 / 30), {"num_frames": 7}, 8),
    ("sglang-qwen-vl", (50_000, 25.0, 2_000.0), {}, 768),
    # an odd number repeats its last frame, which PyNvVideoCodec's indexed reads would drop
    ("vllm-glm46v", (9, 3.0, 3.0), {}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]),
    ("hf-glm4v", (75, 30.0, 2.5), {"fps": 2.0}, [0, 15, 30, 45, 60, 60]),
    ("vllm-glm4v", (75, 30.0, 2.5), {"fps": 2.0}, [0, 15, 30, 45, 60]),
    ("vllm-glm4v", (5, 30.0, 5 / 30), {"fps": 2.0}, None),
    ("vllm-glm5next", (90, 30.0, 3.0), {}, [0, 17, 35, 53, 71, 89]),
    ("vllm-glm5next", (3, 1.0, 3.0), {}, [0, 1, 2, 2]),
    ("vllm-openpangu", (61, 30.0, 61 / 30), {}, [0, 15, 30, 45, 60]),
    ("vllm-openpangu", (61, 30.0, 61 / 30), {"num_frames": 3}, [0, 30, 60]),
    ("vllm-molmo2", (61, 30.0, 61 / 30), {}, [0, 15, 30, 45, 60]),
    ("vllm-molmo2", (71, 30.0, 71 / 30), {}, [0, 15, 30, 45, 60, 70]),
    ("vllm-molmo2", (71, 30.0, 71 / 30), {"max_frames": 3}, [0, 35, 70]),
    ("vllm-molmo2", (2, 30.0, 2 / 30), {}, [0, 1]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "facts", "wish", "expected"), VECTORS, ids=[f"{v[0]} {i}" for i, v in enumerate(VECTORS)]
)
def test_a_vector_of_a_server_is_met(
    name: str, facts: Facts, wish: dict[str, float], expected: list[int] | int | None
) -> None:
    chosen = choose(name, facts, **wish)
    assert (len(chosen) if isinstance(expected, int) and chosen else chosen) == expected


def test_dynamos_moments_are_those_that_were_recorded() -> None:
    ten = dynamo_moments(ClipFacts(10, 1.0, 10.0), 5)
    assert ten == pytest.approx([0, 2.24975, 4.4995, 6.74925, 8.999], abs=1e-6)
    assert dynamo_moments(ClipFacts(10, 1.0, 10.0), 1) == pytest.approx([4.4995], abs=1e-6)
    assert dynamo_moments(ClipFacts(60, 30.0, 2.0), 4) == pytest.approx([0, 0.6552, 1.3104, 1.9657], abs=5e-5)


def test_dynamos_moments_take_the_first_frame_at_or_after_them_once() -> None:
    assert choose("dynamo-times", (10, 1.0, 10.0), num_frames=5) == [0, 3, 5, 7, 9]
    assert choose("dynamo-times", (10, 1.0, 10.0), num_frames=1) == [5]
    uneven = ClipFacts(4, 10.0, 0.4, [0.0, 0.01, 0.02, 0.3])
    assert sampler_named("dynamo-times").choose(uneven, Wish(num_frames=4)) == [0, 3]


def _round_away(total: int, count: int) -> list[int]:
    places = [Decimal(index) * (total - 1) / (count - 1) for index in range(count)] if count > 1 else [Decimal(0)]
    return sorted({int(place.to_integral_value(ROUND_HALF_UP)) for place in places})


def _vllm(total: int, rate: float, seconds: float, wish: Wish) -> list[int]:
    count = min(wish.max_frames or total, total, math.floor(seconds * (wish.fps or 0)))
    return np.linspace(0, total - 1, max(1, count), dtype=int).tolist()  # type: ignore[no-any-return]


def _nvdec(total: int, rate: float, seconds: float, wish: Wish) -> list[int]:
    count = max(1, min(wish.max_frames or 32, total, math.floor(total / rate * (wish.fps or 0))))
    return np.unique(np.linspace(0, total - 1, count).astype(int)).tolist()  # type: ignore[no-any-return]


def _qwen3(total: int, rate: float, seconds: float, wish: Wish) -> list[int]:
    count = min(max(int(total / rate * (wish.fps or 0)), 4), wish.max_frames or 768, total)
    return np.linspace(0, total - 1, count).round().astype(int).tolist()  # type: ignore[no-any-return]


def _pairs(total: int, rate: float, wish: Wish) -> int:
    most = min(wish.max_frames or 768, total) // 2 * 2
    return int(min(max(total / rate * (wish.fps or 0), 4), most, total) // 2 * 2)


def _qwen2(total: int, rate: float, seconds: float, wish: Wish) -> list[int]:
    indices = torch.arange(0, total, total / _pairs(total, rate, wish)).int()
    return torch.clamp(indices, max=total - 1).tolist()


def _sglang(total: int, rate: float, seconds: float, wish: Wish) -> list[int]:
    return np.unique(np.linspace(0, total - 1, num=_pairs(total, rate, wish), dtype=np.int64)).tolist()  # type: ignore[no-any-return]


def _glm4v(total: int, rate: float, seconds: float, wish: Wish) -> list[int]:
    fps = wish.fps or 2.0
    if seconds <= 300:
        moments = np.arange(math.floor(seconds * fps)) * rate / fps
    elif int(300 * fps) >= total:
        moments = np.arange(total).astype(float)
    else:
        moments = np.linspace(0, seconds, int(300 * fps)) * rate
    return np.unique(np.minimum(np.ceil(moments), total - 1).astype(int)).tolist()  # type: ignore[no-any-return]


def _openpangu(total: int, rate: float, seconds: float, wish: Wish) -> list[int]:
    last, fps, count = (total - 1) / rate, wish.fps or 2.0, wish.max_frames or 32
    if count >= int(last * fps) + 1:
        count = int(last * fps) + 1
        last = min(last, (count - 1) / fps)
    moments = np.linspace(0, last, count, dtype=float)
    return [min(total - 1, round(moment * rate)) for moment in moments.tolist()]


REFERENCES: dict[str, Reference] = {
    "vllm": _vllm,
    "dynamo-nvdec": _nvdec,
    "vllm-qwen3-vl": _qwen3,
    "vllm-qwen2-vl": _qwen2,
    "sglang-qwen-vl": _sglang,
    "vllm-glm4v": _glm4v,
    "vllm-openpangu": _openpangu,
}


@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=60, deadline=None)
@given(total=TOTALS, rate=RATES, fps=WISHED_FPS, most=st.one_of(st.none(), st.integers(2, 200)))
def test_a_rate_gives_the_servers_frames(name: str, total: int, rate: float, fps: float, most: int | None) -> None:
    wish = {"fps": fps} | ({"max_frames": most} if most and "max_frames" in sampler_named(name).takes else {})
    facts = (total, rate, total / rate)
    chosen = choose(name, facts, **wish)
    if chosen is None:
        assert total < 2 or fps * total / rate < 1
    else:
        assert chosen == REFERENCES[name](*facts, Wish(**wish))  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(total=st.integers(1, 100_000), count=st.integers(1, 500))
def test_dynamo_rounds_half_away_from_zero(total: int, count: int) -> None:
    count = min(count, total)
    assert choose("dynamo", (total, 30.0, total / 30), num_frames=count) == _round_away(total, count)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLERS)),
    total=st.integers(1, 2_000),
    rate=st.floats(0.01, 240.0),
    off=st.floats(0.0, 3.0),
    number=st.integers(1, 200),
    fps=st.floats(1e-6, 1e4),
    which=st.integers(0, 7),
)
def test_whatever_is_wished_frames_ascend_within_the_clip(
    name: str, total: int, rate: float, off: float, number: int, fps: float, which: int
) -> None:
    sampler = sampler_named(name)
    values = {"num_frames": number, "fps": fps, "max_frames": number}
    wish = Wish(**{field: values[field] for bit, field in enumerate(sampler.takes) if which >> bit & 1})  # type: ignore[arg-type]
    clip = ClipFacts(total, rate, off * total / rate, [index / rate for index in range(total)])
    with contextlib.suppress(InvalidOptions, LimitExceeded):
        chosen = sampler.choose(clip, wish)
        assert chosen[0] >= 0
        assert chosen[-1] < total
        assert all(earlier <= later for earlier, later in pairwise(chosen))


def _options(**values: object) -> list[int]:
    pts = [index / 30 for index in range(900)]
    return choose_indices(
        VideoOptions.from_mapping(values), pts_seconds=pts, duration_seconds=30.0, max_frames=64, fps=30.0
    )


def test_options_name_a_sampler_and_what_it_takes() -> None:
    assert _options(sampler="vllm-qwen3-vl", fps=1.0) == choose("vllm-qwen3-vl", (900, 30.0, 30.0), fps=1.0)
    assert _options(sampler="hf-glm4v", fps=0.5)[-2:] == [840, 840]
    for values, says in (
        ({"sampler": "vlm"}, "sampler: there is no 'vlm'; there are linspace-round, .*vllm-qwen3-vl"),
        ({"sampler": "vllm-qwen3-vl", "num_frames": 4}, "'vllm-qwen3-vl' takes fps and max_frames; got num_frames"),
        ({"sampler": "vllm-glm46v", "fps": 1.0}, "'vllm-glm46v' takes no number; got fps"),
        ({"sampler": "vllm", "indices": [1]}, "got it with indices"),
        ({"sampler": "vllm", "start_seconds": 1.0}, "got it with start_seconds"),
        ({"sampler": "vllm", "keyframes": True}, "got it with keyframes"),
        ({"sampler": 3}, "sampler: Expected `str.*; got 3"),
        ({"sampler": "hf"}, "give num_frames or fps"),
        ({"sampler": "hf", "fps": 1e-9}, "fps is 1e-06 or more"),
    ):
        with pytest.raises(InvalidOptions, match=says):
            _options(**values)


def test_a_servers_choice_is_never_cut_to_a_limit() -> None:
    with pytest.raises(LimitExceeded, match=r"'vllm-qwen3-vl' chooses 120 frames; Limits.max_video_frames is 64"):
        _options(sampler="vllm-qwen3-vl", fps=4.0)
    with pytest.raises(LimitExceeded, match="65 frames were asked for"):
        _options(sampler="vllm", num_frames=65)
    with pytest.raises(LimitExceeded, match="more than 1000000"):
        _options(sampler="vllm-glm4v", fps=1e12)
