"""The rest by Pillow: GIF, BMP, TIFF, AVIF, later frames of animations, and what others refuse."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.pillow_tiff import deep_pixels, tiff_page
from gpuflow.codecs.base import Capability, ImageInfo, Support
from gpuflow.codecs.orientation import oriented
from gpuflow.errors import CorruptMedia, GpuflowError, LimitExceeded, UnsupportedFormat

_FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "avif": "AVIF", "tiff": "TIFF"}


class PillowDecoder:
    """``ImageDecoder`` on Pillow, on the CPU."""

    name = "pillow"
    device: Literal["cpu", "cuda"] = "cpu"

    def capability(self) -> Capability:
        """Whether the library loads here."""
        try:
            import PIL.Image
        except (ImportError, OSError) as error:
            return Capability(False, f"Pillow does not load ({error}): pip install pillow")
        return Capability(True, version=PIL.__version__)

    def supports(self, info: ImageInfo) -> Support:
        """All formats but HEIC; not 12-bit JPEG, nor colours of a 16-bit PNG, which it cuts to 8 bits."""
        if info.format not in _FORMATS:
            return Support(False, f"{info.format} is not on Pillow's list here")
        if info.format == "jpeg" and info.bit_depth == 12:
            return Support(False, "Pillow reads no 12-bit JPEG")
        if info.format == "png" and info.bit_depth == 16 and (info.channels > 1 or info.has_alpha):
            return Support(False, "Pillow cuts the colours of a 16-bit PNG")
        return Support(True)

    def decode(self, data: bytes, info: ImageInfo, *, frame: int = 0, out: Any = None) -> Any:
        """See ``ImageDecoder``. Frame ``n`` of an animation is decoded through the ``n`` before it."""
        of_tiff = info.format == "tiff"
        file = tiff_page(data, frame) if of_tiff else io.BytesIO(data)
        with _opened(file, info.format) as image:
            image.seek(0 if of_tiff else frame)
            deep = of_tiff and info.bit_depth == 16 and info.channels >= 3
            stored = deep_pixels(image, file, info) if deep else _pixels(image, info.has_alpha)
            pixels = oriented(stored, info.orientation)
        if pixels.shape[:2] != (info.height, info.width):
            raise CorruptMedia(f"the {info.format} claims {info.width}x{info.height} and holds another size")
        if out is None:
            return pixels
        np.copyto(out, pixels)
        return out


@contextmanager
def _opened(file: io.BytesIO, name: str) -> Iterator[Any]:
    """The image, its format never guessed; every error of the library becomes one of ours here."""
    from PIL import Image, features

    if name == "avif" and not features.check("avif"):
        raise UnsupportedFormat("this Pillow was built without AVIF: pip install 'pillow>=11.3'")
    try:
        with Image.open(file, formats=(_FORMATS[name],)) as image:
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LimitExceeded(f"the {name} claims more pixels than Pillow opens") from error
    except GpuflowError:
        raise
    except Exception as error:  # bad bytes make Pillow raise a dozen kinds, struct.error and AttributeError among them
        raise CorruptMedia(f"Pillow cannot decode this {name}") from error


def _pixels(image: Any, has_alpha: bool) -> NDArray[np.uint8]:
    """``(H, W, 3)``, or ``(H, W, 4)`` where there is transparency."""
    if image.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion would clip it at 255
        levels = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)
    wanted = "RGBA" if has_alpha or image.has_transparency_data else "RGB"
    return np.array(image if image.mode == wanted else image.convert(wanted))  # convert would copy it
