"""Loads of clips whose time and memory are checked, whatever they end in."""

from __future__ import annotations

import resource
import time

from gpuflow.codecs.base import MediaType
from gpuflow.config import VideoOptions
from gpuflow.errors import GpuflowError
from gpuflow.flow.context import LoadContext
from gpuflow.flow.video import load_video
from gpuflow.media import Blob
from tests.flow.clips import FORMATS

SECONDS = 5.0  # each takes far less; on a loaded machine too


def load(data: bytes, context: LoadContext, container: str = "mp4", options: VideoOptions | None = None) -> int:
    """How many frames came; the time and the memory that it took are checked."""
    kind = MediaType(container, "video", FORMATS[container])
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with load_video(Blob(data, "hash"), kind, options or VideoOptions(), context) as frames:
            return len(frames)
    finally:
        assert time.perf_counter() - started < SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def status(data: bytes, context: LoadContext, container: str = "mp4") -> int:
    """What a server would answer."""
    try:
        load(data, context, container)
    except GpuflowError as error:
        return error.http_status
    return 200
