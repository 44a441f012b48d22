"""The form that pictures of a clip are wanted in: size, layout and type of one tensor, and where in it a picture lies."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Resample
from gpuflow.errors import InvalidOptions
from gpuflow.media import ITEM_BYTES
from gpuflow.ops.frames import bfloat16_bits

Layout = Literal["HWC", "CHW", "patches"]
Levels = tuple[float, float, float]
_COLUMNS = {"HWC": 1, "CHW": 2}
_CHANNELS = {"HWC": 2, "CHW": 0}


@dataclass(frozen=True, slots=True)
class Form:
    """Resize to ``size``, crop or pad to ``canvas`` (both height, width), turn levels into numbers, lay out.

    ``mean`` and ``std`` in units of 0..1, for float types: ``(level - 255 * mean) / (255 * std)``; ``None`` leaves the
    levels 0..255. ``layout="patches"`` is Hugging Face's ``pixel_values_videos``: one row a patch, ``merge * merge``
    neighbours after one another, each ``(3, temporal_patch, patch, patch)``; a clip that does not fill its last row
    repeats its last picture there.

    Raises:
        InvalidOptions: values that contradict each other.
    """

    size: tuple[int, int]
    canvas: tuple[int, int] = (0, 0)
    resample: Resample = "bicubic"
    layout: Layout = "HWC"
    dtype: str = "uint8"
    mean: Levels | None = None
    std: Levels | None = None
    patch: int = 1
    merge: int = 1
    temporal_patch: int = 1

    def __post_init__(self) -> None:
        if self.canvas == (0, 0):
            object.__setattr__(self, "canvas", self.size)
        _require(self.dtype in ("uint8", "float16", "bfloat16", "float32"), "a picture has no such type", self.dtype)
        _require(min(*self.size, *self.canvas, self.patch, self.merge, self.temporal_patch) > 0, "above 0", self)
        _require((self.mean is None) == (self.std is None), "mean and std go together", (self.mean, self.std))
        if self.mean is not None and self.std is not None:
            _require(self.dtype != "uint8", "uint8 has no mean and std", self.dtype)
            single = 255 * np.array([self.mean, self.std], np.float32)
            _require(bool(np.isfinite(single).all() and single[1].min() > 0), "finite, std above 0", single)
        factor = self.patch * self.merge if self.layout == "patches" else 1
        _require(not any(side % factor for side in self.canvas), f"sides are multiples of {factor}", self.canvas)

    @property
    def number_bytes(self) -> int:
        """Bytes of one number of the result."""
        return ITEM_BYTES[self.dtype]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.canvas[0] // self.patch, self.canvas[1] // self.patch

    def times(self, num_frames: int) -> int:
        """How many pictures the tensor holds; more than ``num_frames`` where the last patches repeat the last one."""
        each = self.temporal_patch if self.layout == "patches" else 1
        return -(-num_frames // each) * each

    def shape(self, num_frames: int) -> tuple[int, ...]:
        """Of the whole tensor: ``(T, H, W, 3)``, ``(T, 3, H, W)`` or ``(patches, 3 * temporal_patch * patch**2)``."""
        if self.layout == "patches":
            rows = self.times(num_frames) // self.temporal_patch * math.prod(self.grid)
            return (rows, 3 * self.temporal_patch * self.patch**2)
        return (num_frames, *self.canvas, 3) if self.layout == "HWC" else (num_frames, 3, *self.canvas)

    @property
    def place_shape(self) -> tuple[int, ...]:
        """Of one picture's place; see ``place``."""
        (down, across), merge, patch = self.grid, self.merge, self.patch
        if self.layout == "patches":
            return (down // merge, across // merge, merge, merge, 3, patch, patch)
        return (*self.canvas, 3) if self.layout == "HWC" else (3, *self.canvas)

    def place(self, tensor: Any, time: int) -> Any:
        """Where picture ``time`` lies in the tensor, numpy or CuPy, as a view.

        ``(H, W, 3)``, ``(3, H, W)``, or patches: ``(H / p / m, W / p / m, m, m, 3, p, p)``.
        """
        if self.layout != "patches":
            return tensor[time]
        *blocks, row, column = self.place_shape
        clips = tensor.reshape(-1, *blocks, self.temporal_patch, row, column)
        return clips[time // self.temporal_patch, :, :, :, :, :, time % self.temporal_patch]

    def numbers(self) -> NDArray[Any] | None:
        """``(3, 256)``: what each level of each channel becomes, bfloat16 as its bits; ``None``: levels stay as they are.

        float32 throughout, rounded to nearest at the end, as Hugging Face's processors and torch do.
        """
        if self.dtype == "uint8":
            return None
        values = np.broadcast_to(np.arange(256, dtype=np.float32), (3, 256))
        if self.mean is not None and self.std is not None:
            mean, std = (np.array(part, np.float32)[:, None] * np.float32(255) for part in (self.mean, self.std))
            values = (values - mean) / std
        values = np.ascontiguousarray(values)
        if self.dtype == "bfloat16":
            rounded: NDArray[Any] = bfloat16_bits(values)
            return rounded
        with np.errstate(over="ignore"):  # a level that float16 does not reach is infinite, as in torch
            return values.astype(self.dtype)


@functools.lru_cache(maxsize=32)
def offsets(form: Form, strides: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where pixels lie in a picture's place: numbers from its first one by row, by column, and from channel to channel.

    ``strides``: the place's own, in bytes. Every layout is such a sum.

    Raises:
        InvalidOptions: they do not fall on numbers.
    """
    _require(not any(stride % form.number_bytes for stride in strides), "strides are whole numbers", strides)
    steps = [stride // form.number_bytes for stride in strides]
    height, width = (np.arange(side, dtype=np.int64) for side in form.canvas)
    if form.layout == "patches":
        down, across, lower, righter, channel, row, column = steps
        return _blocks(height, form, (down, lower, row)), _blocks(width, form, (across, righter, column)), channel
    column, channel = steps[_COLUMNS[form.layout]], steps[_CHANNELS[form.layout]]
    return height * steps[1 if form.layout == "CHW" else 0], width * column, channel


def _blocks(side: NDArray[np.int64], form: Form, steps: tuple[int, int, int]) -> NDArray[np.int64]:
    patches, within = np.divmod(side, form.patch)
    block, neighbour = np.divmod(patches, form.merge)
    return np.asarray(block * steps[0] + neighbour * steps[1] + within * steps[2], np.int64)


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise InvalidOptions(f"the form of a picture: {rule}; got {got}")
