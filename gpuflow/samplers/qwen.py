"""Qwen's rules: so many frames a second, between a least and a most, in pairs."""

from __future__ import annotations

from gpuflow.errors import InvalidOptions
from gpuflow.samplers.base import ClipFacts, Wish, refuse_more_than, require_frames
from gpuflow.samplers.plain import kept
from gpuflow.samplers.spacing import arange_float32, floor_to, rounded, truncated, unique

_FPS = 2.0
_LEAST, _MOST = 4, 768
_MOST_OF_VIDEO_LLAMA = 180
_PAIR = 2


def qwen2_vl(clip: ClipFacts, wish: Wish) -> list[int]:
    """``total / rate * fps`` frames, 4 to 768 (``max_frames``), a multiple of 2; ``arange`` in float32."""
    return _arange(clip, wish, factor=_PAIR, most=_MOST)


def video_llama3(clip: ClipFacts, wish: Wish) -> list[int]:
    """The same one by one, 180 at most."""
    return _arange(clip, wish, factor=1, most=_MOST_OF_VIDEO_LLAMA)


def qwen3_vl(clip: ClipFacts, wish: Wish) -> list[int]:
    """``int(total / rate * fps)`` frames, 4 to 768 (``max_frames``), or ``num_frames``, which may repeat; positions
    rounded half to even."""
    count = wish.num_frames
    if count is None:
        count = int(clip.num_frames / clip.fps * (wish.fps or _FPS))
        count = min(max(count, _LEAST), wish.max_frames or _MOST, clip.num_frames)
    return rounded(0, clip.num_frames - 1, count)


def sglang(clip: ClipFacts, wish: Wish) -> list[int]:
    """As Qwen2-VL's number of frames, positions rounded down, repeats left out. Fewer than 2 frames is an error."""
    if wish.num_frames is not None:
        count = round(wish.num_frames / _PAIR) * _PAIR
    else:
        most = floor_to(wish.max_frames or min(_MOST, clip.num_frames), _PAIR)
        wanted = clip.num_frames / clip.fps * (wish.fps or _FPS)
        count = floor_to(min(max(wanted, _LEAST), most, clip.num_frames), _PAIR)
    if not _PAIR <= count <= clip.num_frames:
        raise InvalidOptions(f"SGLang takes 2 .. {clip.num_frames} frames of this clip; this would be {count}")
    return unique(truncated(0, clip.num_frames - 1, count))


def _arange(clip: ClipFacts, wish: Wish, *, factor: int, most: int) -> list[int]:
    if wish.num_frames is not None:
        count = round(wish.num_frames / factor) * factor
    else:
        most = floor_to(min(wish.max_frames or most, clip.num_frames), factor)
        wanted = clip.num_frames / clip.fps * (wish.fps or _FPS)
        count = floor_to(min(max(wanted, _LEAST), most, clip.num_frames), factor)
    refuse_more_than(clip, require_frames(count))
    return kept(clip, arange_float32(0, clip.num_frames, clip.num_frames / count))
