"""From fetched bytes to placed media: look at the bytes, settle the modality and the options, call its loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuflow.codecs.base import ImageInfo, MediaType
from gpuflow.codecs.probe import sniff
from gpuflow.config import AudioOptions, ImageOptions, Options, made_of
from gpuflow.errors import TooLarge, UnsupportedFormat
from gpuflow.flow.audio import load_audio
from gpuflow.flow.audio_steps import audio_steps
from gpuflow.flow.context import LoadContext
from gpuflow.flow.device_batches import DeviceBatches
from gpuflow.flow.image import load_image
from gpuflow.flow.image_steps import image_steps
from gpuflow.flow.preload import preload
from gpuflow.flow.sound import add_sound
from gpuflow.flow.suspended import Suspended, advance
from gpuflow.flow.video import load_video, load_video_features
from gpuflow.media import Blob, Features, Frames, Media, Modality


def load_blob(
    blob: Blob,
    modality: Modality | None,
    options: Options | Mapping[str, Any] | None,
    context: LoadContext,
    batches: DeviceBatches | None = None,
    info: ImageInfo | None = None,
) -> Media | Suspended[Any]:
    """Decode, transform and place one blob; blocking, but for images and sounds where a device takes them in ``batches``.
    ``info``: facts of an image, where they were read before.

    Raises:
        UnsupportedFormat: the bytes are of no known format, or not of the modality that was asked for.
        GpuflowError: whatever the loader of the modality raises.
    """
    kind, modality = recognise(blob, modality, context)
    wanted = options if isinstance(options, Options) else made_of(options, modality)
    preload(
        modality,
        on_gpu=context.device.is_cuda,
        resize=getattr(wanted, "size", None) is not None or getattr(wanted, "preset", None) is not None,
        dali=getattr(wanted, "engine", None) == "dali",
    )
    if getattr(wanted, "audio", None) is not None:
        preload("audio", on_gpu=context.device.is_cuda, resize=False, dali=False)
    if isinstance(wanted, ImageOptions) and batches is not None:
        return advance(image_steps(blob, kind, wanted, context, batches.images))
    if isinstance(wanted, ImageOptions):
        return load_image(blob, kind, wanted, context, info)
    if isinstance(wanted, AudioOptions) and batches is not None:
        return advance(audio_steps(blob, kind, wanted, context, batches.sounds))
    if isinstance(wanted, AudioOptions):
        return load_audio(blob, kind, wanted, context)
    load = load_video if wanted.preset is None else load_video_features
    media: Frames | Features = load(blob, kind, wanted, context)
    if wanted.audio is not None:
        add_sound(media, blob, kind, wanted, context, None if batches is None else batches.sounds)
    return media


def recognise(blob: Blob, asked: Modality | None, context: LoadContext) -> tuple[MediaType, Modality]:
    """What the bytes are, and what they are taken for.

    Raises:
        UnsupportedFormat: they are of no known format, or not of the modality that was asked for.
        TooLarge: more of them than the modality may have.
    """
    kind = sniff(blob.data)
    modality = _settle(kind, asked)
    _check_size(blob, modality, context)
    return kind, modality


def _settle(kind: MediaType, asked: Modality | None) -> Modality:
    """What was asked for wins over what was sniffed where the bytes may hold it: a container may hold sound only."""
    if asked is None or asked == kind.modality:
        return kind.modality
    if "image" in (asked, kind.modality):
        raise UnsupportedFormat(f"{asked} was asked for, and the bytes are {kind.name}")
    return asked


def _check_size(blob: Blob, modality: Modality, context: LoadContext) -> None:
    """Bytes whose modality was not known while they came in are held to its own cap now."""
    limit = context.limits.max_bytes(modality)
    if len(blob.data) > limit:
        raise TooLarge(f"{len(blob.data)} bytes of {modality}; Limits.max_{modality}_bytes is {limit}")
