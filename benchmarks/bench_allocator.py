"""The slab's allocator: time of an allocation and its release, and how often it fails under a server's request mix.

The simulation runs the slab's own queue (``memory.arbiter``) with simulated time: Poisson arrivals; 55 % images
(tiles, Qwen-style patches, 4k uint8), 15 % clips of 8 to 128 frames, 15 % mel features, 15 % embeddings; lives of
0.25 to 0.8 s at the median, and 3 % held for 2 to 15 s by slow or dead readers, or until their time is over.

    python -m benchmarks.bench_allocator [--rounds N] [--quick]
"""

from __future__ import annotations

import heapq
import itertools
import random
from typing import Any

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from gpuflow.memory import Slab
from gpuflow.memory.arbiter import Arbiter, Request
from gpuflow.memory.extents import Extents
from gpuflow.transfer.board import GRACE_SECONDS

MIB, GIB = 1 << 20, 1 << 30
LARGEST = 400 * MIB
EACH = 200  # allocations a round


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    arrivals = 500 if wanted.quick else 60_000
    policies = [
        _simulate(capacity, load, wait_seconds=wait, ttl_seconds=ttl, arrivals=arrivals)
        for capacity, load in ((8 * GIB, 0.8), (8 * GIB, 0.9), (2 * GIB, 0.9))
        for wait, ttl in ((0.0, None), (1.0, None), (0.0, 2.0), (1.0, 2.0))
    ]
    for policy in policies:
        print(policy)
    rows = measure([_times()], rounds=wanted.rounds)
    print(save("allocator", rows, out=wanted.out, note="a slab of 1 GiB, 80 % full", simulation=policies))


def _times() -> Row:
    rng = random.Random(0)
    sizes = [min(_size(rng), 64 * MIB) for _ in range(EACH)]
    slab = Slab("1GiB")
    held: list[Any] = []
    while slab.statistics().free_bytes > 0.2 * slab.nbytes:
        lease = slab.allocate(min(_size(rng), 16 * MIB))
        held.append(lease) if rng.random() < 0.7 else lease.release()

    largest = slab.statistics().largest_free_bytes
    sizes = [min(size, largest) for size in sizes]

    def leases() -> int:
        for size in sizes:
            slab.allocate(size).release()
        return len(sizes)

    def arrays() -> int:
        return sum(np.empty(size, np.uint8).nbytes > 0 for size in sizes)

    def tensors() -> int:
        import torch

        return sum(torch.empty(size, dtype=torch.uint8).nbytes > 0 for size in sizes)

    def check(name: str, count: int) -> None:
        assert 0.9 * EACH < count <= EACH, (name, count)

    contenders = [Contender("gpuflow", leases), Contender("numpy.empty", arrays), Contender("torch.empty", tensors)]
    return Row(f"{EACH} allocations and releases, never touched", contenders, check)


def _simulate(
    capacity: int, load: float, *, wait_seconds: float, ttl_seconds: float | None, arrivals: int
) -> dict[str, Any]:
    """Failed allocations of ``arrivals`` at an offered load of ``load`` times the capacity."""
    rng = random.Random(1)
    arbiter, now = Arbiter(Extents(capacity)), 0.0
    sample = [(_size(rng), _life(rng, None)) for _ in range(20_000)]
    rate = load * capacity / (sum(size * life for size, life in sample) / len(sample))
    order = itertools.count()
    ends: list[tuple[float, int, Request, float]] = []  # time, order, what, its life
    failed = failed_large = large = 0
    used: list[float] = []
    for _ in range(arrivals):
        now += rng.expovariate(rate)
        failed_now = _advance(arbiter, ends, now, order)
        failed += len(failed_now)
        failed_large += sum(request.nbytes >= 64 * MIB for request in failed_now)
        used.append(1 - arbiter.extents.free_bytes / capacity)
        size, life = _size(rng), _life(rng, ttl_seconds)
        large += size >= 64 * MIB
        request = Request(size, now, arbiter.take(size, now))
        if request.start is not None:
            heapq.heappush(ends, (now + life, next(order), request, 0.0))
        elif wait_seconds:
            heapq.heappush(ends, (now + wait_seconds, next(order), arbiter.wait(size, now), life))
        else:
            failed += 1
            failed_large += size >= 64 * MIB
    return {
        "slab_gib": capacity // GIB,
        "load": load,
        "wait_seconds": wait_seconds,
        "ttl_seconds": ttl_seconds,
        "arrivals": arrivals,
        "failed_percent": round(100 * failed / arrivals, 4),
        "failed_percent_of_64_mib_and_more": round(100 * failed_large / max(1, large), 3),
        "mean_use": round(sum(used) / len(used), 3),
    }


def _advance(arbiter: Arbiter, ends: list[Any], now: float, order: Any) -> list[Request]:
    """Let everything happen that happens until ``now``; returns those that gave up."""
    failed = []
    while ends and ends[0][0] <= now:
        moment, _, request, life = heapq.heappop(ends)
        if life and request.start is not None:
            continue  # a waiter that was served meanwhile: its end is noted already
        if life:
            arbiter.withdraw(request)
            failed.append(request)
        else:
            arbiter.extents.free(request.start, request.nbytes)
        lives = {id(entry[2]): entry[3] for entry in ends if entry[3]}
        for served in arbiter.grant(moment):
            heapq.heappush(ends, (moment + lives[id(served)], next(order), served, 0.0))
    return failed


def _size(rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.25:  # tiles of 336 x 336, float32
        size = rng.randint(1, 6) * 3 * 336 * 336 * 4
    elif kind < 0.45:  # patches of Qwen's kind, float32
        size = rng.randint(256, 4096) * 1176 * 4
    elif kind < 0.55:  # uint8 as decoded, up to 4k
        size = 3 * rng.randint(640, 3840) * rng.randint(480, 2160)
    elif kind < 0.70:  # clips, uint8
        height = rng.choice([224, 336, 360, 480, 720])
        size = 3 * height * height * 16 // 9 * rng.choice([8, 16, 32, 64, 128])
    elif kind < 0.85:  # mel features, float32
        size = rng.choice([80, 128]) * 4 * rng.randint(500, 6000)
    else:  # embeddings, bfloat16
        size = rng.randint(196, 4096) * rng.choice([1024, 3584, 4096]) * 2
    return min(size, LARGEST)


def _life(rng: random.Random, ttl_seconds: float | None) -> float:
    if rng.random() < 0.03:
        held = rng.uniform(2.0, 15.0)
        return held if ttl_seconds is None else min(held, ttl_seconds + GRACE_SECONDS)
    return rng.lognormvariate(-0.8, 0.5)


if __name__ == "__main__":
    main()
