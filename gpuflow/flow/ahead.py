"""What is known of an image before it is decoded: its header's facts, and what will come out of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.probe import check_image, image_info, sniff
from gpuflow.config import ImageOptions, Limits, made_of
from gpuflow.errors import InvalidOptions, InvalidSource
from gpuflow.fetch.local import read_trusted
from gpuflow.flow.image import plan_of
from gpuflow.presets.plan import ImagePlan, check_size
from gpuflow.values import shown


def probe_image(
    source: bytes | bytearray | memoryview | str | os.PathLike[str],
    *,
    limits: Limits | Mapping[str, Any] | None = None,
    frame: int = 0,
) -> ImageInfo:
    """An image's size as shown, colours, frames and the like, from its header alone, held to the limits.

    Args:
        source: the file's bytes, or the path of a file of your own.
        limits: ``Limits``, or those of their fields that are not the defaults.
        frame: whose size it is, where pages differ.

    Raises:
        InvalidSource: neither bytes nor a path.
        InvalidOptions: a frame that is no number, or that the image does not have.
        UnsupportedFormat: no image, or one that is not read here.
        CorruptMedia: the header is damaged.
        LimitExceeded: larger than allowed.
        SourceNotFound, SourceUnreadable, TooLarge: of a path.
    """
    allowed = limits if isinstance(limits, Limits) else Limits.from_mapping(limits)
    if not isinstance(frame, int) or isinstance(frame, bool) or frame < 0:
        raise InvalidOptions(f"frame is a whole number, 0 or more; got {shown(frame)}")
    data = _bytes_of(source, allowed)
    info = image_info(data, sniff(data), allowed, frame=frame)
    check_image(info, allowed)
    if frame >= info.num_frames:
        raise InvalidOptions(f"frame {shown(frame)} was asked for; the {info.format} has {info.num_frames}")
    return info


def _bytes_of(source: object, allowed: Limits) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)  # of bytes no copy
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidSource(f"an image is given by its bytes or its path; got {shown(source)}")
    return read_trusted(os.fspath(source), allowed.max_image_bytes)


def plan_image(
    image: ImageInfo | tuple[int, int],
    options: ImageOptions | Mapping[str, Any] | None = None,
    *,
    limits: Limits | Mapping[str, Any] | None = None,
) -> ImagePlan:
    """What will come out of an image: every tensor's name, type and shape (``outputs``), the bytes that they take
    (``nbytes``), and the number of placeholder tokens (``num_tokens``). ``Flow.load`` gives exactly that.

    Args:
        image: what ``probe_image`` found, or its (height, width).
        options: as ``load``; ``{"preset": "qwen2.5-vl"}``.
        limits: what an image may become.

    Raises:
        InvalidOptions: options that contradict each other or the image.
        LimitExceeded: it would become larger than allowed, or the family refuses its shape.
    """
    wanted = options if isinstance(options, ImageOptions) else made_of(options, "image")
    if not isinstance(wanted, ImageOptions):
        raise InvalidOptions(f"the options of an image are ImageOptions; got {type(options).__name__}")
    allowed = limits if isinstance(limits, Limits) else Limits.from_mapping(limits)
    return plan_of(wanted, image if isinstance(image, ImageInfo) else _sized(image), allowed)


def _sized(image: object) -> ImageInfo:
    if not isinstance(image, (tuple, list)) or len(image) != 2:
        raise InvalidOptions(
            f"an image is planned by what probe_image found or its (height, width); got {shown(image)}"
        )
    height, width = image
    check_size(height, width)
    return ImageInfo("", width, height)
