"""From an image's size to its views, for families that cut it into tiles: one function a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.presets import grids
from gpuflow.presets.sizes import by_longest_edge
from gpuflow.presets.tile_tokens import RULES as TOKEN_RULES
from gpuflow.presets.view import Levels, Size, View, centred

if TYPE_CHECKING:
    from gpuflow.presets.image import Preset

MAX_TILES = 64
MIN_PHI4_SIDE = 10
WHITE: Levels = (255, 255, 255)
_ANYWHERE = ("", "first", "last", "overview")
_THUMBNAILS = {
    **dict.fromkeys(("pinpoints", "closest_ratio", "best_fit", "covering"), _ANYWHERE),
    "pan_and_scan": ("", "first"),
    "splitting": ("", "last"),
}


def check_tiles(preset: Preset) -> None:
    """Hold a preset to what can be planned: grids come from files that others wrote.

    Raises:
        InvalidOptions: more tiles than ``MAX_TILES``, or a grid that the rule does not take.
    """
    if not 1 <= preset.min_tiles <= MAX_TILES or not 1 <= preset.max_tiles <= MAX_TILES:
        raise InvalidOptions(f"preset: min_tiles and max_tiles lie in 1 .. {MAX_TILES}; got {preset.max_tiles}")
    if preset.rule == "pinpoints" and not (
        0 < len(preset.grid) <= MAX_TILES and all(map(_pinpoint(preset), preset.grid))
    ):
        raise InvalidOptions(f"preset: a grid holds 1 .. {MAX_TILES} sizes, each of at most {MAX_TILES} whole tiles")
    if preset.thumbnail not in _THUMBNAILS.get(preset.rule, ("",)):
        raise InvalidOptions(f"preset: rule {preset.rule!r} has no thumbnail {preset.thumbnail!r}")
    if preset.rule == "pan_and_scan" and preset.min_crop < preset.max_tiles:
        raise InvalidOptions(f"preset: min_crop is max_tiles or more; got {preset.min_crop}")
    if preset.tokens in TOKEN_RULES and not 0 < preset.patch <= min(preset.size):
        raise InvalidOptions(f"preset: patch lies in 1 .. size where it decides the tokens; got {preset.patch}")
    if preset.rule == "splitting":
        if not 0 < preset.edge <= 4_096 or preset.size[0] != preset.size[1]:
            raise InvalidOptions(f"preset: edge lies in 1 .. 4096, and tiles are square; got {preset.edge}")
        if preset.max_tiles not in (1, (-(-preset.edge // preset.size[0])) ** 2):
            raise InvalidOptions(f"preset: max_tiles is 1, or what edge needs; got {preset.max_tiles}")


def _pinpoint(preset: Preset) -> Callable[[Size], bool]:
    height, width = preset.size

    def whole(canvas: Size) -> bool:
        down, across = canvas[0] // height, canvas[1] // width
        return canvas == (down * height, across * width) and 0 < down * across <= MAX_TILES

    return whole


def _pinpoints(preset: Preset, height: int, width: int) -> tuple[View, ...]:
    """LLaVA-NeXT and LLaVA-OneVision: in the middle of the best of some canvases."""
    canvas = grids.best_pinpoint(height, width, preset.grid)
    resized = grids.fitted_up(height, width, canvas)
    return _with_whole(preset, View(resized, canvas, centred(resized, canvas), tile=preset.size))


def _closest_ratio(preset: Preset, height: int, width: int) -> tuple[View, ...]:
    """InternVL and Aya Vision: stretched to the grid of the closest ratio."""
    grid = grids.closest_ratio(height, width, tile=preset.size, least=preset.min_tiles, most=preset.max_tiles)
    canvas = _canvas(preset, grid)
    return _with_whole(preset, View(canvas, canvas, tile=preset.size))


def _pan_and_scan(preset: Preset, height: int, width: int) -> tuple[View, ...]:
    """Gemma 3: the whole image, then crops of it along its longer side; the last one may be smaller."""
    crops = grids.crops_along(
        max(height, width),
        min(height, width),
        min_crop=preset.min_crop,
        max_crops=preset.max_tiles,
        min_ratio=preset.min_ratio,
    )
    whole, size = View(preset.size, preset.size), preset.size
    boxes = _boxes(height, width, crops) if crops else ()
    return (whole, *(View(size, size, box=box, first=place) for place, box in enumerate(boxes, 1)))


def _boxes(height: int, width: int, crops: int) -> tuple[tuple[int, int, int, int], ...]:
    step = -(-max(height, width) // crops)
    if width >= height:
        return tuple((0, at, height, min(step, width - at)) for at in range(0, crops * step, step))
    return tuple((at, 0, min(step, height - at), width) for at in range(0, crops * step, step))


def _best_fit(preset: Preset, height: int, width: int) -> tuple[View, ...]:
    """Llama 4: at the top left of the best canvas, never enlarged beyond one tile."""
    canvas = _canvas(preset, grids.best_fit(height, width, tile=preset.size, most=preset.max_tiles))
    most = preset.size[0]
    within = min(max(height, most), canvas[0]), min(max(width, most), canvas[1])
    fitted = grids.fitted_down(height, width, within)
    return _with_whole(preset, View((max(1, fitted[0]), max(1, fitted[1])), canvas, tile=preset.size))


def _covering(preset: Preset, height: int, width: int) -> tuple[View, ...]:
    """Phi-4-multimodal: at the top left of as many tiles as cover it, on white."""
    canvas = _canvas(preset, grids.covering(height, width, tile=preset.size, most=preset.max_tiles))
    resized = grids.fitted_down(height, width, canvas)
    if min(resized) < MIN_PHI4_SIDE:
        raise LimitExceeded(f"{width}x{height} is too thin for preset {preset.name!r}")
    return _with_whole(preset, View(resized, canvas, tile=preset.size, around=WHITE))


def _splitting(preset: Preset, height: int, width: int) -> tuple[View, ...]:
    """Idefics3 and SmolVLM: to ``edge``, to whole tiles, and these shrunk again to one."""
    passage = by_longest_edge(height, width, preset.edge)
    if preset.max_tiles == 1:
        return (View(preset.size, preset.size, via=(passage,)),)
    canvas = grids.whole_tiles(*passage, preset.size[0])
    tiled = View(canvas, canvas, via=(passage,), tile=preset.size)
    if tiled.num_tiles == 1:
        return (tiled,)
    return (tiled, View(preset.size, preset.size, via=(passage, canvas), first=tiled.num_tiles))


def _with_whole(preset: Preset, tiled: View) -> tuple[View, ...]:
    """The tiles, with the whole image resized to one tile before or after them."""
    if preset.thumbnail == "overview":
        return (replace(tiled, first=1),)
    whole = View(preset.size, preset.size)
    if preset.thumbnail == "first":
        return (whole, replace(tiled, first=1))
    if preset.thumbnail == "last" and tiled.num_tiles > 1:
        return (tiled, replace(whole, first=tiled.num_tiles))
    return (tiled,)


def _canvas(preset: Preset, grid: Size) -> Size:
    return grid[0] * preset.size[0], grid[1] * preset.size[1]


RULES: dict[str, Callable[[Preset, int, int], tuple[View, ...]]] = {
    "pinpoints": _pinpoints,
    "closest_ratio": _closest_ratio,
    "pan_and_scan": _pan_and_scan,
    "best_fit": _best_fit,
    "covering": _covering,
    "splitting": _splitting,
}
