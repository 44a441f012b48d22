"""Waiting for what other threads and processes do, without sleeping: by asking again and again, for a bounded time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from gpuflow.config import Limits

LONGEST_SECONDS = 60.0  # on a machine that others use too
PATIENT = Limits(image_seconds=60.0, audio_seconds=60.0)  # libraries are imported on the way


def wait_until(holds: Callable[[], bool]) -> None:
    """Ask until ``holds`` is true; fail when it does not become so."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        os.sched_yield()
