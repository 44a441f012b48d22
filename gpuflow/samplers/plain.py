"""Rules that spread frames evenly: numpy's recipes, vLLM's generic loader, Dynamo, Hugging Face's base class."""

from __future__ import annotations

import math

from gpuflow.errors import InvalidOptions
from gpuflow.samplers.base import ClipFacts, Wish, refuse_more_than, require_frames
from gpuflow.samplers.spacing import arange_float32, float32, linspace, rounded, rounded_away, truncated, unique

_DEFAULT_NUM_FRAMES = 32  # of vLLM's VideoMediaIO, and of Dynamo's workers
_TIME_BUFFER_SECONDS = 0.001


def linspace_rounded(clip: ClipFacts, wish: Wish) -> list[int]:
    """``unique(round(linspace(0, total - 1, n)))``, at most all frames."""
    return unique(rounded(0, clip.num_frames - 1, _at_most(clip, wish)))


def linspace_truncated(clip: ClipFacts, wish: Wish) -> list[int]:
    """The same, rounded down."""
    return unique(truncated(0, clip.num_frames - 1, _at_most(clip, wish)))


def vllm(clip: ClipFacts, wish: Wish) -> list[int]:
    """As many frames as the fewer of ``num_frames`` and ``fps`` allow; positions are rounded down.

    A request's ``fps`` makes vLLM forget its own ``num_frames``; both together are ``fps`` with ``max_frames`` here.
    """
    return truncated(0, clip.num_frames - 1, _vllm_count(clip, wish))


def dynamo_nvdec(clip: ClipFacts, wish: Wish) -> list[int]:
    """Likewise, where both hold; repeats are left out."""
    count = min(wish.num_frames or wish.max_frames or _DEFAULT_NUM_FRAMES, clip.num_frames)
    if wish.fps is not None:
        count = max(1, min(count, math.floor(clip.num_frames / clip.fps * wish.fps)))
    return unique(truncated(0, clip.num_frames - 1, count))


def dynamo(clip: ClipFacts, wish: Wish) -> list[int]:
    """Exactly ``num_frames``, or ``int(duration * fps)`` up to ``max_frames``, or all; positions rounded half away from
    zero. More frames than there are is an error."""
    count = _dynamo_count(clip, wish)
    return [0] if count == 1 else unique(rounded_away(clip.num_frames, count))


def dynamo_times(clip: ClipFacts, wish: Wish) -> list[int]:
    """So many moments from 0 to just before the last frame, as float32; the first frame at or after each, every frame
    once. A moment after which no frame is left gives none."""
    count = _dynamo_count(clip, wish)
    chosen: list[int] = []
    position = 0
    for moment in dynamo_moments(clip, count):
        while position < clip.num_frames and float32(clip.pts_seconds[position]) < moment:
            position += 1
        if position == clip.num_frames:
            break
        chosen.append(position)
        position += 1
    return chosen


def dynamo_moments(clip: ClipFacts, count: int) -> list[float]:
    """The moments of ``dynamo_times``, in seconds."""
    last = max(clip.duration_seconds - 1 / clip.fps - _TIME_BUFFER_SECONDS, 0.0)
    if count == 1:
        return [float32(last) / 2]
    return [float32(index * last / (count - 1)) for index in range(count)]


def hf(clip: ClipFacts, wish: Wish) -> list[int]:
    """``arange(0, total, total / n)`` in float32; more frames than there are is an error."""
    count = _hf_count(clip, wish)
    return kept(clip, arange_float32(0, clip.num_frames, clip.num_frames / count))


def hf_internvl(clip: ClipFacts, wish: Wish) -> list[int]:
    """The same, begun half a step later: the middle of each part."""
    count = _hf_count(clip, wish)
    step = clip.num_frames / count
    return kept(clip, arange_float32(clip.num_frames / count / 2, clip.num_frames, step))


def hf_smolvlm(clip: ClipFacts, wish: Wish) -> list[int]:
    """``fps`` frames a second, ``max_frames`` at most; of long clips the first and the last second are left out."""
    fps, most = wish.fps or 1.0, wish.max_frames or 64
    count = max(1, min(round(fps * clip.duration_seconds), most))
    first, last = 0, clip.num_frames - 1
    if clip.duration_seconds - 2 > most * fps:
        first, last = int(clip.fps), min(int(clip.num_frames - clip.fps), last)
    if first >= last:
        first, last = 0, clip.num_frames - 1
    return unique(truncated(first, last, count))


def openpangu(clip: ClipFacts, wish: Wish) -> list[int]:
    """Frames nearest to moments ``1 / fps`` apart, or further where they would be more than ``num_frames``."""
    seconds = (clip.num_frames - 1) / clip.fps
    fps, count = wish.fps or 2.0, wish.num_frames or wish.max_frames or _DEFAULT_NUM_FRAMES
    if count >= int(seconds * fps) + 1:
        count = int(seconds * fps) + 1
        seconds = min(seconds, (count - 1) / fps)
    return [min(clip.num_frames - 1, round(moment * clip.fps)) for moment in linspace(0, seconds, count)]


def molmo2(clip: ClipFacts, wish: Wish) -> list[int]:
    """``uniform_last_frame``: ``fps`` frames a second and the last one; spread evenly where they would be more than
    ``max_frames``."""
    fps, most = wish.fps or 2.0, wish.max_frames or _DEFAULT_NUM_FRAMES
    last = clip.num_frames - 1
    if last <= 1:
        return list(range(clip.num_frames))
    if clip.duration_seconds > (most - 1) / fps:
        return truncated(0, last, min(most, clip.num_frames))
    step = clip.fps / fps
    positions = [round(index * step) for index in range(math.ceil(last / step))]
    if positions[-1] != last:
        positions.append(last)
    return positions


def kept(clip: ClipFacts, positions: list[int]) -> list[int]:
    """Within the clip: float32 may name the frame after the last."""
    return [min(position, clip.num_frames - 1) for position in positions]


def _at_most(clip: ClipFacts, wish: Wish) -> int:
    return min(wish.num_frames or _DEFAULT_NUM_FRAMES, clip.num_frames)


def _vllm_count(clip: ClipFacts, wish: Wish) -> int:
    most = wish.max_frames if wish.fps is not None else wish.num_frames or _DEFAULT_NUM_FRAMES
    count = min(most or clip.num_frames, clip.num_frames)
    if wish.fps is not None:
        count = min(count, math.floor(clip.duration_seconds * wish.fps))
    return max(1, count)


def _dynamo_count(clip: ClipFacts, wish: Wish) -> int:
    count = wish.num_frames or clip.num_frames
    if wish.fps is not None:
        count = int(clip.duration_seconds * wish.fps)
    count = max(1, min(count, wish.max_frames or count))
    refuse_more_than(clip, count)
    return count


def _hf_count(clip: ClipFacts, wish: Wish) -> int:
    if wish.num_frames is None and wish.fps is None:
        raise InvalidOptions("this sampler has no default: give num_frames or fps")
    count = wish.num_frames if wish.fps is None else int(clip.num_frames / clip.fps * wish.fps)
    refuse_more_than(clip, require_frames(count or 0))
    return count or 0
