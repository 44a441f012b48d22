"""What is asked of a GPU about video before anything is measured on it, in the order of the research notes (section 8).

    python -m benchmarks.h200_video_checklist --out DIR [--quick] [--step NAME]

Each step runs in a process of its own, within its time: PyNvVideoCodec ends the process on some errors, and one step
that fails or hangs costs no other. All answers lie in DIR/video_checklist.json. Clips are made on the spot by real
encoders before the first step. Without a GPU it ends with status 3 and says why.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from benchmarks import _nvdec_steps as nvdec
from benchmarks._checklist import Checklist
from benchmarks._clips import ClipSpec, clip, number
from benchmarks._harness import measure
from benchmarks.bench_video_gpu import jobs

NAME = "video_checklist.json"
_DALI_REQUESTS = 2_000


def prepare(quick: bool) -> None:
    """Make all clips, side by side."""
    specs = {nvdec.spec(codec, quick=quick, height=height) for codec in nvdec.CLIPS for height in (480, 720, 1_080)}
    if not quick:
        specs |= {ClipSpec(codec, 1_920, 1_080, 30, 60.0) for codec in ("libx264", "libx265")}
        specs |= {ClipSpec("libx264", 1_280, 720, gop, 20.0) for gop in (30, 60, 90, 120)}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(clip, specs))


def dali(quick: bool) -> dict[str, Any]:
    """8: DALI on the device: its matrix, what follows an edit list's end, and host memory over many requests."""
    import numpy as np

    from benchmarks._video_gpu_peers import dali_mixed, on_host

    which = nvdec.spec("h264", quick=quick)
    data, source = clip(which), nvdec.opened(which)
    found: dict[str, Any] = {}
    indices = [0, len(source.pts_seconds) // 2, len(source.pts_seconds) - 1]
    planes = [nvdec.reference(source)[index] for index in indices]
    frames = on_host(dali_mixed(data, indices)).astype(float)
    for matrix in ("bt601", "bt709"):
        expected = np.stack([_rgb(plane, matrix) for plane in planes])
        found[f"mean_off_{matrix}"] = round(float(np.abs(frames - expected).mean()), 3)
    edited = nvdec.edited(data, 7)
    found["edit_list"] = {
        "first": number(on_host(dali_mixed(edited, [0]))[0]),
        "should_be": 7,
        "beyond_the_end": "error",
    }
    try:
        found["edit_list"]["beyond_the_end"] = number(on_host(dali_mixed(edited, [len(source.pts_seconds) - 1]))[0])
    except RuntimeError as error:
        found["edit_list"]["beyond_the_end"] = str(error)[-200:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    requests = 20 if quick else _DALI_REQUESTS
    began, done = time.perf_counter(), 0
    while done < requests and time.perf_counter() - began < 60:
        dali_mixed(data, indices)
        done += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return found | {"requests": done, "host_memory_grown_kib": grown}


def _rgb(nv12: Any, matrix: str) -> Any:
    """Float RGB of limited NV12, chroma repeated."""
    import numpy as np

    from gpuflow.ops.color import yuv_to_rgb

    height = nv12.shape[0] * 2 // 3
    chroma = nv12[height:].reshape(height // 2, -1, 2).repeat(2, 0).repeat(2, 1)
    values = np.concatenate([nv12[:height, :, None], chroma, np.ones((height, nv12.shape[1], 1))], -1)
    weights = yuv_to_rgb(matrix, full_range=False, bit_depth=8)
    return (values @ weights.T.astype(float)).clip(0, 255)


def latency_and_requests(quick: bool) -> dict[str, Any]:
    """One long clip by engines, and requests a second side by side, against the peers: ``bench_video_gpu``, few rounds."""
    specs = [nvdec.spec("h264", quick=True)] if quick else None
    rows = []
    with ExitStack() as stack:
        for row in jobs(stack, "cuda", specs):
            try:
                rows += measure([row], rounds=1 if quick else 3, warm=1)
            except Exception as error:  # noqa: BLE001 - one row that fails ends no other
                rows.append({"name": row.name, "failed": f"{type(error).__name__}: {error}"[:300]})
    return {"rows": rows}


STEPS: dict[str, tuple[Callable[[bool], dict[str, Any]], float]] = {
    "packets": (nvdec.packets, 60.0),
    "drain": (nvdec.drain, 60.0),
    "drop": (nvdec.drop, 60.0),
    "validity": (nvdec.validity, 40.0),
    "reconfigure": (nvdec.reconfigure, 60.0),
    "capabilities": (nvdec.capabilities, 30.0),
    "colour": (nvdec.colour, 60.0),
    "rates": (nvdec.rates, 160.0),
    "latency_and_requests": (latency_and_requests, 240.0),
    "dali": (dali, 90.0),
}


CHECKLIST = Checklist("benchmarks.h200_video_checklist", NAME, __doc__ or "", STEPS, prepare)

if __name__ == "__main__":
    sys.exit(CHECKLIST.main())
