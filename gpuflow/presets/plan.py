"""What will come out of an image or a clip, known from its header before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gpuflow.config import Resample
from gpuflow.errors import InvalidOptions
from gpuflow.presets.image import Preset

Levels = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """Resize to ``resized``, crop or pad to ``canvas`` (both height, width), turn levels into numbers, lay out.

    ``mean`` and ``std`` in units of 0..1; ``None`` leaves the levels 0..255. ``outputs``: ``(name, dtype, shape)`` of
    every tensor, the pixels first. ``grid``: patches in time, height and width where the layout is ``"patches"``.
    ``passage``: a size to resize to on the way. ``num_frames``: of a clip, those that repeat the last one included.
    """

    resized: tuple[int, int]
    canvas: tuple[int, int]
    resample: Resample
    layout: Literal["HWC", "CHW", "patches"]
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    mean: Levels | None = None
    std: Levels | None = None
    patch: int = 0
    merge: int = 1
    temporal_patch: int = 1
    grid: tuple[int, int, int] | None = None
    num_tokens: int | None = None
    passage: tuple[int, int] | None = None
    num_frames: int = 1

    @property
    def dtype(self) -> str:
        """Type of the pixels."""
        return self.outputs[0][1]


def plan(preset: Preset, height: int, width: int, *, dtype: str = "float32", normalize: bool = True) -> ImagePlan:
    """What a preset makes of an image of this size. ``normalize=False`` keeps uint8 levels in the preset's layout.

    Raises:
        LimitExceeded: a shape that the family refuses.
        InvalidOptions: a preset of videos.
    """
    if preset.modality != "image":
        raise InvalidOptions(f"preset {preset.name!r} is of videos, and this is an image")
    resized = preset.resized(height, width)
    canvas = preset.crop or resized
    rows, columns = (side // preset.patch if preset.patch else 0 for side in canvas)
    patches = preset.layout == "patches"
    shape: tuple[int, ...] = (1, 3, *canvas)
    if patches:
        shape = (rows * columns, 3 * preset.temporal_patch * preset.patch**2)
    pixels = ("pixel_values", dtype if normalize else "uint8", shape)
    return ImagePlan(
        resized=resized,
        canvas=canvas,
        resample=preset.resample,
        layout="patches" if patches else "CHW",
        outputs=(pixels, ("image_grid_thw", "int64", (1, 3))) if patches else (pixels,),
        mean=preset.mean if normalize else None,
        std=preset.std if normalize else None,
        patch=preset.patch,
        merge=preset.merge,
        temporal_patch=preset.temporal_patch,
        grid=(1, rows, columns) if patches else None,
        num_tokens=rows * columns // preset.merge**2 if preset.patch else None,
    )


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
    name = "pixel_values" if preset.mask else "pixel_values_videos"
    return ImagePlan(
        resized=resized,
        canvas=canvas,
        resample=preset.resample,
        layout="patches" if patches else "CHW",
        outputs=((name, dtype if normalize else "uint8", shape), *_beside(preset, frames, canvas)),
        mean=preset.mean if normalize else None,
        std=preset.std if normalize else None,
        patch=preset.patch,
        merge=preset.merge,
        temporal_patch=preset.temporal_patch,
        grid=grid if patches else None,
        num_tokens=math.prod(grid) // preset.merge**2 if patches else None,
        passage=preset.passage(height, width),
        num_frames=frames,
    )


def _beside(preset: Preset, frames: int, canvas: tuple[int, int]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The tensors beside the pixels of a clip."""
    if preset.layout == "patches":
        yield "video_grid_thw", "int64", (1, 3)
    if preset.grid_seconds:
        yield "second_per_grid_ts", "float32", (1,)
    if preset.mask:
        yield "pixel_attention_mask", "int64", (1, frames, *canvas)


def plan_plain(
    height: int,
    width: int,
    *,
    size: int | tuple[int, int] | None = None,
    resample: Resample = "bicubic",
    layout: Literal["HWC", "CHW"] = "HWC",
    dtype: str = "uint8",
) -> ImagePlan:
    """An image without a preset: resized to ``size`` whatever its ratio; levels 0..255 as uint8, 0..1 as any float."""
    resized = (height, width) if size is None else (size, size) if isinstance(size, int) else size
    shape = (*resized, 3) if layout == "HWC" else (3, *resized)
    scaled = dtype != "uint8"
    return ImagePlan(
        resized=resized,
        canvas=resized,
        resample=resample,
        layout=layout,
        outputs=(("image", dtype, shape),),
        mean=(0.0, 0.0, 0.0) if scaled else None,
        std=(1.0, 1.0, 1.0) if scaled else None,
    )
