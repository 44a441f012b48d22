"""What a preset is: what a model family's image or video processor does, as data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from gpuflow.errors import InvalidOptions
from gpuflow.presets.hf import Processor, preset_fields
from gpuflow.presets.kinds import check_beside
from gpuflow.presets.sizes import (
    by_longest_edge,
    by_patch_budget,
    by_pixel_budget,
    by_shortest_edge,
    by_token_budget,
    by_volume_budget,
    within_size,
)
from gpuflow.presets.tiles import RULES as TILE_RULES
from gpuflow.presets.tiles import check_tiles
from gpuflow.presets.tokens import check_tokens
from gpuflow.values import check_fields, shown

Filter = Literal["bilinear", "bicubic", "lanczos"]
Reference = Literal["torchvision", "pillow"]
Passes = Literal["horizontal_first", "vertical_first", "pillow"]
Normalization = Literal["fused", "scale", "two_steps", "bfloat16"]
Rule = Literal[
    "fixed",
    "shortest_edge",
    "longest_edge",
    "within_size",
    "pixel_budget",
    "volume_budget",
    "patch_budget",
    "token_budget",
    "pinpoints",
    "closest_ratio",
    "pan_and_scan",
    "best_fit",
    "covering",
    "splitting",
]
VIDEO_RULES = ("longest_edge",)
IMAGE_RULES = ("within_size", "patch_budget", "token_budget", *TILE_RULES)
PIXEL_RULES = ("pixel_budget", "volume_budget")
PATCH_RULES = ("patch_budget", "token_budget")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
MIN_STD = 1e-20  # what is divided by less overflows float32, or is divided by 0
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise InvalidOptions(f"preset: {rule}; got {shown(got)}")


@dataclass(frozen=True, slots=True)
class Preset:
    """Resize, crop or pad, normalise, lay out.

    ``rule``: ``"fixed"`` resizes to ``size`` (height, width); ``"shortest_edge"`` to ``size[0]`` on the shorter side;
    ``"pixel_budget"`` to multiples of ``patch * merge`` within ``min_pixels`` and ``max_pixels``; ``"volume_budget"``
    likewise, for all frames of a clip together, or an image's ``temporal_patch``; ``"longest_edge"`` to ``edge`` on the
    longer side, then to ``size``; ``"within_size"`` down to ``size`` where it is larger, then up to multiples of
    ``patch * merge``; ``"patch_budget"`` to ``max_patches`` patches at most, rounded up; ``"token_budget"`` likewise,
    rounded down to multiples of ``patch * merge``. ``crop``: centred, padded with black where the image is smaller.

    Levels become ``(level / 255 - mean) / std``, rounded as ``normalization`` says (``ImagePlan``), or ``level / 255``
    (``"scale"``).

    ``resample`` by the integer tables of ``reference``, antialiased: ``"torchvision"`` is what Hugging Face's processors
    do by default, ``"pillow"`` what their Pillow backend does, and Lanczos always. ``passes``: which of the two comes
    first; ``"pillow"`` is Pillow 13's rule, by how many rows and columns are lost.

    ``layout``: ``"image"`` is ``pixel_values (1, 3, H, W)``, or ``(1, tiles, 3, H, W)`` where the family is ``tiled``;
    ``"patches"`` is one row a patch, ``merge * merge`` neighbours after one another, each ``(3, temporal_patch, patch,
    patch)`` with the picture repeated in time; ``"patches_last"`` is ``(1, rows, patch * patch * 3)``, row by row, each
    ``(patch, patch, 3)``, and at least ``max_patches`` of them. ``patch=0``: not the processor's business.

    ``pixels``: the name of the pixels. ``beside``: kinds of the small tensors beside them (``gpuflow.presets.beside``).
    ``tokens``: the rule of the number of placeholder tokens (``gpuflow.presets.tokens``), ``""`` where the processor does
    not decide it; ``tile_tokens``: of one tile. ``square``: padded to a square with the mean colour first.
    ``processor``: the class of ``transformers`` that this is, for the reader; it takes no part in comparisons.

    Families that cut images into tiles have rules of their own (``gpuflow.presets.tiles``); their tiles are of ``size``.
    ``tiled``: tiles have an axis of their own. ``grid``: canvases to choose from, of ``"pinpoints"``. ``min_tiles``,
    ``max_tiles``: bounds of the grid that is chosen, of ``"pan_and_scan"`` of the crops, which are made of images of
    ``min_ratio`` or more and are ``min_crop`` pixels or more; 1 keeps ``"splitting"`` from splitting. ``thumbnail``:
    where the whole image is shown beside its tiles.

    ``modality="video"``: the tensors are ``pixel_values_videos``, ``(1, T, 3, H, W)`` or rows of patches, whose last frame
    is repeated until ``temporal_patch`` divides their number, and ``video_grid_thw``. ``token_cap``: a further bound on
    pixels, ``cap_pixels_per_frame`` with that many ``max_video_tokens``; 0 is none. ``grid_seconds``: also
    ``second_per_grid_ts (1,)`` float32. ``mask``: ``pixel_values`` and ``pixel_attention_mask (1, T, H, W)`` int64 instead.

    Raises:
        InvalidOptions: values that contradict each other.
    """

    name: str
    rule: Rule
    resample: Filter = "bicubic"
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    size: tuple[int, int] = (0, 0)
    crop: tuple[int, int] | None = None
    min_pixels: int = 0
    max_pixels: int = 0
    patch: int = 0
    merge: int = 1
    temporal_patch: int = 1
    layout: Literal["image", "patches", "patches_last"] = "image"
    modality: Literal["image", "video"] = "image"
    edge: int = 0
    token_cap: int = 0
    grid_seconds: bool = False
    mask: bool = False
    reference: Reference = "torchvision"
    passes: Passes = "horizontal_first"
    normalization: Normalization = "fused"
    pixels: str = "pixel_values"
    beside: tuple[str, ...] = ()
    tokens: str = ""
    tile_tokens: int = 0
    max_patches: int = 0
    square: bool = False
    tiled: bool = False
    grid: tuple[tuple[int, int], ...] = ()
    min_tiles: int = 1
    max_tiles: int = 1
    min_crop: int = 0
    min_ratio: float = 1.0
    thumbnail: Literal["", "first", "last", "overview"] = ""
    processor: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        _require(
            self.patch >= 0 and self.merge > 0 and 0 < self.temporal_patch <= 64,
            "patch is 0 or more, merge above 0, temporal_patch in 1 .. 64",
            (self.patch, self.merge, self.temporal_patch),
        )
        _require(self.resample != "lanczos" or self.reference == "pillow", "Lanczos is Pillow's only", self.reference)
        _require(
            len(self.mean) == 3 and len(self.std) == 3 and min(self.std) >= MIN_STD,
            f"three means, three stds above 0, in float32 ({MIN_STD} or more)",
            self.std,
        )
        self._check_modality()
        self._check_sizes()
        if self.layout != "image":
            whole = self.rule in (*PIXEL_RULES, *(PATCH_RULES if self.layout == "patches_last" else ()))
            _require(whole and self.crop is None, "patches need a budget of pixels or patches and no crop", self.rule)
        check_beside(self)
        check_tokens(self)

    def _check_modality(self) -> None:
        video = self.modality == "video"
        _require(video or self.rule not in VIDEO_RULES, "only videos have that rule", self.rule)
        _require(not video or self.rule not in IMAGE_RULES, "only images have that rule", self.rule)
        _require(video or not (self.token_cap or self.grid_seconds or self.mask), "only videos have that", self.name)

    def _check_sizes(self) -> None:
        _require(self.token_cap >= 0, "token_cap is 0 or more", self.token_cap)
        _require(self.rule != "longest_edge" or 0 < self.edge <= 4_096, "edge lies in 1 .. 4096", self.edge)
        if self.rule in PIXEL_RULES:
            _require(0 < self.min_pixels <= self.max_pixels, "0 < min_pixels <= max_pixels", self.max_pixels)
        elif self.rule in PATCH_RULES:
            _require(0 < self.max_patches <= 1 << 20, "max_patches lies in 1 .. 2^20", self.max_patches)
        else:
            _require(all(0 < side <= 16_384 for side in self.size), "size lies in 1 .. 16384", self.size)
        if self.rule in (*PIXEL_RULES, *PATCH_RULES, "within_size"):
            _require(0 < self.patch <= 4_096 and self.merge <= 64, "patch in 1 .. 4096, merge in 1 .. 64", self.patch)
        if self.crop is not None:
            _require(all(0 < side <= 16_384 for side in self.crop), "crop lies in 1 .. 16384", self.crop)
        check_tiles(self)

    @property
    def dtype(self) -> str:
        """The type that the family's processor gives its pixels."""
        return "bfloat16" if self.normalization == "bfloat16" else "float32"

    def resized(self, height: int, width: int, num_frames: int = 1) -> tuple[int, int]:
        """``(height, width)`` that an image of this size, or so many frames of it, are resized to.

        Raises:
            LimitExceeded: a shape that the family refuses.
            InvalidOptions: too few frames for it.
        """
        if self.rule in ("fixed", "longest_edge"):
            return self.size
        if self.rule == "shortest_edge":
            return by_shortest_edge(height, width, self.size[0])
        factor = self.patch * self.merge
        if self.rule == "within_size":
            return within_size(height, width, most=self.size, factor=factor)
        if self.rule == "patch_budget":
            return by_patch_budget(height, width, patch=self.patch, max_patches=self.max_patches)
        if self.rule == "token_budget":
            return by_token_budget(height, width, patch=self.patch, merge=self.merge, max_patches=self.max_patches)
        return self._by_pixels(height, width, num_frames if self.modality == "video" else self.temporal_patch)

    def _by_pixels(self, height: int, width: int, num_frames: int) -> tuple[int, int]:
        factor, least, most = self.patch * self.merge, self.min_pixels, self._max_pixels(num_frames)
        if self.rule == "pixel_budget":
            return by_pixel_budget(height, width, factor=factor, min_pixels=least, max_pixels=most)
        return by_volume_budget(
            num_frames, height, width, factor=factor, temporal=self.temporal_patch, min_pixels=least, max_pixels=most
        )

    def passage(self, height: int, width: int) -> tuple[int, int] | None:
        """``(height, width)`` that an image is resized to on its way to ``resized``, if any."""
        return by_longest_edge(height, width, self.edge) if self.rule == "longest_edge" else None

    def _max_pixels(self, num_frames: int) -> int:
        """The budget with ``token_cap``. Source: Qwen2-VL's and Qwen3-VL's video processors, as qwen-vl-utils."""
        if not self.token_cap:
            return self.max_pixels
        pixels, least = self.token_cap * (self.patch * self.merge) ** 2, int(self.min_pixels * 1.05)
        if self.rule == "volume_budget":
            return max(min(pixels, self.max_pixels // num_frames), least) * num_frames
        return max(min(self.max_pixels, int(pixels * 0.9) * self.temporal_patch // num_frames), least)

    @classmethod
    def from_hf(
        cls,
        config: Mapping[str, Any] | str | os.PathLike[str] | Processor,
        *,
        modality: Literal["image", "video"] | None = None,
    ) -> Self:
        """The preset of a Hugging Face image or video processor.

        Only what a preset expresses is read, anything else that would change the pixels is refused. Pixels are always
        ``channels_first``. ``do_convert_rgb`` changes nothing: pictures are RGB before a preset sees them, as
        ``ImageOptions.alpha`` says, and of such pictures a processor that converts and one that does not make the same.
        Settings of images with Lanczos are read as of the Pillow-backed class, a live torchvision-backed processor of
        Idefics3 or SmolVLM too: on a GPU, and everywhere before torchvision 0.27, the latter takes the bicubic filter
        instead and warns that this only approximates Lanczos, with which the models were trained.

        An image processor's settings say what its pixels are; how many placeholder tokens they take is for some families
        said only by the processor around it, in ``processor_config.json``: a folder has both.

        Args:
            config: ``preprocessor_config.json``, ``processor_config.json`` or ``video_preprocessor_config.json``: as a
                mapping, as the file's path, or the path of its folder; or a processor of ``transformers``.
                Nothing is downloaded: the name of a checkpoint is none of these.
            modality: which of the two a folder is asked for, the image's by default; ``"video"`` also reads the video
                settings of older checkpoints, which stand in the image processor's file.

        Raises:
            InvalidOptions: no such file, a processor of another kind, or a setting that a preset does not express.
        """
        try:
            return cls(**preset_fields(config, modality))
        except InvalidOptions:
            raise
        except (TypeError, KeyError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidOptions(f"this processor configuration has a value of a wrong type: {shown(error)}") from error


def preset_named(name: str, table: Mapping[str, Preset], modality: str) -> Preset:
    """The preset of a table. Raises ``InvalidOptions`` where there is none of that name."""
    preset = table.get(name)
    if preset is None:
        raise InvalidOptions(f"no {modality} preset {shown(name)}; there are {', '.join(table)}")
    return preset
