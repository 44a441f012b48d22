"""What is asked of a GPU about images before anything is measured on it, in the order of the research notes.

    python -m benchmarks.h200_image_checklist --out DIR [--quick] [--step NAME]

Each step runs in a process of its own, within its time: one that fails, hangs or ends its process costs no other. All
answers lie in DIR/image_checklist.json, and as text, each under its question, in DIR/NOTES.txt. Without a GPU it ends
with status 3 and says why.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import _gpu_place as on
from benchmarks import _nvimgcodec_load as load
from benchmarks import _nvimgcodec_steps as steps
from benchmarks._checklist import Checklist, Step
from benchmarks._nvimgcodec_first import first_call
from benchmarks.bench_image_gpu import rows

NAME, NOTES = "image_checklist.json", "NOTES.txt"


def latency_and_requests(quick: bool) -> dict[str, Any]:
    """12: images a second, latency and exactness against the peers: ``bench_image_gpu``, few rounds."""
    with ExitStack() as stack:
        return {"rows": list(rows(stack, on.PLACE.device, rounds=1 if quick else 3, quick=quick))}


STEPS: dict[str, tuple[Step, float]] = {
    "first_call": (first_call, 60.0),
    "into_the_slab": (steps.into_the_slab, 60.0),
    "routes": (steps.routes, 60.0),
    "fancy_chroma": (steps.fancy_chroma, 60.0),
    "differences": (steps.differences, 60.0),
    "stream_hazard": (load.stream_hazard, 90.0),
    "bad_sample": (load.bad_sample, 60.0),
    "decoders_and_threads": (load.decoders_and_threads, 60.0),
    "shared_decoder": (load.shared_decoder, 60.0),
    "memory_growth": (load.memory_growth, 60.0),
    "batches": (load.batches, 120.0),
    "latency_and_requests": (latency_and_requests, 240.0),
}


def conclude(out: Path, answers: dict[str, Any]) -> None:
    """Write the notes: each question, and its answers a line each."""
    lines = []
    for name, found in answers.items():
        lines += [f"{name}: {(STEPS[name][0].__doc__ or '').strip()}"]
        lines += [f"    {key}: {json.dumps(value, default=str)[:600]}" for key, value in found.items()] + [""]
    (out / NOTES).write_text("\n".join(lines))


CHECKLIST = Checklist("benchmarks.h200_image_checklist", NAME, __doc__ or "", STEPS, conclude=conclude)

if __name__ == "__main__":
    sys.exit(CHECKLIST.main())
