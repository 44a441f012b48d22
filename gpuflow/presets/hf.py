"""Hugging Face image and video processor configurations, read into the fields of a ``Preset``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from gpuflow.errors import InvalidOptions
from gpuflow.presets import hf_tiled, hf_video, hf_whole
from gpuflow.presets.hf_values import AROUND, Config, refuse
from gpuflow.values import shown

CONFIG_FILE = "preprocessor_config.json"
MAX_CONFIG_BYTES = 16 << 20
VIDEO_CONFIG_FILE = "video_preprocessor_config.json"
JOINT_CONFIG_FILE = "processor_config.json"
_IMAGE_FAMILIES = {**hf_whole.FAMILIES, **hf_tiled.FAMILIES}
_STEPS = ("do_resize", "do_rescale")
_BY_PILLOW = {"reference": "pillow", "passes": "pillow"}
_IN_TWO_STEPS = {"normalization": "two_steps"}


class Processor(Protocol):
    """A processor of ``transformers``, or its image or video processor."""

    def to_dict(self) -> dict[str, Any]:
        """Its settings."""
        ...


def preset_fields(
    config: Config | str | os.PathLike[str] | Processor, modality: Literal["image", "video"] | None = None
) -> dict[str, Any]:
    """See ``Preset.from_hf``."""
    if modality not in (None, "image", "video"):
        raise InvalidOptions(f"modality is 'image' or 'video'; got {shown(modality)}")
    whole = _settings(config, modality)
    part = whole.get(f"{modality or 'image'}_processor")  # newer checkpoints have all of them in one file
    own = part if isinstance(part, Mapping) else whole
    name, kind, by_pillow = _kind(own, modality)
    values = {key: value for key, value in own.items() if value is not None}
    values[AROUND] = whole if own is not whole else whole.get(AROUND)
    families = hf_video.FAMILIES if name == "video_processor_type" else _IMAGE_FAMILIES
    read = families.get(kind)
    if read is None:
        raise InvalidOptions(f"{name} is one of {', '.join(families)} here; got {shown(kind)}")
    _check_steps(values)
    if name == "video_processor_type":
        _check_video(values, kind)
        return read(values)
    fields = {"processor": kind, **(_IN_TWO_STEPS if by_pillow else {}), **read(values)}
    return fields | _BY_PILLOW if by_pillow or fields.get("resample") == "lanczos" else fields


def _check_steps(values: Config) -> None:
    for step in _STEPS:
        if not values.get(step, True):
            raise InvalidOptions(f"{step}=false is not supported: a preset resizes and rescales")
    if values.get("data_format", "channels_first") != "channels_first":
        raise InvalidOptions(f"data_format is channels_first here; got {shown(values['data_format'])}")
    factor = values.get("rescale_factor", 1 / 255)
    # So near that a float32 is the same
    if not isinstance(factor, (int, float)) or not math.isclose(factor, 1 / 255, rel_tol=1e-8):
        raise InvalidOptions(f"rescale_factor is 1/255 here; got {shown(factor)}")


def _check_video(values: Config, kind: str) -> None:
    if not values.get("do_normalize", True):
        raise InvalidOptions("do_normalize=false is not supported for videos")
    if values.get("resample") == 1 and kind not in hf_video.LANCZOS_IS_BICUBIC:
        raise InvalidOptions("resample=1 (Lanczos) is not supported for videos")
    if kind not in hf_video.PADDING_OF_BATCHES:
        refuse(values, "do_pad")


def _kind(values: Config, modality: str | None) -> tuple[str, str, bool]:
    """The key of the processor's class, the class by the name that all its backends share, whether it is Pillow's."""
    if modality != "image" and (kind := values.get("video_processor_type")):
        return "video_processor_type", _name(kind), False
    kind = _name(values.get("image_processor_type") or values.get("feature_extractor_type")).removesuffix("Fast")
    shared = kind.removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if modality == "video":
        return "video_processor_type", shared.replace("ImageProcessor", "VideoProcessor"), False
    return "image_processor_type", shared, kind.endswith("Pil")


def _name(value: object) -> str:
    """A class's name; what is no name is none, shown as what it is."""
    if isinstance(value, str):
        return value
    return shown(value) if value else ""


def _settings(config: Config | str | os.PathLike[str] | Processor, modality: str | None) -> Config:
    """The settings of one processor, or of all that belong together."""
    if isinstance(config, Mapping):
        return {key: value for key, value in config.items() if key != AROUND}
    if isinstance(config, (str, os.PathLike)):
        return _read(Path(config), modality)
    values = config.to_dict()
    own = getattr(config, "image_processor", config)
    return _marked(values) if getattr(own, "backend", "") == "pil" else values


def _marked(values: dict[str, Any]) -> dict[str, Any]:
    """With the name of Pillow's backend again, which ``to_dict`` leaves out."""
    if isinstance(part := values.get("image_processor"), Mapping):
        return values | {"image_processor": _marked(dict(part))}
    return values | {"image_processor_type": f"{_name(values.get('image_processor_type'))}Pil"}


def _read(path: Path, modality: str | None) -> Config:
    """A file's settings, or those of a folder: of its two kinds of files, as ``transformers`` ranks them."""
    if not os.path.exists(path):  # unlike Path.exists it raises nothing, whatever the text
        raise InvalidOptions(
            f"from_hf takes the path of a folder or of its {CONFIG_FILE}, no name of a checkpoint on a hub: download it first; "
            f"there is nothing at {shown(str(path))}"
        )
    if not os.path.isdir(path):
        return read_json(path)
    joint = read_json(path / JOINT_CONFIG_FILE) if os.path.isfile(path / JOINT_CONFIG_FILE) else {}
    if isinstance(joint.get(f"{modality or 'image'}_processor"), Mapping):
        return joint
    video = path / VIDEO_CONFIG_FILE
    own = read_json(video if modality == "video" and os.path.isfile(video) else path / CONFIG_FILE)
    return {**own, AROUND: joint}


def _text(file: Path) -> bytes:
    """Of a plain file of a size that a configuration has: devices and pipes may have no end."""
    if file.exists() and not file.is_file():
        raise InvalidOptions(f"{file.name} at the path that was given is no plain file")
    with file.open("rb") as opened:
        text = opened.read(MAX_CONFIG_BYTES + 1)
    if len(text) > MAX_CONFIG_BYTES:
        raise InvalidOptions(f"{file.name} at the path that was given has more than {MAX_CONFIG_BYTES} bytes")
    return text


def read_json(file: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        InvalidOptions: it cannot be read, is no plain file or too large, or holds something else.
    """
    try:
        values = json.loads(_text(file))
    except InvalidOptions:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidOptions(f"{file.name} at the path that was given cannot be read, or is no JSON") from error
    if not isinstance(values, dict):
        raise InvalidOptions(f"{file.name} holds no object; got {type(values).__name__}")
    return values
