"""What does not show costs nothing: no memory, no time, no other pixel, in this process and in workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Literal

import pytest

from gpuflow.config import ImageOptions
from gpuflow.errors import GpuflowError
from gpuflow.flow.sync import SyncFlow
from tests.faults.hidden_loads import hidden_loads, transparent_where_it_does_not_say
from tests.tally import Tally

Isolation = Literal["none", "process"]
SECONDS = 0.1
GROWTH_BYTES = 64 << 20
MEASURED = """
import json, os, sys, time
from pathlib import Path
import numpy as np
import gpuflow
from tests.faults.hidden_loads import hidden_loads
def facts(of):
    return dict(line.split(":", 1) for line in Path(f"/proc/{of}/status").read_text().splitlines())
def peak(isolation):
    here = [os.getpid()]
    if isolation == "process":
        here = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        here += [n for path in Path("/proc/self/task").iterdir() for n in (path / "children").read_text().split()]
        assert here
    return max(int(facts(of)["VmHWM"].split()[0]) << 10 for of in here)
def load(flow, data, frame):
    with flow.load(data, options=gpuflow.ImageOptions(frame=frame)) as image:
        return image.numpy().copy()
isolation, files = sys.argv[1], hidden_loads()
found, seconds = {}, {}
with gpuflow.SyncFlow(device="cpu", slab_bytes="64MiB", isolation=isolation, workers=1) as flow:
    plain = {name: load(flow, data, frame) for name, (_, data, frame) in files.items()}
    Path("/proc/self/clear_refs").write_text("5")  # the peak of making the files is not that of reading them
    before = peak(isolation)
    for name, (data, _, frame) in files.items():
        started = time.process_time()
        found[name] = load(flow, data, frame)
        seconds[name] = time.process_time() - started
    grown = peak(isolation) - before
others = [name for name in files if not np.array_equal(plain[name], found[name])]
slowest = max(seconds, key=seconds.get)
print(json.dumps({"grown": grown, "seconds": seconds[slowest], "slowest": slowest, "others": others}))
"""


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_what_does_not_show_takes_no_memory_and_no_time(isolation: Isolation, tally: Tally) -> None:
    paths = os.pathsep.join(path for path in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if path)
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, isolation],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert run.returncode == 0, run.stderr[-2_000:]
    found = json.loads(run.stdout)
    assert found["others"] == []
    assert found["grown"] < GROWTH_BYTES
    assert found["seconds"] < SECONDS, found["slowest"]
    tally("images with much that does not show", cases=len(hidden_loads()), worst_ms=1_000 * found["seconds"])


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_transparency_of_which_the_header_knows_nothing_is_no_error_of_the_server(isolation: Isolation) -> None:
    data = transparent_where_it_does_not_say()
    with SyncFlow(device="cpu", slab_bytes="64MiB", isolation=isolation, workers=1) as flow:
        ends = [_end(flow, data, options) for options in (ImageOptions(), ImageOptions(preset="clip-224"))]
        assert flow.slab.statistics().live_leases == 0
    assert ends[0] == ends[1]
    assert ends[0] in {"read", "media_unprocessable"}


def _end(flow: SyncFlow, data: bytes, options: ImageOptions) -> str:
    """The code of the error that an image ends in, or that it is read."""
    try:
        flow.load(data, options=options).release()
    except GpuflowError as error:
        return error.code
    return "read"
