"""The planes of a libavcodec frame, where it is plain YUV: what is uploaded in place of RGB, half the bytes at 4:2:0."""

from __future__ import annotations

import re
from typing import Any

from gpuflow.codecs.base import VideoInfo
from gpuflow.planes import Plane, Planes

# Gray is not here: swscale takes it for full range whatever the stream says, and devices are to agree
_PLAIN = re.compile(r"yuvj?(420|422|444|440|411|410)p(9|10|12|14|16)?(?:le)?")
_CHROMA_SHIFTS = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2)}


def planes_of(frame: Any, info: VideoInfo) -> Planes | None:
    """The frame as it lies in host memory; ``None`` where it is no planar YUV. Colour and orientation are the clip's."""
    found = _PLAIN.fullmatch(frame.format.name)
    if found is None or any(plane.line_size <= 0 for plane in frame.planes):  # negative: stored from bottom to top
        return None
    bits = int(found[2] or 8)
    sample_bytes = 2 if bits > 8 else 1
    return Planes(
        tuple(Plane(p.buffer_ptr, p.line_size, p.height, p.width * sample_bytes) for p in frame.planes[:3]),
        frame.width,
        frame.height,
        info.matrix,
        info.full_range,
        bits,
        rotation=info.rotation,
        mirrored=info.mirrored,
        chroma_shift=_CHROMA_SHIFTS[found[1]],
        on_host=True,
        owner=frame,
    )
