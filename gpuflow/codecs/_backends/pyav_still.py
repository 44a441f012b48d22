"""One still picture by libavcodec, whose parsers of containers have no part in it."""

from __future__ import annotations

from typing import Any

from gpuflow.errors import CorruptMedia


def still(codec: str, data: bytes) -> Any:
    """The ``av.VideoFrame`` of a file that is one picture.

    Raises:
        CorruptMedia: FFmpeg cannot read it.
    """
    import av

    try:
        context: Any = av.CodecContext.create(codec, "r")
        context.thread_count = 1
        packet = av.Packet(len(data))  # of bytes it would lack the padding that FFmpeg reads
        packet.update(data)
        return [*context.decode(packet), *context.decode(None)][0]
    except (av.error.FFmpegError, ValueError, MemoryError, IndexError) as error:
        raise CorruptMedia(f"FFmpeg cannot decode this {codec}") from error
