"""What is asked of a GPU about audio before anything is measured on it, in the order of the research notes (section 4).

    python -m benchmarks.h200_audio_checklist --out DIR [--quick] [--step NAME]

Each step runs in a process of its own, within its time: one that fails, hangs or ends its process costs no other. All
answers lie in DIR/audio_checklist.json, and as text, each under its question, in DIR/NOTES.txt. Without a GPU it ends
with status 3 and says why.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import _audio_device as device
from benchmarks import _audio_place as on
from benchmarks import _audio_steps as steps
from benchmarks import _audio_timings as timings
from benchmarks._checklist import Checklist, Step
from benchmarks.bench_audio_gpu import rows

NAME, NOTES = "audio_checklist.json", "NOTES.txt"


def batches_and_peers(quick: bool) -> dict[str, Any]:
    """15: microseconds a clip by batch and length against the peers: ``bench_audio_gpu``, few rounds."""
    return {"rows": list(rows(on.PLACE.device, rounds=1 if quick else 3, quick=quick))}


STEPS: dict[str, tuple[Step, float]] = {
    "first_call": (device.first_call, 120.0),
    "every_spec": (steps.every_spec, 90.0),
    "hard_signals": (steps.hard_signals, 60.0),
    "repeats": (steps.repeats, 60.0),
    "into_the_slab": (steps.into_the_slab, 40.0),
    "resampling": (steps.resampling, 60.0),
    "launch_times": (timings.launch_times, 60.0),
    "frames_per_block": (timings.frames_per_block, 60.0),
    "staging": (timings.staging, 40.0),
    "resample_times": (timings.resample_times, 40.0),
    "uploads": (device.uploads, 40.0),
    "occupancy": (device.occupancy, 40.0),
    "whole_way": (device.whole_way, 60.0),
    "sanitizers": (device.sanitizers, 120.0),
    "batches_and_peers": (batches_and_peers, 240.0),
}


def conclude(out: Path, answers: dict[str, Any]) -> None:
    """Write the notes: each question, and its answers a line each."""
    lines = []
    for name, found in answers.items():
        lines += [f"{name}: {(STEPS[name][0].__doc__ or '').strip()}"]
        lines += [f"    {key}: {json.dumps(value, default=str)[:600]}" for key, value in found.items()] + [""]
    (out / NOTES).write_text("\n".join(lines))


CHECKLIST = Checklist("benchmarks.h200_audio_checklist", NAME, __doc__ or "", STEPS, conclude=conclude)

if __name__ == "__main__":
    sys.exit(CHECKLIST.main())
