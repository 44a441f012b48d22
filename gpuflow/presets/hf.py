"""Hugging Face image and video processor configurations, read into the fields of a ``Preset``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gpuflow.errors import InvalidOptions
from gpuflow.presets import hf_tiled, hf_video, hf_whole
from gpuflow.presets.hf_values import Config

CONFIG_FILE = "preprocessor_config.json"
VIDEO_CONFIG_FILE = "video_preprocessor_config.json"
JOINT_CONFIG_FILE = "processor_config.json"
_IMAGE_FAMILIES = {**hf_whole.FAMILIES, **hf_tiled.FAMILIES}
_STEPS = ("do_resize", "do_rescale", "do_normalize")


def preset_fields(
    config: Config | str | os.PathLike[str], modality: Literal["image", "video"] | None = None
) -> dict[str, Any]:
    """See ``Preset.from_hf``."""
    values = config if isinstance(config, Mapping) else _read(Path(config), modality)
    values = values.get(f"{modality or 'image'}_processor") or values  # newer checkpoints have both in one file
    name, kind = _kind(values, modality)
    families = hf_video.FAMILIES if name == "video_processor_type" else _IMAGE_FAMILIES
    read = families.get(kind)
    if read is None:
        raise InvalidOptions(f"{name} is one of {', '.join(families)} here; got {kind!r}")
    for step in _STEPS:
        if values.get(step) is False:
            raise InvalidOptions(f"{step}=false is not supported: a preset resizes, rescales and normalises")
    if values.get("do_pad") and kind not in hf_video.PADDING_OF_BATCHES | hf_tiled.PADDING_OF_BATCHES:
        raise InvalidOptions("do_pad=true is not supported for this processor")
    if not math.isclose(values.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise InvalidOptions(f"rescale_factor is 1/255 here; got {values['rescale_factor']!r}")
    return read(values)


def _kind(values: Config, modality: str | None) -> tuple[str, str]:
    """The key of the processor's class, and the class by the name that all its backends share."""
    if modality != "image" and (kind := values.get("video_processor_type")):
        return "video_processor_type", str(kind)
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    kind = kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if modality == "video":
        return "video_processor_type", kind.replace("ImageProcessor", "VideoProcessor")
    return "image_processor_type", kind


def _read(path: Path, modality: str | None) -> Config:
    file = path
    if path.is_dir():
        names = (VIDEO_CONFIG_FILE,) if modality == "video" else ()
        found = [path / name for name in (*names, CONFIG_FILE, JOINT_CONFIG_FILE) if (path / name).is_file()]
        file = found[0] if found else path / CONFIG_FILE
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidOptions(f"no readable {CONFIG_FILE} at the path that was given") from error
    if not isinstance(values, dict):
        raise InvalidOptions(f"{CONFIG_FILE} holds no object; got {type(values).__name__}")
    return values
