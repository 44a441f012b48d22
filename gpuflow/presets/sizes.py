"""Size rules: the size that a model family resizes an image to. Whole numbers in, whole numbers out."""

from __future__ import annotations

import math

from gpuflow.errors import InvalidOptions, LimitExceeded

MAX_ASPECT_RATIO = 200


def by_shortest_edge(height: int, width: int, edge: int) -> tuple[int, int]:
    """The shorter side becomes ``edge``, the longer one keeps the ratio, rounded down. Source: CLIP's processor."""
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def by_longest_edge(height: int, width: int, edge: int) -> tuple[int, int]:
    """The longer side becomes ``edge``, the shorter one keeps the ratio, rounded down and made even.

    Source: SmolVLM's video processor.
    """
    ratio = width / height
    shorter = int(edge / ratio) if width >= height else int(edge * ratio)
    shorter = max(1, shorter + shorter % 2)
    return (shorter, edge) if width >= height else (edge, shorter)


def by_volume_budget(
    num_frames: int, height: int, width: int, *, factor: int, temporal: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """As ``by_pixel_budget``, for the pixels of all frames together; frames count in multiples of ``temporal``.

    Source: GLM-4V's and Qwen3-VL's video processors.

    Raises:
        InvalidOptions: fewer frames than ``temporal``.
        LimitExceeded: one side is more than 200 times the other.
    """
    if num_frames < temporal:
        raise InvalidOptions(f"this preset needs {temporal} frames or more; there is {num_frames}")
    if height < factor or width < factor:
        grow = max(factor / height, factor / width)
        height, width = int(height * grow), int(width * grow)
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise LimitExceeded(f"{width}x{height}: one side may be {MAX_ASPECT_RATIO} times the other for this preset")
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    pixels = round(num_frames / temporal) * temporal * new_height * new_width
    if pixels > max_pixels:
        shrink = math.sqrt(num_frames * height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif pixels < min_pixels:
        grow = math.sqrt(min_pixels / (num_frames * height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def by_pixel_budget(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Both sides become multiples of ``factor``, their product lies in the budget, the ratio is nearly kept.

    Rounding is Python's, half to even. Source: Qwen2-VL's processor.

    Raises:
        LimitExceeded: one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise LimitExceeded(f"{width}x{height}: one side may be {MAX_ASPECT_RATIO} times the other for this preset")
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width
