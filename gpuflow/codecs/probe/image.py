"""Facts of an image from its header alone, in microseconds and without a decoder; and the limits on them."""

from __future__ import annotations

from collections.abc import Callable

from gpuflow.codecs.base import ImageInfo, MediaType
from gpuflow.codecs.probe.avif import avif_info
from gpuflow.codecs.probe.bmp import bmp_info
from gpuflow.codecs.probe.gif import gif_info
from gpuflow.codecs.probe.heic import heic_info
from gpuflow.codecs.probe.jpeg import jpeg_info
from gpuflow.codecs.probe.png import png_info
from gpuflow.codecs.probe.tiff import tiff_info
from gpuflow.codecs.probe.webp import webp_info
from gpuflow.config import Limits
from gpuflow.errors import LimitExceeded, UnsupportedFormat


def image_info(data: bytes, kind: MediaType, limits: Limits | None = None, *, frame: int = 0) -> ImageInfo:
    """What the header claims; nothing is decoded. ``width`` and ``height`` as shown, so with the orientation applied.

    ``frame``: which page of a TIFF; of one that there is not, the first. Frames of other formats share their facts.

    Raises:
        CorruptMedia: the header is damaged or breaks off, or frames do not lie on the canvas.
        LimitExceeded: a structure that only bombs have.
        UnsupportedFormat: not an image, or one that no decoder here reads.
    """
    read = _READERS.get(kind.name)
    if read is None:
        raise UnsupportedFormat(f"{kind.name} is no image format that is supported")
    if kind.name == "tiff":
        return tiff_info(data, limits or Limits(), frame)
    return read(data, limits or Limits())


def check_image(info: ImageInfo, limits: Limits) -> None:
    """Hold the claims to the limits, before anything is allocated.

    Raises:
        LimitExceeded: too many pixels, a side too long, too many frames, or too many pixels in all frames.
    """
    side, pixels = max(info.width, info.height), info.width * info.height
    claims: tuple[tuple[int, int, str, str], ...] = (
        (side, limits.max_image_side, "pixels on a side", "max_image_side"),
        (pixels, limits.max_image_pixels, "pixels", "max_image_pixels"),
        (info.num_frames, limits.max_animation_frames, "frames", "max_animation_frames"),
    )
    if info.animated:  # a frame is decoded through those before it, a page is not
        allowed = max(limits.max_animation_pixels, pixels)
        claims += ((pixels * info.num_frames, allowed, "pixels in all frames", "max_animation_pixels"),)
    for claimed, allowed, what, name in claims:
        if claimed > allowed:
            raise LimitExceeded(f"the {info.format} claims {claimed} {what}; Limits.{name} is {allowed}")


_READERS: dict[str, Callable[[bytes, Limits], ImageInfo]] = {
    "jpeg": jpeg_info,
    "png": lambda data, limits: png_info(data),
    "webp": lambda data, limits: webp_info(data),
    "gif": gif_info,
    "bmp": bmp_info,
    "avif": avif_info,
    "tiff": tiff_info,
    "heic": heic_info,
}
