"""Values of Hugging Face's processor configurations: sizes, filters, statistics; checked, because they come from files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpuflow.errors import InvalidOptions
from gpuflow.values import shown

Config = Mapping[str, Any]
AROUND = "processor"
"""Where a reader finds the settings of the processor that an image processor belongs to."""
RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
LANCZOS = 1
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_MOST = 1 << 40


def size_rule(size: Any, *, shortest: bool) -> tuple[str, tuple[int, int]]:
    """The size rule and its numbers; a bare number is the shortest edge, or both sides."""
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        size, shortest = size["shortest_edge"], True
    elif isinstance(size, (Mapping, list, tuple)):
        shortest = False
    return "shortest_edge" if shortest else "fixed", pair(size)


def pair(size: Any, name: str = "size") -> tuple[int, int]:
    """``(height, width)`` of a mapping or a list, or of one number for both."""
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return whole_number(size[0], f"{name}: height"), whole_number(size[1], f"{name}: width")
    if isinstance(size, Mapping):
        if set(size) != {"height", "width"}:
            raise InvalidOptions(
                f"{name} holds height and width, or of some processors shortest_edge; got {shown(list(size))}"
            )
        return whole_number(size["height"], f"{name}: height"), whole_number(size["width"], f"{name}: width")
    side = whole_number(size, name)
    return side, side


def whole_number(value: Any, name: str) -> int:
    """``value``, where it is a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MOST:
        got = "it is left out" if value is None else f"got {shown(value)}"
        raise InvalidOptions(f"{name} is a whole number above 0; {got}")
    return value


def filter_name(values: Config, default: int) -> str:
    """The filter by Pillow's number."""
    number = values.get("resample", default)
    if isinstance(number, bool) or not isinstance(number, int) or number not in RESAMPLE:
        raise InvalidOptions(f"resample is 1 (Lanczos), 2 (bilinear) or 3 (bicubic) here; got {shown(number)}")
    return RESAMPLE[number]


def statistics(values: Config, mean: list[float], std: list[float]) -> dict[str, Any]:
    """``mean`` and ``std``, the given ones where there are none; without ``do_normalize`` levels are only scaled."""
    if not values.get("do_normalize", True):
        return {"mean": (0.0,) * 3, "std": (1.0,) * 3, "normalization": "scale"}
    return {"mean": _three(values, "image_mean", mean), "std": _three(values, "image_std", std)}


def patch_size(values: Config, default: int) -> int:
    """The side of a patch, which some files give as height and width."""
    height, width = pair(values.get("patch_size", default), "patch_size")
    if height != width:
        raise InvalidOptions(f"patch_size is a square here; got {shown(values['patch_size'])}")
    return height


def image_tokens(values: Config, default: int = 0) -> dict[str, Any]:
    """The rule of tokens where each image takes as many, which the image processor or the one around it says."""
    count = around(values).get("image_seq_length") or values.get("image_seq_length") or default
    return {"tokens": "tiles", "tile_tokens": whole_number(count, "image_seq_length")} if count else {}


def around(values: Config) -> Config:
    """The settings of the processor that the image processor belongs to; empty where they are not known."""
    found: Config = values.get(AROUND) or {}
    return found


def refuse(values: Config, *names: str) -> None:
    """Raise ``InvalidOptions`` where a step is asked for that a preset does not express."""
    for name in names:
        if values.get(name):
            raise InvalidOptions(f"{name}={shown(values[name])} is not supported for this processor")


def _three(values: Config, name: str, default: list[float]) -> tuple[float, ...]:
    numbers = values.get(name, default)
    valid = isinstance(numbers, (list, tuple)) and len(numbers) == 3
    if not valid or not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise InvalidOptions(f"{name} is a list of three numbers; got {shown(numbers)}")
    return tuple(float(number) for number in numbers)
