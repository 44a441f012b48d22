"""Facts of an image from its header alone, in microseconds and without a decoder; and the limits on them."""

from __future__ import annotations

from collections.abc import Callable

from gpuflow.codecs._backends.pillow import avif_info
from gpuflow.codecs.base import ImageInfo, MediaType
from gpuflow.codecs.probe.gif import gif_info
from gpuflow.codecs.probe.jpeg import jpeg_info
from gpuflow.codecs.probe.png import png_info
from gpuflow.codecs.probe.webp import webp_info
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat

_CORE_HEADER = 12  # the OS/2 header, with 16-bit sides
_BMP_ALPHA_MASK = 66


def image_info(data: bytes, kind: MediaType) -> ImageInfo:
    """What the header claims; nothing is decoded. ``width`` and ``height`` as shown, so with the orientation applied.

    Raises:
        CorruptMedia: the header is damaged or breaks off, or frames do not lie on the canvas.
        LimitExceeded: a structure that only bombs have.
        UnsupportedFormat: not an image, or one that no decoder here reads.
    """
    read = _READERS.get(kind.name)
    if read is None:
        raise UnsupportedFormat(f"{kind.name} is no image format that is supported")
    return read(data)


def check_image(info: ImageInfo, limits: Limits) -> None:
    """Hold the claims to the limits, before anything is allocated.

    Raises:
        LimitExceeded: too many pixels, a side too long, too many frames, or too many pixels in all frames.
    """
    side, pixels = max(info.width, info.height), info.width * info.height
    claims = (
        (side, limits.max_image_side, "pixels on a side", "max_image_side"),
        (pixels, limits.max_image_pixels, "pixels", "max_image_pixels"),
        (info.num_frames, limits.max_animation_frames, "frames", "max_animation_frames"),
        (pixels * info.num_frames, max(limits.max_animation_pixels, pixels), "pixels in all frames", "max_animation_pixels"),
    )  # fmt: skip
    for claimed, allowed, what, name in claims:
        if claimed > allowed:
            raise LimitExceeded(f"the {info.format} claims {claimed} {what}; Limits.{name} is {allowed}")


def _bmp_info(data: bytes) -> ImageInfo:
    """Source: the BITMAPFILEHEADER and BITMAPINFOHEADER family of structures."""
    size = int.from_bytes(data[14:18], "little")
    if len(data) < 14 + size:
        raise CorruptMedia("the BMP ends before its header does")
    if size == _CORE_HEADER:
        width, height = int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
    else:
        width = int.from_bytes(data[18:22], "little", signed=True)
        height = abs(int.from_bytes(data[22:26], "little", signed=True))  # below 0: rows run top down
    if width <= 0 or height <= 0:
        raise CorruptMedia(f"the BMP claims {width}x{height} pixels")
    has_alpha = size >= 56 and data[_BMP_ALPHA_MASK : _BMP_ALPHA_MASK + 4] not in (b"", bytes(4))
    return ImageInfo("bmp", width, height, channels=4 if has_alpha else 3, has_alpha=has_alpha)


_READERS: dict[str, Callable[[bytes], ImageInfo]] = {
    "jpeg": jpeg_info,
    "png": png_info,
    "webp": webp_info,
    "gif": gif_info,
    "bmp": _bmp_info,
    "avif": avif_info,
}
