"""The sink of a clip that a preset is made of: each picture straight to its places in the tensors of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuflow.codecs.base import Surface, VideoInfo
from gpuflow.config import VideoOptions
from gpuflow.errors import InvalidOptions, UnsupportedFormat
from gpuflow.media import TensorSpec, VideoMetadata
from gpuflow.memory import Lease
from gpuflow.ops.clip_exact import place_frame, write_beside
from gpuflow.ops.form import Form
from gpuflow.ops.frames import scratch
from gpuflow.ops.picture import place_picture
from gpuflow.presets.image import Preset
from gpuflow.presets.plan import ImagePlan, plan_video
from gpuflow.presets.video import video_preset


def preset_of(options: VideoOptions) -> Preset:
    """The preset that is asked for, by name or as it is.

    Raises:
        InvalidOptions: no such name, or an image's.
    """
    preset = options.preset
    if isinstance(preset, str):
        return video_preset(preset)
    if isinstance(preset, Preset) and preset.modality == "video":
        return preset
    found = f"the image preset {preset.name!r}" if isinstance(preset, Preset) else type(preset).__name__
    raise InvalidOptions(f"preset is the name of a video preset or a Preset of modality 'video'; got {found}")


def plan_features(preset: Preset, options: VideoOptions, info: VideoInfo, num_frames: int) -> ImagePlan:
    """What will come out of so many frames.

    Raises:
        LimitExceeded, InvalidOptions: as ``plan_video``; types that contradict each other.
    """
    dtype = options.dtype or ("float32" if options.normalize else "uint8")
    if (dtype == "uint8") == options.normalize:
        raise InvalidOptions(
            f"dtype {dtype!r} contradicts normalize={options.normalize}: uint8 is what is not normalised"
        )
    return plan_video(preset, num_frames, *info.displayed_size, dtype=dtype, normalize=options.normalize)


class FeaturePlacing:
    """``ArraySink`` that writes each picture to all of its places, the last one also where frames are lacking to a whole
    temporal patch."""

    places = None  # pictures are resized, so that nobody else can write them to their places

    def __init__(
        self, info: VideoInfo, plan: ImagePlan, indices: Sequence[int], lease: Lease, spec: TensorSpec, *, on_host: bool
    ) -> None:
        self._info = info
        self._plan = plan
        self._lease = lease
        self._spec = spec
        self._scratch_like: Any = np.empty(0) if on_host else lease.array(spec)
        self._form = _form(plan) if lease.device != "cpu" else None
        self.corrupt: set[int] = set()
        self.exact = True  # until torch resizes a frame on a GPU
        self._places: dict[int, list[int]] = {}
        padded = (*indices, *(indices[-1] for _ in range(plan.num_frames - len(indices))))
        for place, index in enumerate(padded):
            self._places.setdefault(index, []).append(place)

    def put(self, index: int, surface: Surface) -> None:
        """Convert, resize, normalise and lay out at once on a GPU; otherwise convert, and ``take``."""
        if surface.corrupt:
            self.mark_corrupt(index)
        if self._form is not None and (picture := surface.planes()) is not None:
            self._require_size(surface.displayed_size)
            tensor = self._lease.array(self._spec)
            place_picture(
                picture,
                self._form,
                self._places[index],
                tensor.reshape(self._form.shape(self._plan.num_frames)),
                self._lease,
            )
            return
        rgb = scratch((*surface.displayed_size, 3), self._scratch_like)
        surface.rgb_into(rgb)
        self.take(index, rgb)

    def take(self, index: int, rgb: Any) -> None:
        """Resize, normalise, lay out.

        Raises:
            UnsupportedFormat: a picture of another size, which no processor takes beside the others.
        """
        self._require_size(rgb.shape[:2])
        self.exact = self._lease.device == "cpu"
        place_frame(rgb, self._places[index], self._plan, self._lease, self._spec)

    def _require_size(self, size: tuple[int, int]) -> None:
        if size != self._info.displayed_size:
            raise UnsupportedFormat("the picture size changes within the clip; a preset is of frames of one size")

    def repeat(self, index: int) -> None:
        """Nobody writes to places here, so that nothing is to be repeated."""

    def mark_corrupt(self, index: int) -> None:
        """See ``ArraySink``."""
        self.corrupt.add(index)


def _form(plan: ImagePlan) -> Form | None:
    """What the kernel makes of each picture; ``None`` where that is another way."""
    if plan.views[0].via or plan.layout == "patches_last":
        return None
    return Form(
        plan.views[0].resized,
        plan.views[0].canvas,
        plan.resample,
        plan.layout,
        plan.dtype,
        plan.mean,
        plan.std,
        patch=max(1, plan.patch),
        merge=plan.merge,
        temporal_patch=plan.temporal_patch,
    )


def finish_features(
    plan: ImagePlan, preset: Preset, metadata: VideoMetadata, lease: Lease, specs: Sequence[TensorSpec]
) -> None:
    """Write what stands beside the pixels."""
    write_beside(plan, lease, specs[1:], grid_seconds=_grid_seconds(preset, metadata))


def _grid_seconds(preset: Preset, metadata: VideoMetadata) -> float:
    """Seconds of a temporal patch. Source: Qwen2.5-VL's processor, by the rate at which frames were sampled."""
    facts = metadata.for_servers()
    sampled_fps = len(metadata.frame_indices) / metadata.num_frames * facts["fps"]
    return preset.temporal_patch / sampled_fps if sampled_fps else 0.0
