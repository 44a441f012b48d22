"""Video bytes to K sampled RGB frames on a GPU: one long clip by engines, and requests side by side, against peers.

    python -m benchmarks.bench_video_gpu [--rounds N] [--quick] [--device cpu]

A row of requests is the time of all of them: requests a second are their number over it, CPU-seconds a request its CPU
time over their number. All results stay on the device. Without a GPU it ends with status 3 and says why; --device cpu
runs the contenders that need none.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks._clips import ClipSpec, clip, number
from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks._video_gpu_peers import CPU_PEERS, GPU_PEERS, on_host
from benchmarks._video_peers import Peer
from gpuflow.config import NvdecPolicy, VideoOptions
from gpuflow.device import driver
from gpuflow.flow.sync import SyncFlow

NO_GPU = 3
SESSIONS = (1, 2, 4)
CONCURRENCY = (1, 8, 32)
_REQUESTS = 4  # of each thread


def main() -> int:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    if wanted.device != "cpu" and not driver().count:
        print(f"no GPU here: {driver().reason}")
        return NO_GPU
    quick = [ClipSpec("libx264", 320, 180, 30, 2.0)]
    with ExitStack() as stack:
        rows = jobs(stack, wanted.device, quick if wanted.quick else None)
        measured = [entry for row in rows for entry in measure([row], rounds=wanted.rounds, warm=1)]
        device = "cpu" if wanted.device == "cpu" else "cuda"  # "auto" would name the folder after the processor
        print(save("video_gpu", measured, out=wanted.out, device=device, note="bytes in memory to K RGB frames"))
    return 0


def jobs(stack: ExitStack, device: str, specs: Sequence[ClipSpec] | None = None) -> list[Row]:
    """All rows; ``specs``: clips to use, of the full size by default."""
    chosen = specs or [ClipSpec(codec, 1_920, 1_080, 30, 60.0) for codec in ("libx264", "libx265")]
    few = specs or [ClipSpec("libx264", 1_280, 720, gop, 20.0) for gop in (30, 60, 90, 120)]
    flow = stack.enter_context(SyncFlow(device=device, slab_bytes="2GiB" if specs is None else "64MiB"))
    rows = [_latency(stack, device, flow, spec, 4 if specs else 32) for spec in chosen]
    return rows + [
        _requests(flow, device, few, threads, 4 if specs else 16)
        for threads in (CONCURRENCY[:2] if specs else CONCURRENCY)
    ]


def _latency(stack: ExitStack, device: str, flow: SyncFlow, spec: ClipSpec, count: int) -> Row:
    """One clip, as fast as it goes, by how many sessions decode it."""
    data, indices = clip(spec), _indices(spec, count)
    contenders = [Contender("gpuflow", functools.partial(_ours, flow, data, count))]
    for sessions in SESSIONS if device != "cpu" else ():
        policy = NvdecPolicy(max_sessions=sessions)
        limited = stack.enter_context(SyncFlow(device=device, slab_bytes="1GiB", nvdec=policy))
        contenders.append(Contender(f"gpuflow, sessions: {sessions}", functools.partial(_ours, limited, data, count)))
    peers, absent = _peers(device, data, indices)
    contenders += [Contender(name, functools.partial(peer, data, indices)) for name, peer in peers.items()]

    def check(name: str, result: Any) -> None:
        assert [number(frame) for frame in on_host(result)] == indices, name

    return Row(f"one clip: {spec}, {count} of {spec.num_frames} frames", contenders, check, absent)


def _requests(flow: SyncFlow, device: str, specs: Sequence[ClipSpec], threads: int, count: int) -> Row:
    """Requests of several clips by several threads."""
    datas = [clip(spec) for spec in specs]
    indices = [_indices(spec, count) for spec in specs]
    peers, absent = _peers(device, datas[0], indices[0])
    total = _REQUESTS * threads

    def all_of(one: Callable[[int], Any]) -> Any:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, range(total)))

    def ours(request: int) -> Any:
        with flow.load(datas[request % len(datas)], options=VideoOptions(num_frames=count)) as frames:
            return frames.shape

    def theirs(peer: Peer, request: int) -> Any:
        return peer(datas[request % len(datas)], indices[request % len(datas)]).shape

    contenders = [Contender("gpuflow", functools.partial(all_of, ours))]
    contenders += [
        Contender(name, functools.partial(all_of, functools.partial(theirs, peer))) for name, peer in peers.items()
    ]
    name = f"{total} requests by {threads} threads: {specs[0]}, {count} frames each"
    return Row(name, contenders, absent=absent)


def _ours(flow: SyncFlow, data: bytes, count: int) -> Any:
    with flow.load(data, options=VideoOptions(num_frames=count)) as frames:
        return frames.tensor.clone()


def _peers(device: str, data: bytes, indices: Sequence[int]) -> tuple[dict[str, Peer], dict[str, str]]:
    """Those that give the right frames here, and why the others are absent."""
    found, absent = dict(CPU_PEERS), {}
    for name, peer in GPU_PEERS.items():
        if device == "cpu":
            absent[name] = "needs a GPU"
        elif reason := _fault(peer, data, indices):
            absent[name] = reason
        else:
            found[name] = peer
    return found, absent


def _fault(peer: Peer, data: bytes, indices: Sequence[int]) -> str:
    try:
        frames = on_host(peer(data, indices))
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and that is a result
        return f"fails: {type(error).__name__} {str(error).strip()[:80]}"
    wrong = sum(number(frame) != index for frame, index in zip(frames, indices, strict=True))
    return f"{wrong} of {len(indices)} frames are others than asked for" if wrong else ""


def _indices(spec: ClipSpec, count: int) -> list[int]:
    return [round(i) for i in np.linspace(0, spec.num_frames - 1, count)]


if __name__ == "__main__":
    sys.exit(main())
