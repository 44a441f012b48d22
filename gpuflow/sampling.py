"""Which frames of a clip are wanted: from ``VideoOptions`` and the times of the displayed frames to their numbers."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.samplers import ClipFacts, sampler_named

if TYPE_CHECKING:
    from gpuflow.config import VideoOptions

DEFAULT_NUM_FRAMES = 32


def choose_indices(
    options: VideoOptions,
    *,
    pts_seconds: Sequence[float],
    duration_seconds: float,
    max_frames: int,
    fps: float = 0.0,
    key_indices: Sequence[int] = (0,),
) -> list[int]:
    """Numbers of the wanted frames among all displayed ones, in the order in which they are wanted.

    ``pts_seconds``: when each displayed frame appears, ascending, the first at 0. A range (``start_seconds``,
    ``end_seconds``) narrows the clip to the frames that are on screen in it. ``max_frames`` is the operator's limit:
    what a request names must fit in it, what is derived (the default, ``fps``, ``keyframes``) is cut to it. Where frames
    are dropped they are spread evenly: ``round(linspace(first, last, n))``, half to even. ``fps``: the clip's rate, for
    samplers; ``key_indices``: its keyframes, ascending.

    Raises:
        InvalidOptions: an index outside the clip, a range after its end, or one that shows no keyframe, a number that is
            not finite, what a sampler refuses; with ``strict`` also fewer frames than asked for, or a timestamp outside.
        LimitExceeded: more frames were asked for than ``max_frames``, or a sampler chooses more.
    """
    if not pts_seconds:
        raise InvalidOptions("the clip shows no frame to choose from")
    if options.sampler is not None:
        return _by_sampler(options, pts_seconds, duration_seconds, fps, max_frames)
    first, last = _window(options, pts_seconds, duration_seconds)
    if options.keyframes:
        return _keyframes(options, [index for index in key_indices if first <= index <= last], max_frames)
    if options.indices is not None:
        return _given(options.indices, first, last, max_frames)
    if options.timestamps_seconds is not None:
        return _shown_at(options, pts_seconds, duration_seconds, (first, last), max_frames)
    wanted = _count(options, pts_seconds, duration_seconds, first, max_frames)
    available = last - first + 1
    if options.strict and wanted > available:
        raise InvalidOptions(f"strict: {wanted} frames were asked for and the clip has {available}")
    return [first + index for index in evenly_spaced(available, min(wanted, available))]


def evenly_spaced(total: int, count: int) -> list[int]:
    """``unique(round(linspace(0, total - 1, count)))`` for ``1 <= count <= total``; ``[0]`` for one."""
    if count == 1:
        return [0]
    step = (total - 1) / (count - 1)
    return [round(step * index) for index in range(count - 1)] + [total - 1]


def _by_sampler(
    options: VideoOptions, pts: Sequence[float], duration_seconds: float, fps: float, max_frames: int
) -> list[int]:
    """What the server would choose, never cut: other frames than its own are no use to it."""
    sampler = sampler_named(options.sampler or "")
    _check_limit(options.num_frames or 0, max_frames)
    by_frames = sampler.duration == "frames" and fps > 0
    seconds = len(pts) / fps if by_frames else duration_seconds
    chosen = sampler.choose(ClipFacts(len(pts), fps, seconds, pts), options.wish)
    if len(chosen) > max_frames:
        raise LimitExceeded(
            f"sampler {sampler.name!r} chooses {len(chosen)} frames; Limits.max_video_frames is {max_frames}"
        )
    return chosen


def _keyframes(options: VideoOptions, keys: list[int], max_frames: int) -> list[int]:
    if not keys:
        raise InvalidOptions("keyframes: the clip shows none in this range")
    wanted = min(len(keys), max_frames) if options.num_frames is None else options.num_frames
    _check_limit(wanted, max_frames)
    if options.strict and (wanted > len(keys) or (options.num_frames is None and wanted < len(keys))):
        raise InvalidOptions(f"strict: the clip shows {len(keys)} keyframes in this range, {wanted} may be taken")
    return [keys[place] for place in evenly_spaced(len(keys), min(wanted, len(keys)))]


def _window(options: VideoOptions, pts: Sequence[float], duration_seconds: float) -> tuple[int, int]:
    start, end = options.start_seconds or 0.0, options.end_seconds
    if not math.isfinite(start) or (end is not None and math.isnan(end)):
        raise InvalidOptions(f"start_seconds and end_seconds are finite; got {start} .. {end}")
    if start > 0 and start >= duration_seconds:
        raise InvalidOptions(f"start_seconds {start:g} lies after the end of the clip at {duration_seconds:g} s")
    first = max(0, bisect_right(pts, start) - 1)
    last = len(pts) - 1 if end is None else bisect_left(pts, end) - 1
    return first, max(first, last)


def _given(indices: Sequence[int], first: int, last: int, max_frames: int) -> list[int]:
    _check_limit(len(indices), max_frames)
    for index in indices:
        if not first <= index <= last:
            raise InvalidOptions(f"index {index} is outside the clip: its frames are {first} .. {last}")
    return list(indices)


def _shown_at(
    options: VideoOptions, pts: Sequence[float], duration_seconds: float, window: tuple[int, int], max_frames: int
) -> list[int]:
    times = options.timestamps_seconds or ()
    _check_limit(len(times), max_frames)
    for time in times:
        if not math.isfinite(time):
            raise InvalidOptions(f"timestamps_seconds are finite; got {time}")
        if options.strict and not 0 <= time <= duration_seconds:
            raise InvalidOptions(f"strict: timestamp {time:g} is outside the clip: 0 .. {duration_seconds:g} s")
    first, last = window
    return [min(max(bisect_right(pts, time) - 1, first), last) for time in times]


def _count(options: VideoOptions, pts: Sequence[float], duration_seconds: float, first: int, max_frames: int) -> int:
    """How many frames are wanted, before the clip's own number caps it."""
    cap = min(options.max_frames or max_frames, max_frames)
    if options.num_frames is not None:
        _check_limit(options.num_frames, max_frames)
        return min(options.num_frames, cap)
    if options.fps is None:
        return min(DEFAULT_NUM_FRAMES, cap)
    end = duration_seconds if options.end_seconds is None else min(options.end_seconds, duration_seconds)
    seconds = max(0.0, end - max(options.start_seconds or 0.0, pts[first]))
    exact = seconds * options.fps
    if not math.isfinite(exact):
        raise InvalidOptions(f"fps is finite; got {options.fps}")
    if options.strict and exact >= cap + 1:
        raise LimitExceeded(f"strict: {options.fps:g} frames a second of {seconds:g} s are more than {cap} frames")
    return max(1, int(min(exact, cap)))


def _check_limit(count: int, max_frames: int) -> None:
    if count > max_frames:
        raise LimitExceeded(f"{count} frames were asked for; Limits.max_video_frames is {max_frames}")
