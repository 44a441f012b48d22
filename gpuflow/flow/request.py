"""What a request asks for, made definite before any byte is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuflow.config import AudioOptions, ImageOptions, Options, VideoOptions, made_of
from gpuflow.errors import InvalidOptions
from gpuflow.media import FeatureMetadata, ImageMetadata, Media, Modality, Source, VideoMetadata

OptionsLike = Options | Mapping[str, Any] | None


def resolve(source: Source, options: OptionsLike) -> tuple[Modality | None, OptionsLike]:
    """The modality that is known before any byte, and the options made definite where it is."""
    of_options: Modality | None = None
    if isinstance(options, ImageOptions):
        of_options = "image"
    elif isinstance(options, VideoOptions):
        of_options = "video"
    elif isinstance(options, AudioOptions):
        of_options = "audio"
    elif options is not None and not isinstance(options, Mapping):
        raise InvalidOptions(
            f"options are ImageOptions, VideoOptions, AudioOptions or a mapping; got {type(options).__name__}"
        )
    if of_options and source.modality and of_options != source.modality:
        raise InvalidOptions(f"{type(options).__name__} for a source that is declared as {source.modality}")
    modality = of_options or source.modality
    if isinstance(options, Mapping) and modality is not None:
        return modality, made_of(options, modality)
    return modality, options


def modality_of(media: Media) -> Modality:
    """What a medium, or what features were made of, is."""
    metadata = media.metadata.source if isinstance(media.metadata, FeatureMetadata) else media.metadata
    if isinstance(metadata, ImageMetadata):
        return "image"
    return "video" if isinstance(metadata, VideoMetadata) else "audio"


def require_counts(**counts: int | None) -> None:
    """Raise ``InvalidOptions`` unless each is a whole number from 1 on, or left out."""
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InvalidOptions(f"{name} is a whole number, 1 or more; got {value!r}")
