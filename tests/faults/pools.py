"""A pool of decode workers to do things to, and what they are asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe import image_info
from gpuflow.config import Limits
from gpuflow.demo import samples
from gpuflow.errors import (
    BackendUnavailable,
)
from gpuflow.flow.context import Deadline
from gpuflow.isolation.decoding import InProcess
from gpuflow.isolation.pool import DecoderPool
from gpuflow.isolation.remote import Isolated
from gpuflow.media import Blob
from gpuflow.memory import Slab
from tests.unit.image_files import encoded, scene
from tests.waiting import wait_until

JPEG = MediaType("jpeg", "image")
LIMITS = Limits(image_seconds=30.0)
CLIP = samples.clip(seconds=2.0)
MIB = 1 << 20
SDP = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 45671 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"


def picture(number: int = 0, side: int = 64) -> Blob:
    """A JPEG unlike the others, as a blob."""
    data = encoded(np.roll(scene(side, side), number, axis=1), "JPEG", quality=90)
    return Blob(data, f"{number:064d}")


def pixels_of(blob: Blob) -> Any:
    """What this process decodes."""
    with (
        InProcess().begin(blob, JPEG, "image", limits=LIMITS, deadline=Deadline(60.0)) as decoder,
        decoder.image(image_info(blob.data, JPEG), 0) as pixels,
    ):
        return np.array(pixels.array)


def decode(
    isolated: Isolated,
    blob: Blob,
    *,
    seconds: float = 60.0,
    deadline: Deadline | None = None,
    limits: Limits = LIMITS,
) -> Any:
    """What a worker decodes."""
    deadline = deadline or Deadline(seconds)
    with isolated.begin(blob, JPEG, "image", limits=limits, deadline=deadline) as decoder:
        deadline.limit(seconds)
        with decoder.image(image_info(blob.data, JPEG), 0) as pixels:
            return np.array(pixels.array)


@contextlib.contextmanager
def pool_of(slab: Slab, **arguments: Any) -> Iterator[tuple[DecoderPool, Isolated]]:
    with DecoderPool(slab, **{"workers": 1, **arguments}) as pool:
        wait_until(lambda: len(pool.pids) == pool.workers)
        yield pool, Isolated(pool, slab)


def open_clip(isolated: Isolated, blob: Blob, kind: MediaType) -> None:
    with (
        isolated.begin(blob, kind, "video", limits=LIMITS, deadline=Deadline(30.0)) as decoder,
        decoder.clip(),
    ):
        pass


def begun(pool: DecoderPool) -> int:
    """Jobs that a worker got."""
    return pool.counters.snapshot().get("gpuflow_decode_jobs_total", 0)


def stop(pid: int) -> None:
    """SIGSTOP, and wait until every thread has stopped."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    wait_until(lambda: all(_state(task) in "Tt" for task in tasks.iterdir()))


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return _state(Path(f"/proc/{pid}")) != "Z"
    return False


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def eventually(attempt: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except BackendUnavailable:
            assert time.monotonic() < deadline
