"""Values of Hugging Face's processor configurations: sizes, filters, statistics; checked, because they come from files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuflow.errors import InvalidOptions

Config = Mapping[str, Any]
RESAMPLE = {2: "bilinear", 3: "bicubic"}
LANCZOS = 1
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def size_rule(size: Any, *, shortest: bool) -> tuple[str, tuple[int, int]]:
    """The size rule and its numbers; a bare number is the shortest edge, or both sides."""
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        size, shortest = size["shortest_edge"], True
    elif isinstance(size, Mapping):
        shortest = False
    return "shortest_edge" if shortest else "fixed", pair(size)


def pair(size: Any) -> tuple[int, int]:
    """``(height, width)`` of a mapping, or of one number for both."""
    if isinstance(size, Mapping):
        if set(size) != {"height", "width"}:
            raise InvalidOptions(f"a size holds height and width, or shortest_edge; got {sorted(map(str, size))}")
        return whole_number(size["height"], "height"), whole_number(size["width"], "width")
    return whole_number(size, "size"), whole_number(size, "size")


def whole_number(value: Any, name: str) -> int:
    """``value``, where it is a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InvalidOptions(f"{name} is a whole number above 0; got {value!r}")
    return value


def filter_name(values: Config, default: int) -> str:
    """The filter by Pillow's number."""
    number = values.get("resample", default)
    if number not in RESAMPLE:
        raise InvalidOptions(f"resample is 2 (bilinear) or 3 (bicubic) here; got {number!r}")
    return RESAMPLE[number]


def statistics(values: Config, mean: list[float], std: list[float]) -> dict[str, tuple[float, ...]]:
    """``mean`` and ``std``, the given ones where there are none."""
    try:
        return {
            "mean": tuple(float(value) for value in values.get("image_mean") or mean),
            "std": tuple(float(value) for value in values.get("image_std") or std),
        }
    except (TypeError, ValueError) as error:
        raise InvalidOptions("image_mean and image_std are lists of three numbers") from error
