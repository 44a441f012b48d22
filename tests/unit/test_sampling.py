"""Which frames are chosen, against numpy's linspace and round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuflow.config import VideoOptions
from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.sampling import choose_indices, evenly_spaced

CLIP = [index / 10 for index in range(100)]  # 10 s at 10 frames a second


def choose(options: VideoOptions, pts: list[float] = CLIP, max_frames: int = 128) -> list[int]:
    step = pts[1] if len(pts) > 1 else 0.1
    return choose_indices(options, pts_seconds=pts, duration_seconds=pts[-1] + step, max_frames=max_frames)


@given(total=st.integers(1, 40_000), count=st.integers(1, 2_000))
def test_even_spacing_is_numpys_rounded_linspace(total: int, count: int) -> None:
    count = min(count, total)
    expected = np.unique(np.round(np.linspace(0, total - 1, count))).astype(int).tolist()
    chosen = evenly_spaced(total, count)
    assert chosen == expected
    assert len(chosen) == count


@given(
    total=st.integers(1, 500),
    fps=st.floats(0.01, 100),
    max_frames=st.integers(1, 200),
    start=st.floats(0, 0.9),
    limit=st.integers(1, 200),
)
def test_what_is_derived_never_exceeds_a_cap_and_stays_in_the_clip(
    total: int, fps: float, max_frames: int, start: float, limit: int
) -> None:
    pts = [index / 10 for index in range(total)]
    options = VideoOptions(fps=fps, max_frames=max_frames, start_seconds=start * total / 10)
    chosen = choose_indices(options, pts_seconds=pts, duration_seconds=total / 10, max_frames=limit)
    assert 1 <= len(chosen) <= min(max_frames, limit, total)
    assert chosen == sorted(set(chosen))
    assert pts[chosen[0]] <= start * total / 10 + 1e-9
    assert chosen[-1] < total


def test_without_a_wish_there_are_32_frames_or_all() -> None:
    assert len(choose(VideoOptions())) == 32
    assert choose(VideoOptions(), [0.0, 0.1, 0.2]) == [0, 1, 2]


def test_num_frames_is_at_most_so_many_and_strict_exactly_so_many() -> None:
    assert choose(VideoOptions(num_frames=3)) == [0, 50, 99]
    assert choose(VideoOptions(num_frames=1)) == [0]
    assert choose(VideoOptions(num_frames=100)) == list(range(100))
    assert choose(VideoOptions(num_frames=120)) == list(range(100))
    with pytest.raises(InvalidOptions, match="120 frames were asked for and the clip has 100"):
        choose(VideoOptions(num_frames=120, strict=True))


def test_a_request_above_the_limit_is_refused_and_a_default_is_cut_to_it() -> None:
    for options in (VideoOptions(num_frames=11), VideoOptions(indices=(0,) * 11)):
        with pytest.raises(LimitExceeded, match="11 frames were asked for"):
            choose(options, max_frames=10)
    assert len(choose(VideoOptions(), max_frames=10)) == 10
    assert len(choose(VideoOptions(fps=10.0), max_frames=10)) == 10
    with pytest.raises(LimitExceeded, match="strict"):
        choose(VideoOptions(fps=10.0, strict=True), max_frames=10)


def test_fps_counts_whole_frames_of_the_duration() -> None:
    assert choose(VideoOptions(fps=0.25)) == [0, 99]
    assert choose(VideoOptions(fps=0.01)) == [0]
    assert len(choose(VideoOptions(fps=1.99))) == 19
    assert len(choose(VideoOptions(fps=5.0, max_frames=7))) == 7
    with pytest.raises(InvalidOptions, match="finite"):
        choose(VideoOptions(fps=float("inf")))


def test_indices_keep_their_order_and_repeats_and_must_exist() -> None:
    assert choose(VideoOptions(indices=(7, 3, 3, 99))) == [7, 3, 3, 99]
    for index in (-1, 100):
        with pytest.raises(InvalidOptions, match=r"frames are 0 \.\. 99"):
            choose(VideoOptions(indices=(index,)))


def test_a_timestamp_names_the_frame_that_is_on_screen() -> None:
    uneven = [0.0, 0.5, 0.6, 2.0]
    times = (0.0, 0.49, 0.5, 1.99, 2.0, 99.0, -1.0)
    assert choose(VideoOptions(timestamps_seconds=times), uneven) == [0, 0, 1, 2, 3, 3, 0]
    with pytest.raises(InvalidOptions, match="outside the clip"):
        choose(VideoOptions(timestamps_seconds=(99.0,), strict=True), uneven)
    with pytest.raises(InvalidOptions, match="finite"):
        choose(VideoOptions(timestamps_seconds=(float("nan"),)), uneven)


@given(index=st.integers(0, 99))
def test_a_frames_own_timestamp_names_it(index: int) -> None:
    assert choose(VideoOptions(timestamps_seconds=(CLIP[index],))) == [index]


@given(keys=st.sets(st.integers(1, 99)), count=st.integers(1, 128), limit=st.integers(1, 40))
def test_keyframes_are_spread_evenly_over_themselves(keys: set[int], count: int, limit: int) -> None:
    shown = sorted({0, *keys})
    count = min(count, limit)
    for options, most in (
        (VideoOptions(keyframes=True), limit),
        (VideoOptions(keyframes=True, num_frames=count), count),
    ):
        chosen = choose_indices(options, pts_seconds=CLIP, duration_seconds=10.0, max_frames=limit, key_indices=shown)
        places = np.unique(np.round(np.linspace(0, len(shown) - 1, min(most, len(shown))))).astype(int)
        assert chosen == [shown[place] for place in places]


def test_a_range_narrows_the_clip_first() -> None:
    assert choose(VideoOptions(num_frames=3, start_seconds=2.0, end_seconds=4.0)) == [20, 30, 39]
    assert choose(VideoOptions(fps=1.0, start_seconds=8.0)) == [80, 99]
    assert choose(VideoOptions(num_frames=4, start_seconds=2.05, end_seconds=2.06)) == [20]
    assert choose(VideoOptions(timestamps_seconds=(0.0, 9.0), start_seconds=2.0, end_seconds=4.0)) == [20, 39]
    with pytest.raises(InvalidOptions, match=r"frames are 20 \.\. 39"):
        choose(VideoOptions(indices=(40,), start_seconds=2.0, end_seconds=4.0))
    with pytest.raises(InvalidOptions, match="after the end of the clip"):
        choose(VideoOptions(start_seconds=10.0))
