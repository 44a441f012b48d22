"""JPEG by simplejpeg: libjpeg-turbo without torch, straight into its destination. Optional; Pillow takes its place."""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any, Literal

import numpy as np

from gpuflow.codecs.base import Capability, ImageInfo, Support
from gpuflow.codecs.orientation import oriented
from gpuflow.errors import BackendUnavailable, CorruptMedia, UnsupportedFormat


class SimpleJpegDecoder:
    """``ImageDecoder`` on libjpeg-turbo, on the CPU; bit-identical to Pillow and torchvision.

    A 1080p JPEG takes 0.7 times as long as with torchvision and 0.4 times as long as with Pillow (two shared cores).
    """

    name = "simplejpeg"
    device: Literal["cpu", "cuda"] = "cpu"

    def capability(self) -> Capability:
        """Whether the library is installed."""
        return _capability()

    def supports(self, info: ImageInfo) -> Support:
        """8-bit JPEG of one or three components: its CMYK is not the others'."""
        if info.format != "jpeg" or info.bit_depth != 8 or info.channels not in (1, 3):
            return Support(False, "simplejpeg reads 8-bit gray and colour JPEG only")
        return Support(True)

    def decode(self, data: bytes, info: ImageInfo, *, frame: int = 0, out: Any = None) -> Any:
        """See ``ImageDecoder``."""
        if frame:
            raise UnsupportedFormat("a JPEG holds one frame")
        try:
            import simplejpeg
        except (ImportError, OSError) as error:
            raise BackendUnavailable("simplejpeg is installed and does not load") from error
        try:
            pixels = oriented(simplejpeg.decode_jpeg(data, "RGB"), info.orientation)
        except ValueError as error:
            raise CorruptMedia("simplejpeg cannot decode this jpeg") from error
        if pixels.shape[:2] != (info.height, info.width):
            raise CorruptMedia(f"the jpeg claims {info.width}x{info.height} and holds another size")
        if out is None:
            return pixels
        np.copyto(out, pixels)
        return out


@functools.cache  # asked again where files can no longer be opened
def _capability() -> Capability:
    try:
        return Capability(True, version=importlib.metadata.version("simplejpeg"))
    except importlib.metadata.PackageNotFoundError:
        return Capability(False, "simplejpeg is not installed: pip install simplejpeg")
