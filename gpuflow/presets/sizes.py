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
    given = f"{width}x{height}"
    if height < factor or width < factor:
        grow = max(factor / height, factor / width)
        height, width = int(height * grow), int(width * grow)
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise LimitExceeded(f"{given}: one side may be {MAX_ASPECT_RATIO} times the other for this preset")
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


def by_patch_budget(height: int, width: int, *, patch: int, max_patches: int) -> tuple[int, int]:
    """The largest scale, by bisection, at which both sides rounded up to multiples of ``patch`` hold ``max_patches``
    patches at most. Source: SigLIP 2's NaFlex processor, its bounds and its precision."""

    def scaled(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(side * scale / patch)) for side in (height, width))
        return rows * patch, columns * patch

    least, most = 1e-6, 100.0
    while most - least >= 1e-5:
        scale = (least + most) / 2
        rows, columns = (side // patch for side in scaled(scale))
        least, most = (scale, most) if rows * columns <= max_patches else (least, scale)
    return scaled(least)


def by_token_budget(height: int, width: int, *, patch: int, merge: int, max_patches: int) -> tuple[int, int]:
    """Both sides are rounded down to multiples of ``patch * merge`` at the scale that makes ``max_patches`` patches; of a
    strip, the short side is one multiple and the long one as many as the ratio and the budget allow.

    Source: Gemma 4's processor.

    Raises:
        LimitExceeded: the budget holds no square of ``merge * merge``.
    """
    factor = patch * merge
    scale = math.sqrt(max_patches * patch**2 / (height * width))
    rows, columns = (math.floor(scale * side / factor) for side in (height, width))
    most = max_patches // merge**2
    if most < 1:
        raise LimitExceeded(f"{width}x{height}: {max_patches} patches of {patch} do not hold one square of {factor}")
    if rows == 0:
        rows, columns = 1, min(width // height, most)
    elif columns == 0:
        rows, columns = min(height // width, most), 1
    return rows * factor, columns * factor


def within_size(height: int, width: int, *, most: tuple[int, int], factor: int) -> tuple[int, int]:
    """Shrunk, rounded down, to lie within ``most``, (height, width), then up to multiples of ``factor``.

    Source: Pixtral's processor.

    Raises:
        LimitExceeded: so narrow that nothing of it is left.
    """
    shrink = max(height / most[0], width / most[1])
    sides = (height, width)
    if shrink > 1:
        sides = (math.floor(height / shrink), math.floor(width / shrink))
    if min(sides) < 1:
        raise LimitExceeded(f"{width}x{height}: within {most[1]}x{most[0]} one side of it is less than a pixel")
    return -(-sides[0] // factor) * factor, -(-sides[1] // factor) * factor
