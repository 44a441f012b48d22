"""Bad images in the middle of good ones: each ends in its own error, and no other notices; at once, in no memory."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from gpuflow.config import Limits
from gpuflow.errors import GpuflowError
from gpuflow.flow.flow import Flow
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import ImageMetadata, Outcome
from tests.faults.bad_images import GOOD, STILL, bad, uri
from tests.tally import Tally
from tests.unit.image_files import Pixels, by_pillow

MEDIA = Path(__file__).parents[3] / "shared" / "media"  # a part of it, where it is there
SECONDS = 0.05
GROWTH_BYTES = 64 << 20
MEASURED = """
import json, resource, sys, time
from pathlib import Path
import gpuflow
from tests.faults.bad_images import GOOD, STILL, bad
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
files = bad(Path(sys.argv[1]))
with gpuflow.SyncFlow(device="cpu", slab_bytes="64MiB") as flow:
    for name in STILL:
        flow.load(GOOD[name]).release()
    before, slow = peak(), {}
    for name, (source, _) in files.items():
        times = []
        for _ in range(3):
            started = time.process_time()
            try:
                flow.load(source).release()
            except gpuflow.GpuflowError:
                pass
            times.append(time.process_time() - started)
        slow[name] = min(times)
print(json.dumps({"grown": peak() - before, "seconds": max(slow.values()), "slowest": max(slow, key=slow.get)}))
"""


def expected_pixels() -> Iterator[tuple[bytes, Pixels]]:
    """Good images of every format, again and again, and their pixels on white."""
    pixels = {name: by_pillow(GOOD[name]) for name in STILL if name != "png alpha"}
    return itertools.cycle((GOOD[name], array) for name, array in pixels.items())


async def _streamed(sources: list[bytes | str], isolation: Literal["none", "process"]) -> list[str | Pixels]:
    """In order: pixels of what was read, codes of what was not."""
    limits = Limits(image_seconds=60.0)
    async with Flow(device="cpu", slab_bytes="256MiB", limits=limits, isolation=isolation, workers=2) as flow:
        found = [_result(outcome) async for outcome in flow.stream(sources, ordered=True, max_in_flight=8)]
        assert flow.slab.statistics().live_leases == 0
    return found


def _result(outcome: Outcome) -> str | Pixels:
    if outcome.error is not None:
        assert isinstance(outcome.error, GpuflowError)
        assert outcome.error.http_status < 500
        return outcome.error.code
    assert outcome.media is not None
    with outcome.media as media:
        pixels: Pixels = media.numpy().copy()
        return pixels


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_each_bad_image_has_its_error_and_its_neighbours_their_pixels(
    isolation: Literal["none", "process"], tally: Tally
) -> None:
    files, good = bad(MEDIA), expected_pixels()
    neighbours = [next(good) for _ in files]
    sources = [part for pair in zip((data for data, _ in neighbours), (data for data, _ in files.values()), strict=True) for part in pair]  # fmt: skip
    found = asyncio.run(_streamed(sources, isolation))
    assert len(found) == len(sources)
    for (_, pixels), read in zip(neighbours, found[::2], strict=True):
        assert isinstance(read, np.ndarray)
        assert np.array_equal(read, pixels)
    codes = {name: (read if isinstance(read, str) else None) for name, read in zip(files, found[1::2], strict=True)}
    assert {name: code for name, code in codes.items() if code not in files[name][1]} == {}
    tally("bad images among good ones", cases=len(files), good_ones_harmed=0)


def test_every_bad_image_ends_at_once_and_takes_no_memory(tally: Tally) -> None:
    paths = os.pathsep.join(path for path in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if path)
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, str(MEDIA)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert run.returncode == 0, run.stderr[-2_000:]
    found = json.loads(run.stdout)
    assert found["grown"] < GROWTH_BYTES
    assert found["seconds"] < SECONDS, found["slowest"]
    tally("bad images among good ones", worst_ms=1_000 * found["seconds"])


@pytest.mark.parametrize("kind", ["image/png", "image/gif", "text/html", "application/octet-stream", "video/mp4"])
def test_a_type_that_lies_changes_nothing(kind: str) -> None:
    sources: list[bytes | str] = [uri(kind, GOOD[name]) for name in ("jpeg", "tiff", "webp")]
    found = asyncio.run(_streamed(sources, "none"))
    for name, read in zip(("jpeg", "tiff", "webp"), found, strict=True):
        assert isinstance(read, np.ndarray)
        assert np.array_equal(read, by_pillow(GOOD[name]))


def test_a_name_that_lies_changes_nothing(tmp_path: Path) -> None:
    with SyncFlow(device="cpu", slab_bytes="64MiB") as flow:
        for name, ending in (("jpeg", "png"), ("tiff", "jpg"), ("gif", "webp")):
            file = tmp_path / f"picture.{ending}"
            file.write_bytes(GOOD[name])
            with flow.load(file) as image:
                assert isinstance(image.metadata, ImageMetadata)
                assert image.metadata.format == name
