"""BMP of run lengths by libavcodec: Pillow expands them byte by byte in Python, five seconds long of 29 KB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.pyav import capability
from gpuflow.codecs._backends.pyav_still import still
from gpuflow.errors import BackendUnavailable, CorruptMedia


def pixels_of_runs(data: bytes) -> NDArray[np.uint8]:
    """``(H, W, 3)``; what the runs leave out has the first colour of the palette.

    Raises:
        CorruptMedia: FFmpeg cannot read it.
        BackendUnavailable: PyAV is not there.
    """
    if not (found := capability()):
        raise BackendUnavailable(f"BMP of run lengths needs PyAV: {found.reason}")
    import av
    from av.video.reformatter import VideoReformatter

    try:
        converted: Any = VideoReformatter().reformat(still("bmp", data), format="rgb24", threads=1)
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        raise CorruptMedia("FFmpeg cannot convert this bmp") from error
    plane = converted.planes[0]
    rows: NDArray[np.uint8] = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
