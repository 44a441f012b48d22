"""What is asked of a GPU about video before anything is measured on it, in the order of the research notes (section 8).

    python -m benchmarks.h200_video_checklist --out DIR [--quick] [--step NAME]

Each step runs in a process of its own, within its time: PyNvVideoCodec ends the process on some errors, and one step
that fails or hangs costs no other. All answers lie in DIR/video_checklist.json. Clips are made on the spot by real
encoders before the first step. Without a GPU it ends with status 3 and says why.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import _nvdec_steps as nvdec
from benchmarks._clips import ClipSpec, clip, number
from benchmarks._harness import machine, measure
from benchmarks.bench_video_gpu import NO_GPU, jobs
from gpuflow.device import driver

NAME = "video_checklist.json"
TOTAL_SECONDS = 570.0
_DALI_REQUESTS = 2_000


def main() -> int:
    """Run all steps, or one of them in this process."""
    wanted = _arguments()
    wanted.out.mkdir(parents=True, exist_ok=True)
    if not driver().count:
        print(f"no GPU here: {driver().reason}")
        _write(wanted.out / NAME, {"gpu": None, "reason": driver().reason, "steps": sorted(STEPS)})
        return NO_GPU
    if wanted.step:
        _write(wanted.out / f"step-{wanted.step}.json", _answer(STEPS[wanted.step][0], wanted.quick))
        return 0
    return _all(wanted.out, wanted.quick)


def _all(out: Path, quick: bool) -> int:
    ends = time.monotonic() + TOTAL_SECONDS
    prepare(quick)
    answers: dict[str, Any] = {}
    for name, (_, seconds) in STEPS.items():
        answers[name] = _in_a_process(name, out, quick, min(seconds, ends - time.monotonic()))
        _write(
            out / NAME, {"machine": machine(), "quick": quick, "answers": answers}
        )  # kept, should the next one end us
        print(f"{name}: {json.dumps(answers[name])[:400]}", flush=True)
    return 0


def prepare(quick: bool) -> None:
    """Make all clips, side by side."""
    specs = {nvdec.spec(codec, quick=quick, height=height) for codec in nvdec.CLIPS for height in (480, 720, 1_080)}
    if not quick:
        specs |= {ClipSpec(codec, 1_920, 1_080, 30, 60.0) for codec in ("libx264", "libx265")}
        specs |= {ClipSpec("libx264", 1_280, 720, gop, 20.0) for gop in (30, 60, 90, 120)}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(clip, specs))


def _in_a_process(name: str, out: Path, quick: bool, seconds: float) -> Any:
    path = out / f"step-{name}.json"
    path.unlink(missing_ok=True)
    if seconds <= 5:
        return {"failed": "no time was left"}
    command = [sys.executable, "-m", "benchmarks.h200_video_checklist", "--out", str(out), "--step", name]
    try:
        done = subprocess.run(
            [*command, "--quick"] if quick else command, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        return {"failed": f"not done after {seconds:.0f} s", "output": str(error.stderr or b"")[-1_000:]}
    if path.exists():
        return json.loads(path.read_text())
    return {
        "failed": f"the process ended with status {done.returncode}",
        "output": (done.stdout + done.stderr)[-1_500:],
    }


def _answer(step: Callable[[bool], dict[str, Any]], quick: bool) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        found = step(quick)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to this step
        found = {"failed": f"{type(error).__name__}: {error}"[:500], "at": traceback.format_exc()[-1_500:]}
    return found | {"seconds": round(time.perf_counter() - began, 1)}


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


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the answers")
    parser.add_argument("--quick", action="store_true", help="the smallest clips: a test that it runs")
    parser.add_argument("--step", choices=STEPS, help="one step, in this process")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
