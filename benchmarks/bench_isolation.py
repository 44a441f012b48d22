"""Decoding in sandboxed worker processes against decoding in this process: the same calls, the same bytes out.

    python -m benchmarks.bench_isolation [--rounds N] [--quick] [--device cpu]

Both start from encoded bytes in memory and end with media in the slab; each result is compared once, byte for byte.
The ratio of "isolated" is what isolation costs. CPU time is this process's own: what a worker uses is not in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks._clips import ClipSpec, clip
from benchmarks._harness import Contender, Row, arguments, measure, save
from gpuflow.codecs.images import capabilities
from gpuflow.config import AudioOptions, ImageOptions, Limits, Options, VideoOptions
from gpuflow.demo import samples
from gpuflow.errors import GpuflowError
from gpuflow.flow.sync import SyncFlow

LIMITS = Limits(image_seconds=60.0, audio_seconds=60.0)  # a busy machine is no reason to stop
Case = tuple[str, bytes, Options]


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    cases = _cases(quick=wanted.quick)
    with (
        SyncFlow(device="cpu", limits=LIMITS) as here,
        SyncFlow(device="cpu", limits=LIMITS, isolation="process") as there,
    ):
        rows = [_row(here, there, *case) for case in cases]
        rows.append(_refused(here, there))
        measured = measure(rows, rounds=wanted.rounds)
    starts = [_start_seconds() for _ in range(1 if wanted.quick else 5)]
    print(f"a worker starts in {1e3 * float(np.median(starts)):.0f} ms")
    decoders = {name: found.version for name, found in capabilities().items() if found}
    print(
        save(
            "isolation", measured, out=wanted.out, note="bytes in memory to the slab; ratio = isolated / in process",
            worker_start_seconds=[round(seconds, 3) for seconds in starts], decoders=decoders,
        )
    )  # fmt: skip


def _cases(*, quick: bool) -> list[Case]:
    if quick:
        return [("JPEG 320x240", samples.picture("JPEG", width=320, height=240), ImageOptions())]
    jpeg = samples.picture("JPEG", width=1920, height=1080)
    small = clip(ClipSpec("libx264", 640, 360, 60, 10.0))
    return [
        ("JPEG 1920x1080", jpeg, ImageOptions()),
        ("JPEG 1920x1080 to clip-224", jpeg, ImageOptions(preset="clip-224")),
        ("PNG 1920x1080", samples.picture("PNG", width=1920, height=1080), ImageOptions()),
        ("WebP 1920x1080", samples.picture("WEBP", width=1920, height=1080), ImageOptions()),
        ("H.264 10 s 640x360, 20 frames", small, VideoOptions(num_frames=20)),
        ("H.264 10 s 640x360, 20 frames of 224x224", small, VideoOptions(num_frames=20, size=224)),
        ("H.264 10 s 1280x720, 20 frames", clip(ClipSpec("libx264", 1280, 720, 60, 10.0)), VideoOptions(num_frames=20)),
        ("MP3 5 s to 16 kHz", samples.recording(), AudioOptions(sample_rate=16_000)),
    ]


def _row(here: SyncFlow, there: SyncFlow, name: str, data: bytes, options: Options) -> Row:
    def run(flow: SyncFlow) -> Any:
        with flow.load(data, options=options) as media:
            return media.specs, media.metadata

    with here.load(data, options=options) as one, there.load(data, options=options) as other:
        assert one.metadata == other.metadata, name
        assert np.array_equal(one.numpy(), other.numpy()), name
    contenders = [Contender("gpuflow in process", lambda: run(here)), Contender("isolated", lambda: run(there))]
    return Row(name, contenders)


def _refused(here: SyncFlow, there: SyncFlow) -> Row:
    """What a round trip costs: bytes that end at once."""
    bad = samples.picture("PNG", width=32, height=32)[:60]

    def run(flow: SyncFlow) -> None:
        try:
            flow.load(bad).release()
        except GpuflowError:
            return
        raise AssertionError("a broken PNG was decoded")

    contenders = [Contender("gpuflow in process", lambda: run(here)), Contender("isolated", lambda: run(there))]
    return Row("broken PNG, refused", contenders)


def _start_seconds() -> float:
    """From nothing to one worker that is ready, in a process of its own."""
    code = (
        "import time, os; from gpuflow.isolation.pool import DecoderPool; from gpuflow.memory import Slab\n"
        "slab = Slab('4MiB', shared=True); began = time.monotonic()\n"
        "with DecoderPool(slab, workers=1) as pool:\n"
        "    while not pool.pids: time.sleep(0.002)\n"
        "    print(time.monotonic() - began)"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    return min(float(done.stdout), time.monotonic() - began)


if __name__ == "__main__":
    main()
