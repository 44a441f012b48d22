"""Video bytes to K sampled RGB frames: gpuflow's packet plan against the readers that servers use today.

    python -m benchmarks.bench_video [--rounds N] [--quick] [--device cuda]

All start from the same bytes in memory and end with the same K frames as (K, H, W, 3) uint8. The numbers in the
pictures are read before anything is timed, and compared with those of decoding everything (an encoder may blur one): a
peer that gives other frames, or none, is listed with what it did. Every contender has run once before.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from benchmarks._clips import ClipSpec, clip, number
from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks._video_peers import PEERS, pyav_all
from gpuflow.config import VideoOptions
from gpuflow.flow.sync import SyncFlow

SECONDS = 60.0


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    jobs = [(ClipSpec("libx264", 320, 180, 30, 2.0), 4)] if wanted.quick else list(_jobs())
    with SyncFlow(device=wanted.device) as flow:
        measured = []
        for spec, count in jobs:
            with _row(flow, spec, count) as row:
                measured += measure([row], rounds=wanted.rounds, warm=0)
            device = flow.flow.device.name  # after each row: all of them take an hour
            path = save("video", measured, out=wanted.out, device=device, note="60 s in memory to K RGB frames")
        print(path)


def _jobs() -> Iterator[tuple[ClipSpec, int]]:
    for codec, gop in itertools.product(("libx264", "libx265", "libvpx-vp9", "libsvtav1"), (30, 250)):
        for count in (16, 32, 64) if codec == "libx264" else (32,):
            yield ClipSpec(codec, 1280, 720, gop, SECONDS), count
    for codec, gop in itertools.product(("libx264", "libx265"), (30, 250)):
        yield ClipSpec(codec, 1920, 1080, gop, SECONDS), 32


@contextmanager
def _row(flow: SyncFlow, spec: ClipSpec, count: int) -> Iterator[Row]:
    data = clip(spec)
    indices = [round(i) for i in np.linspace(0, spec.num_frames - 1, count)]
    expected = pyav_all(data, indices)
    numbers = [number(frame) for frame in expected]
    held = ExitStack()  # the last result stays until the next, as a peer's array does

    def ours() -> Any:
        held.close()
        return held.enter_context(flow.load(data, options=VideoOptions(num_frames=count))).numpy()

    contenders, absent = [Contender("gpuflow", ours)], {}
    for name, peer in PEERS.items():
        if reason := _fault(peer, data, indices, numbers, expected.shape):
            absent[name] = reason
        else:
            contenders.append(Contender(name, functools.partial(peer, data, indices)))

    assert np.array_equal(ours(), expected)
    with held:
        yield Row(f"{spec}, {count} of {spec.num_frames} frames", contenders, absent=absent)


def _fault(peer: Any, data: bytes, indices: Sequence[int], numbers: Sequence[int], shape: tuple[int, ...]) -> str:
    """Why a peer cannot be compared on a clip; empty where it can."""
    try:
        return _wrong(peer(data, indices), numbers, shape)
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and that is a result
        lines = str(error).strip().splitlines() or [""]
        return f"fails: {type(error).__name__} {lines[0][:80]}"


def _wrong(result: Any, numbers: Sequence[int], shape: tuple[int, ...]) -> str:
    if result.shape != shape:
        return f"gives {result.shape}"
    wrong = sum(number(frame) != wanted for frame, wanted in zip(result, numbers, strict=True))
    return f"{wrong} of {len(numbers)} frames are others than asked for" if wrong else ""


if __name__ == "__main__":
    main()
