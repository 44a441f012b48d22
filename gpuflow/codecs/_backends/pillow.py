"""The rest by Pillow: GIF, BMP, TIFF, AVIF, later frames of animations, and what others refuse."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.pillow_tiff import deep_pixels, tiff_page
from gpuflow.codecs._backends.pixels import handed_over, in_colors, to_8_bits
from gpuflow.codecs._backends.pyav_bmp import pixels_of_runs
from gpuflow.codecs.base import Capability, ImageInfo, Support
from gpuflow.codecs.orientation import oriented
from gpuflow.codecs.probe.bmp import has_runs
from gpuflow.codecs.probe.png import shown_parts
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
        return handed_over(oriented(_decoded(data, info, frame), info.orientation), info, out)


def _decoded(data: bytes, info: ImageInfo, frame: int) -> NDArray[np.uint8]:
    """``(H, W, 3)``, or ``(H, W, 4)`` where the header says that there is alpha."""
    if info.format == "bmp" and has_runs(data):
        return pixels_of_runs(data)
    of_tiff = info.format == "tiff"
    file = tiff_page(data, frame) if of_tiff else io.BytesIO(_shown(data, info, frame))
    with _opened(file, info.format) as image:
        image.seek(0 if of_tiff else frame)
        deep = of_tiff and info.bit_depth == 16 and info.channels >= 3
        return deep_pixels(image, file, info) if deep else _pixels(image, info.has_alpha)


def _shown(data: bytes, info: ImageInfo, frame: int) -> bytes:
    return b"".join(shown_parts(data, frame)) if info.format == "png" else data


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
    if image.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion would clip it at 255
        return in_colors(to_8_bits(np.asarray(image)[:, :, None]))
    wanted = "RGBA" if has_alpha else "RGB"
    return np.array(image if image.mode == wanted else image.convert(wanted))  # convert would copy it
