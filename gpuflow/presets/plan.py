"""What will come out of an image or a clip, known from its header before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from gpuflow.config import Resample
from gpuflow.errors import InvalidOptions
from gpuflow.media import block_bytes, lay_out
from gpuflow.presets.beside import Beside, beside_of
from gpuflow.presets.image import Normalization, Passes, Preset, Reference
from gpuflow.presets.rules import views_of
from gpuflow.presets.tokens import num_tokens
from gpuflow.presets.view import Size, View, centred
from gpuflow.values import shown

Levels = tuple[float, float, float]
MAX_SIDE = 1 << 20


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What becomes of an image, or of each frame of a clip: ``views``, levels turned into numbers, a layout.

    ``size``: of the image that is planned for, (height, width). ``pixels``: ``(name, dtype, shape)``.
    ``mean`` and ``std`` in units of 0..1; ``None`` leaves the levels 0..255. ``normalization``: ``"fused"`` is
    ``(level - 255 * mean) / (255 * std)`` in float32, ``"scale"`` is ``level * (1 / 255)``, ``"two_steps"`` is
    ``(level * (1 / 255) - mean) / std`` as Pillow-backed processors round it, ``"bfloat16"`` is what Llama 4's computes.
    ``layout``: ``"patches"`` has one row a patch, ``merge * merge`` neighbours after one another, each
    ``(3, temporal_patch, patch, patch)``; ``"patches_last"`` the same with ``(patch, patch, 3)``. Rows and tiles that no
    view fills are zeros. ``grid``: patches in time, height and width. ``overview``: the first tile is none of the views but
    the whole normalised canvas of the last one, resized to this size in float32, bicubic without antialiasing.
    ``num_frames``: of a clip, those that repeat the last one included.
    """

    size: Size
    views: tuple[View, ...]
    pixels: tuple[str, str, tuple[int, ...]]
    layout: Literal["HWC", "CHW", "patches", "patches_last"]
    resample: Resample
    reference: Reference = "torchvision"
    passes: Passes = "horizontal_first"
    mean: Levels | None = None
    std: Levels | None = None
    normalization: Normalization = "fused"
    patch: int = 0
    merge: int = 1
    temporal_patch: int = 1
    grid: tuple[int, int, int] | None = None
    beside: tuple[Beside, ...] = ()
    overview: Size | None = None
    num_tokens: int | None = None
    num_frames: int = 1

    @property
    def dtype(self) -> str:
        """Type of the pixels."""
        return self.pixels[1]

    @property
    def outputs(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """``(name, dtype, shape)`` of every tensor, the pixels first."""
        return (self.pixels, *((beside.name, beside.dtype, beside.shape) for beside in self.beside))

    @property
    def nbytes(self) -> int:
        """Bytes of the block that all tensors lie in."""
        return block_bytes(lay_out({name: (dtype, shape) for name, dtype, shape in self.outputs}))

    @property
    def num_tiles(self) -> int:
        """Tiles of all views, the overview included."""
        return sum(view.num_tiles for view in self.views) + (self.overview is not None)


def plan(preset: Preset, height: int, width: int, *, dtype: str | None = None, normalize: bool = True) -> ImagePlan:
    """What a preset makes of an image of this size: shapes, tokens and memory, before anything is decoded.

    Args:
        preset: a built-in one (``image_preset``) or one's own.
        height, width: of the image as it is shown, turned by its orientation, in pixels.
        dtype: of the pixels, ``"float32"``, ``"float16"`` or ``"bfloat16"``; the preset's own by default.
        normalize: ``False`` keeps uint8 levels in the preset's layout, for servers that normalise themselves.

    Raises:
        LimitExceeded: a shape that the family refuses.
        InvalidOptions: a preset of videos, or a size that no image has.
    """
    check_size(height, width)
    if preset.modality != "image":
        raise InvalidOptions(f"preset {preset.name!r} is of videos, and this is an image")
    views = views_of(preset, height, width)
    grid, shape = _arrangement(preset, views)
    wanted = ImagePlan(
        size=(height, width),
        views=views,
        pixels=(preset.pixels, (dtype or preset.dtype) if normalize else "uint8", shape),
        layout=preset.layout if preset.layout != "image" else "CHW",
        resample=preset.resample,
        reference=preset.reference,
        passes=preset.passes,
        mean=preset.mean if normalize else None,
        std=preset.std if normalize else None,
        normalization=preset.normalization,
        patch=preset.patch,
        merge=preset.merge,
        temporal_patch=preset.temporal_patch,
        grid=grid,
        overview=preset.size if preset.thumbnail == "overview" else None,
    )
    wanted = replace(wanted, beside=beside_of(preset.beside, wanted))
    return replace(wanted, num_tokens=num_tokens(preset, wanted))


def check_size(height: object, width: object) -> None:
    """Raise ``InvalidOptions`` for what is no image's size."""
    for name, side in (("height", height), ("width", width)):
        if not isinstance(side, int) or isinstance(side, bool) or not 0 < side <= MAX_SIDE:
            raise InvalidOptions(f"{name} is a whole number of pixels, 1 .. {MAX_SIDE}; got {shown(side)}")


def _arrangement(preset: Preset, views: tuple[View, ...]) -> tuple[tuple[int, int, int] | None, tuple[int, ...]]:
    """The grid of patches, where there is one, and the shape of the pixels, the batch's 1 before it."""
    canvas = views[0].canvas
    if preset.layout == "image":
        tiles = sum(view.num_tiles for view in views) + (preset.thumbnail == "overview")
        shape = (3, *(views[0].tile or canvas))
        return None, (1, tiles, *shape) if preset.tiled else (tiles, *shape)
    rows, columns = (side // preset.patch for side in canvas)
    row_size = 3 * preset.temporal_patch * preset.patch**2
    if preset.layout == "patches":
        return (1, rows, columns), (rows * columns, row_size)
    return (1, rows, columns), (1, max(preset.max_patches, rows * columns), row_size)


def plan_video(
    preset: Preset, num_frames: int, height: int, width: int, *, dtype: str = "float32", normalize: bool = True
) -> ImagePlan:
    """What a video preset makes of so many frames of this size.

    Raises:
        LimitExceeded: a shape that the family refuses.
        InvalidOptions: too few frames for it.
    """
    resized = preset.resized(height, width, num_frames)
    canvas = preset.crop or resized
    patches = preset.layout == "patches"
    frames = -(-num_frames // preset.temporal_patch) * preset.temporal_patch if patches else num_frames
    rows, columns = (side // preset.patch if patches else 0 for side in canvas)
    grid = (frames // preset.temporal_patch, rows, columns)
    row_size = 3 * preset.temporal_patch * preset.patch**2
    shape = (math.prod(grid), row_size) if patches else (1, frames, 3, *canvas)
    passage = preset.passage(height, width)
    name = "pixel_values" if preset.mask else "pixel_values_videos"
    return ImagePlan(
        size=(height, width),
        views=(View(resized, canvas, centred(resized, canvas), via=(passage,) if passage else ()),),
        pixels=(name, dtype if normalize else "uint8", shape),
        layout="patches" if patches else "CHW",
        resample=preset.resample,
        mean=preset.mean if normalize else None,
        std=preset.std if normalize else None,
        patch=preset.patch,
        merge=preset.merge,
        temporal_patch=preset.temporal_patch,
        grid=grid if patches else None,
        beside=tuple(_beside(preset, frames, canvas)),
        num_tokens=math.prod(grid) // preset.merge**2 if patches else None,
        num_frames=frames,
    )


def _beside(preset: Preset, frames: int, canvas: tuple[int, int]) -> Iterator[Beside]:
    """The tensors beside the pixels of a clip."""
    if preset.layout == "patches":
        yield Beside("video_grid_thw", "grid", "int64", (1, 3))
    if preset.grid_seconds:
        yield Beside("second_per_grid_ts", "grid_seconds", "float32", (1,))
    if preset.mask:
        yield Beside("pixel_attention_mask", "ones", "int64", (1, frames, *canvas))


def plan_plain(
    height: int,
    width: int,
    *,
    size: int | tuple[int, int] | None = None,
    resample: Resample = "bicubic",
    reference: Reference = "torchvision",
    layout: Literal["HWC", "CHW"] = "HWC",
    dtype: str = "uint8",
) -> ImagePlan:
    """An image without a preset: resized to ``size`` whatever its ratio; levels 0..255 as uint8, 0..1 as any float.

    Raises:
        InvalidOptions: a size that no image has.
    """
    check_size(height, width)
    resized = (height, width) if size is None else (size, size) if isinstance(size, int) else size
    shape = (*resized, 3) if layout == "HWC" else (3, *resized)
    scaled = dtype != "uint8"
    return ImagePlan(
        size=(height, width),
        views=(View(resized, resized),),
        pixels=("image", dtype, shape),
        layout=layout,
        resample=resample,
        reference=reference,
        passes="pillow" if reference == "pillow" else "horizontal_first",
        mean=(0.0, 0.0, 0.0) if scaled else None,
        std=(1.0, 1.0, 1.0) if scaled else None,
    )
