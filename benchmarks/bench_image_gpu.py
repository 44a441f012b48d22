"""JPEG bytes to model tensors on a GPU, by how many requests are under way at once, against peers that decode in batches.

    python -m benchmarks.bench_image_gpu [--rounds N] [--quick] [--device cpu]

gpuflow is given single requests, as many at once as the row says; peers are given batches of that size, and each request
of a batch takes as long as all of it. Times are of one image; p50 and p99 of one request. All results stay on the
device. A row says how far each contender is from Hugging Face's processor on the CPU, in levels of 255. Without a GPU it
ends with status 3 and says why; --device cpu runs everything on the libraries' CPU paths: a test, and no measurement.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import _nvimgcodec as nv
from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks._image_gpu_peers import BATCH_PEERS, on_cores, on_host
from benchmarks._image_peers import LEVEL, Target, hf_torchvision
from benchmarks._pictures import encoded
from gpuflow.config import ImageOptions
from gpuflow.device import driver
from gpuflow.flow.flow import Flow
from gpuflow.media import Media

NO_GPU = 3
CONCURRENCY = (1, 8, 64, 256)
SIZES = ((500, 375), (1_920, 1_080))
JOBS: tuple[tuple[Target, tuple[int, int]], ...] = (
    ("clip-336", SIZES[0]), ("clip-336", SIZES[1]), ("qwen2.5-vl", SIZES[0]),
)  # fmt: skip
PICTURES = 16  # of a size: other contents, so that no cache holds them
MEAN_LEVELS = 2.0  # nearest chroma is off by 0.3, another crop by 7
Batch = Callable[[Sequence[bytes]], list[Any]]
OURS, CORES = "gpuflow", "torchvision by hand, on all cores"


@dataclass(frozen=True, slots=True)
class Job:
    """``total`` requests for these pictures, of one size, so many at once."""

    target: Target
    size: tuple[int, int]
    datas: Sequence[bytes]
    concurrency: int
    total: int


@dataclass(slots=True)
class Timed:
    """A contender's run, which notes how long each of its requests took."""

    requests: Callable[[list[float]], None]
    seconds: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        self.requests(self.seconds)


class Server:
    """A flow on an event loop of its own, given requests as a server gives them."""

    def __init__(self, stack: ExitStack, **options: Any) -> None:
        async def make() -> Flow:
            return Flow(**options)

        self._runner = stack.enter_context(asyncio.Runner())
        self._flow = self._runner.run(make())
        stack.callback(lambda: self._runner.run(self._flow.aclose()))

    def one(self, target: Target, data: bytes) -> Any:
        """One result, copied to the host."""

        async def load() -> Any:
            with await self._flow.load(data, options=ImageOptions(preset=target)) as features:
                return features.numpy().copy()

        return self._runner.run(load())

    def all_of(self, job: Job, seconds: list[float]) -> None:
        """A job's requests, each begun when one before it has ended."""
        following = iter(range(job.total))

        async def client() -> None:
            for number in following:
                began = time.perf_counter()
                data = job.datas[number % len(job.datas)]
                media: Media = await self._flow.load(data, options=ImageOptions(preset=job.target))
                seconds.append(time.perf_counter() - began)
                media.release()

        async def clients() -> None:
            await asyncio.gather(*(client() for _ in range(job.concurrency)))

        self._runner.run(clients())


def main() -> int:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    if wanted.device != "cpu" and not driver().count:
        print(f"no GPU here: {driver().reason}")
        return NO_GPU
    device = "cpu" if wanted.device == "cpu" else "cuda"
    with ExitStack() as stack:
        measured = list(rows(stack, device, rounds=wanted.rounds, quick=wanted.quick))
    hardware = limits(device, quick=wanted.quick)
    for row in measured:
        row["share_of_the_decoder"] = share(row, hardware)
    targets = [verdict for row in measured for verdict in _targets(row)]
    note = "times of one image; peers are given batches"
    print(save("image_gpu", measured, out=wanted.out, device=device, note=note, hardware=hardware, targets=targets))
    return 0


def rows(stack: ExitStack, device: str, *, rounds: int, quick: bool) -> Iterator[dict[str, Any]]:
    """All rows, each measured as it is asked for."""
    import torch

    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    pool = stack.enter_context(ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)))
    slab = "64MiB" if quick else "4GiB"
    servers = {OURS: Server(stack, device=device, slab_bytes=slab)}
    if device != "cpu":
        servers["gpuflow on the CPU"] = Server(stack, device="cpu", slab_bytes=slab)
    for job in _jobs(quick):
        yield _row(job, servers, pool, device, rounds)


def _jobs(quick: bool) -> Iterator[Job]:
    tiny: tuple[tuple[Target, tuple[int, int]], ...] = (("clip-336", (96, 64)), ("qwen2.5-vl", (96, 64)))
    for target, size in tiny if quick else JOBS:
        datas = [encoded("JPEG", *size, seed) for seed in range(2 if quick else PICTURES)]
        for concurrency in CONCURRENCY[:2] if quick else CONCURRENCY:
            yield Job(target, size, datas, concurrency, concurrency if quick else max(16, 2 * concurrency))


def _row(job: Job, servers: dict[str, Server], pool: Executor, device: str, rounds: int) -> dict[str, Any]:
    exactness, timed, absent = {}, {}, {}
    for name, server in servers.items():
        exactness[name] = _off([server.one(job.target, data) for data in job.datas], job)
        timed[name] = Timed(functools.partial(server.all_of, job))
    batches: dict[str, Batch] = {
        CORES: lambda datas: on_cores(job.target, datas, pool),
        **{name: functools.partial(_called, peer, job.target, device) for name, peer in BATCH_PEERS.items()},
    }
    for name, batch in batches.items():
        off = _tried(batch, job)
        if isinstance(off, str):
            absent[name] = off
            continue
        exactness[name] = off
        timed[name] = Timed(functools.partial(_in_batches, batch, job))
    what = f"JPEG {'x'.join(map(str, job.size))} to {job.target}, {job.concurrency} at once"
    contenders = [Contender(name, run) for name, run in timed.items()]
    (measured,) = measure([Row(what, contenders, absent=absent, items=job.total)], rounds=rounds, warm=1)
    for name, entry in measured["entries"].items():
        entry |= _latencies(timed[name].seconds[-rounds * job.total :]) | {"off_levels": exactness[name]}
        entry["images_per_second"] = round(1e3 / entry["wall_ms"], 1)
        entry["cpu_seconds_per_1000_images"] = entry["cpu_ms"]
    return measured | {"size": job.size, "concurrency": job.concurrency, "target": job.target}


def _called(peer: Any, target: Target, device: str, datas: Sequence[bytes]) -> list[Any]:
    results: list[Any] = peer(target, datas, device)
    return results


def _in_batches(batch: Batch, job: Job, seconds: list[float]) -> None:
    for first in range(0, job.total, job.concurrency):
        numbers = range(first, min(first + job.concurrency, job.total))
        datas = [job.datas[number % len(job.datas)] for number in numbers]
        began = time.perf_counter()
        batch(datas)
        seconds += [time.perf_counter() - began] * len(datas)


def _tried(batch: Batch, job: Job) -> Any:
    """How far a peer is off, or why it cannot be compared."""
    try:
        return _off([on_host(result) for result in batch(job.datas)], job)
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and that is a result
        return f"fails: {type(error).__name__} {str(error).strip()[:120]}"


def _off(results: Sequence[Any], job: Job) -> dict[str, float]:
    """Levels of 255 between results and Hugging Face's processor on the CPU, which decodes by libjpeg."""
    offs = []
    for result, data in zip(results, job.datas, strict=True):
        expected = _reference(job.target, data)
        offs.append(np.abs(result.reshape(expected.shape) - expected) / LEVEL)
    found = {
        "max": round(max(float(off.max()) for off in offs), 3),
        "mean": round(float(np.mean([o.mean() for o in offs])), 4),
    }
    if found["mean"] > MEAN_LEVELS:
        raise ValueError(f"another picture came out: {found} levels off")
    return found


@functools.lru_cache(maxsize=128)
def _reference(target: Target, data: bytes) -> Any:
    return hf_torchvision(target, data).numpy()


def _latencies(seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, (50, 99))
    return {"p50_ms": round(1e3 * float(p50), 3), "p99_ms": round(1e3 * float(p99), 3)}


def limits(device: str, *, quick: bool = False) -> dict[str, Any]:
    """What the NVJPG engines give at most: their number, and images a second of decoding alone, by size and batch."""
    kind = None if device == "cpu" else "HW_GPU_ONLY"
    rates: dict[str, dict[int, Any]] = {}
    for size in ((96, 64),) if quick else SIZES:
        datas = [encoded("JPEG", *size, seed) for seed in range(2 if quick else PICTURES)]
        found = rates.setdefault("x".join(map(str, size)), {})
        for batch in (1, 2) if quick else (1, 7, 16, 32, 64):
            try:
                found[batch] = nv.decode_rate(device, datas, batch, kind=kind, seconds=0.05 if quick else 1.0)
            except Exception as error:  # noqa: BLE001 - no hardware engine here, say
                found[batch] = f"fails: {type(error).__name__} {str(error)[:120]}"
    return nv.engines() | {"images_per_second_of_decoding_alone": rates}


def share(row: dict[str, Any], hardware: dict[str, Any]) -> float | None:
    """gpuflow's images a second over the most that decoding alone gives; ``None`` where that is not known."""
    rates = hardware["images_per_second_of_decoding_alone"]["x".join(map(str, row["size"]))].values()
    most = max((rate for rate in rates if isinstance(rate, float)), default=None)
    return round(float(row["entries"][OURS]["images_per_second"]) / most, 3) if most else None


def _targets(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What a row says about the issue's targets: against the fastest peer that is as exact, all cores, and CPU time."""
    entries = row["entries"]
    ours = entries[OURS]
    peers = {name: entry for name, entry in entries.items() if name in BATCH_PEERS}
    exact = {n: e for n, e in peers.items() if e["off_levels"]["mean"] <= ours["off_levels"]["mean"]}
    found = [{"row": row["name"], "what": "CPU ms an image", "is": ours["cpu_ms"], "at_most": 0.2}]
    for what, among, least in (
        ("the fastest peer", peers, 1.5), ("the fastest peer as exact", exact, 1.5), ("all cores", {CORES: entries.get(CORES)}, 8.0),
    ):  # fmt: skip
        ratios = {name: entry["wall_ratio"] for name, entry in among.items() if entry}
        if ratios:
            name = min(ratios, key=ratios.__getitem__)
            found.append({"row": row["name"], "what": f"{what}: {name}", "is": ratios[name], "at_least": least})
    return found


if __name__ == "__main__":
    sys.exit(main())
