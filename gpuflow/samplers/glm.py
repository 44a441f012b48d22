"""GLM's rules: the first frame at or after each moment of a grid, without repeats, in pairs."""

from __future__ import annotations

import math

from gpuflow.samplers.base import ClipFacts, Wish
from gpuflow.samplers.spacing import linspace, paired, truncated, unique

_FPS = 2.0
_LONG_SECONDS = 300
_PAIR = 2
_MOST_46V, _MOST_GA, _MOST_5 = 640, 640, 2_048
_LONGEST_46V = 2_400


def glm4v(clip: ClipFacts, wish: Wish) -> list[int]:
    """``floor(duration * fps)`` moments ``1 / fps`` apart, at least one; of more than 300 s as many as those have, over
    all of it. An odd number repeats its last frame."""
    return paired(unique(_glm4v(clip, wish.fps or _FPS, least=1)))


def vllm_glm4v(clip: ClipFacts, wish: Wish) -> list[int]:
    """The same, in ascending order and of any number."""
    return sorted(set(_glm4v(clip, wish.fps or _FPS, least=0)))


def glm46v(clip: ClipFacts, _: Wish) -> list[int]:
    """6 frames a second of up to 30 s, 2 of up to 300 s, 1 of more; of 2,400 s and 640 frames at most."""
    seconds = min(_seconds(clip), _LONGEST_46V)
    fps = 3 if seconds <= 30 else 1 if seconds <= 300 else 0.5
    count = min(int(seconds * fps * _PAIR), _MOST_46V)
    return _pairs(clip, count, 1 / (_PAIR * fps), int(_seconds(clip)), truncated(0, clip.num_frames - 1, max(count, 1)))


def glmga(clip: ClipFacts, wish: Wish) -> list[int]:
    """``int(duration * fps)`` frames, 640 (``max_frames``) at most."""
    fps = wish.fps or _FPS
    count = min(int(_seconds(clip) * fps), wish.max_frames or _MOST_GA)
    return _pairs(clip, count, 1 / fps, _seconds(clip) - 1 / fps, _repeated(clip, count))


def glm5_next(clip: ClipFacts, wish: Wish) -> list[int]:
    """``int(duration * fps)`` frames, 2,048 (``max_frames``) at most, of whole seconds."""
    fps = wish.fps or _FPS
    count = min(int(_seconds(clip) * fps), wish.max_frames or _MOST_5)
    return _pairs(clip, count, 1 / fps, int(_seconds(clip)), truncated(0, clip.num_frames - 1, max(count, 1)))


def vllm_glm5next(clip: ClipFacts, wish: Wish) -> list[int]:
    """The same number; the grid is twice as fine, so that most clips are spread evenly instead."""
    fps = wish.fps or _FPS
    count = min(int(_seconds(clip) * fps), wish.max_frames or _MOST_5)
    return _pairs(clip, count, 1 / (_PAIR * fps), int(_seconds(clip)), _repeated(clip, count))


def _glm4v(clip: ClipFacts, fps: float, *, least: int) -> list[int]:
    last, seconds = clip.num_frames - 1, _seconds(clip)
    if seconds <= _LONG_SECONDS:
        count = max(math.floor(seconds * fps), least)
        return [min(last, math.ceil(index * clip.fps / fps)) for index in range(count)]
    count = int(_LONG_SECONDS * fps)
    if count >= clip.num_frames:
        return list(range(clip.num_frames))
    return [min(last, math.ceil(moment * clip.fps)) for moment in linspace(0, seconds, count)] if count else []


def _pairs(clip: ClipFacts, count: int, interval: float, until: float, short: list[int]) -> list[int]:
    """``count`` frames by the grid; ``short``: what a clip of fewer frames gives. Where the grid gives another number
    they are spread evenly: between its ends where it gives fewer."""
    last = clip.num_frames - 1
    found = short if clip.num_frames < count else _on_grid(clip, interval, until)
    if len(found) < count:
        found = truncated(found[0] if found else 0, found[-1] if found else last, count)
    elif len(found) > count:
        found = truncated(0, last, count) if count else []
    return paired(unique(found))


def _on_grid(clip: ClipFacts, interval: float, until: float) -> list[int]:
    """The first frame at or after each moment, until one is ``until``. Moments are summed up, as the processors do."""
    moment, found, frame_seconds = 0.0, [], 1 / clip.fps
    for index in range(clip.num_frames):
        if index * frame_seconds >= moment:
            moment += interval
            found.append(index)
            if moment >= until:
                break
    return found


def _repeated(clip: ClipFacts, count: int) -> list[int]:
    return [math.floor(index * clip.num_frames / count) for index in range(count)]


def _seconds(clip: ClipFacts) -> float:
    return clip.duration_seconds or round((clip.num_frames - 1) / clip.fps) + 1
