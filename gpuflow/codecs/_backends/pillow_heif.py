"""HEIC by pillow-heif (libheif, libde265). Optional: ``pip install 'gpuflow[heif]'``."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.packages import installed
from gpuflow.codecs._backends.pixels import handed_over, in_colors, to_8_bits
from gpuflow.codecs.base import Capability, ImageInfo, Support
from gpuflow.errors import BackendUnavailable, CorruptMedia, UnsupportedFormat

_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


class PillowHeifDecoder:
    """``ImageDecoder`` on libheif, on the CPU. libheif turns, mirrors and crops the picture itself; libde265 conceals
    damage and does not say so."""

    name = "pillow-heif"
    device: Literal["cpu", "cuda"] = "cpu"

    def capability(self) -> Capability:
        """Whether the library is installed."""
        return installed("pillow-heif", "HEIC needs pillow-heif: pip install 'gpuflow[heif]'")

    def supports(self, info: ImageInfo) -> Support:
        """HEIC, where the library is there."""
        if info.format != "heic":
            return Support(False, "pillow-heif is for HEIC only")
        capability = self.capability()
        return Support(bool(capability), capability.reason)

    def decode(self, data: bytes, info: ImageInfo, *, frame: int = 0, out: Any = None) -> Any:
        """See ``ImageDecoder``: the primary picture; levels of 10 and 12 bits are scaled to 8, rounded."""
        if frame:
            raise UnsupportedFormat("of a HEIC the primary picture is decoded")
        return handed_over(_pixels(data, info), info, out)


def _pixels(data: bytes, info: ImageInfo) -> NDArray[np.uint8]:
    try:
        import pillow_heif
    except (ImportError, OSError) as error:
        raise BackendUnavailable("pillow-heif is installed and does not load") from error
    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
        picture = file[file.primary_index]
        levels = np.array(picture)  # its own memory may not be written
        channels = _CHANNELS[picture.mode.partition(";")[0]]
    except Exception as error:  # bad bytes make it raise ValueError, RuntimeError, EOFError, OSError and others
        raise CorruptMedia("libheif cannot decode this heic") from error
    levels = levels.reshape(*levels.shape[:2], channels)[: picture.size[1], : picture.size[0]]
    return in_colors(levels if levels.dtype == np.uint8 else to_8_bits(levels, most=(1 << info.bit_depth) - 1))
