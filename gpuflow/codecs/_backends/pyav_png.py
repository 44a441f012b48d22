"""PNG of 16 bits a channel by libavcodec, which keeps them all: Pillow cuts colours to 8 bits before we see them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.pixels import handed_over, in_colors, to_8_bits
from gpuflow.codecs._backends.pyav import capability
from gpuflow.codecs._backends.pyav_still import still
from gpuflow.codecs.base import Capability, ImageInfo, Support
from gpuflow.codecs.orientation import oriented
from gpuflow.codecs.probe.png import shown_parts
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_CHANNELS = {"gray16be": 1, "ya16be": 2, "rgb48be": 3, "rgba64be": 4}


class PyAvPngDecoder:
    """``ImageDecoder`` on FFmpeg's PNG decoder, on the CPU."""

    name = "pyav"
    device: Literal["cpu", "cuda"] = "cpu"

    def capability(self) -> Capability:
        """Whether PyAV loads."""
        return capability()

    def supports(self, info: ImageInfo) -> Support:
        """16-bit PNG; a colour key is compared with all 16 bits and becomes alpha."""
        if info.format != "png" or info.bit_depth != 16:
            return Support(False, "only for 16-bit PNG")
        return Support(True)

    def decode(self, data: bytes, info: ImageInfo, *, frame: int = 0, out: Any = None) -> Any:
        """See ``ImageDecoder``: levels divided by 257, rounded, as the other decoder of such files does."""
        if frame:
            raise UnsupportedFormat("of a 16-bit PNG only the first picture is decoded")
        levels = _levels(b"".join(shown_parts(data)))
        return handed_over(oriented(in_colors(to_8_bits(levels)), info.orientation), info, out)


def _levels(data: bytes) -> NDArray[np.uint16]:
    """``(H, W, channels)`` as stored, big-endian."""
    picture = still("png", data)
    if picture.format.name not in _CHANNELS:
        raise CorruptMedia("this png holds no picture of 16 bits a channel")
    channels, plane = _CHANNELS[picture.format.name], picture.planes[0]
    rows = np.frombuffer(plane, ">u2").reshape(plane.height, plane.line_size // 2)
    return rows[:, : channels * picture.width].reshape(picture.height, picture.width, channels)
