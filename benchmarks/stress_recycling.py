"""Blocks that are recycled while they are read: no reader may take another block's bytes for its own.

A publishing process offers batches of blocks, each filled with one value, and while this process reads them it
withdraws one after another and overwrites it. Counted: reads that gave the right bytes, reads that were refused as
stale, how many of those had bytes of the next tenant in them, and reads that gave wrong bytes: these must be none.

    python -m benchmarks.stress_recycling [--reads N] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import random
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._harness import RESULTS, machine, machine_name
from gpuflow.errors import StaleDescriptor
from gpuflow.media import Image, ImageMetadata, TensorSpec, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Descriptor, Publisher, Reader
from gpuflow.transfer.transports import Transport

NBYTES, BATCH, STEP = 4 << 20, 16, 512 << 10
# At random up to twice what a read takes, so that it comes now before, now during and now after it.
PACE_SECONDS: dict[Transport, float] = {"shm": 0.0016, "nixl": 0.0024}
WHOLE = TensorSpec("data", "uint8", (NBYTES,))


def main() -> None:
    """Run over both ways, print, save; exit status 1 if a stale read went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=100_000, help="reads over each way (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the JSON (default: results/<machine>)")
    wanted = parser.parse_args()
    found = {way: dict(_stress(way, wanted.reads)) for way in ("shm", "nixl")}
    print(json.dumps(found, indent=1))
    folder = wanted.out or RESULTS / machine_name("cpu")
    folder.mkdir(parents=True, exist_ok=True)
    report = {"stress": "recycling", "block_bytes": NBYTES, "machine": machine(), "found": found}
    (folder / "recycling.json").write_text(json.dumps(report, indent=1) + "\n")
    raise SystemExit(any(counts["wrong"] for counts in found.values()))


def _stress(way: Transport, reads: int) -> Counter[str]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_publish, args=(theirs, way), daemon=True)
    process.start()
    theirs.close()
    counts: Counter[str] = Counter(right=0, stale=0, stale_with_foreign_bytes=0, wrong=0)
    with Reader(slab_bytes="16MiB", device="cpu", transports=(way,)) as reader:
        while counts["right"] + counts["stale"] + counts["wrong"] < reads:
            ours.send("batch")
            for value, raw in ours.recv():
                counts.update(_read(reader, Descriptor.from_bytes(raw), value))
    ours.send("stop")
    process.join(30)
    return counts


def _read(reader: Reader, descriptor: Descriptor, value: int) -> list[str]:
    with reader.slab.allocate(NBYTES) as lease:
        lease.array(WHOLE)[:] = value  # what a read leaves untouched does not count as foreign
        try:
            reader.read(descriptor, into=lease.retain(), timeout_seconds=30.0).release()
        except StaleDescriptor:
            foreign = bool((lease.array(WHOLE) != value).any())
            lease.release()
            return ["stale", "stale_with_foreign_bytes"] if foreign else ["stale"]
        return ["right" if (lease.array(WHOLE) == value).all() else "wrong"]


def _publish(pipe: Connection, way: Transport) -> None:
    value = 0
    with Slab(2 * BATCH * NBYTES) as slab, Publisher(slab, transports=(way,)) as publisher:
        while pipe.recv() == "batch":
            offered: list[tuple[int, Descriptor]] = []
            for _ in range(BATCH):
                value = (value + 1) % 255
                with _fill(slab, value) as image:
                    offered.append((value, publisher.publish(image, reads=2, ttl_seconds=60.0)))
            overwriting = threading.Thread(target=_overwrite, args=(slab, publisher, offered, PACE_SECONDS[way]))
            overwriting.start()
            pipe.send([(value, descriptor.to_bytes()) for value, descriptor in offered])
            overwriting.join()


def _overwrite(slab: Slab, publisher: Publisher, offered: list[tuple[int, Any]], pace_seconds: float) -> None:
    rng = random.Random(offered[0][0])
    for _, descriptor in offered:
        time.sleep(rng.uniform(0.0, pace_seconds))  # at the reader's pace, now ahead of it and now behind
        publisher.cancel(descriptor)
        with _fill(slab, 255):  # best fit gives the block that just became free
            pass


def _fill(slab: Slab, value: int) -> Image:
    lease = slab.allocate(NBYTES, timeout_seconds=5.0)
    array = lease.array(WHOLE)
    for start in range(NBYTES - STEP, -1, -STEP):  # from the end, to meet a reader that comes from the front
        array[start : start + STEP] = value
    lease.seal()
    return Image(lease, lay_out({"data": ("uint8", (NBYTES,))}), ImageMetadata("raw", NBYTES, 1), backend="stress")


if __name__ == "__main__":
    main()
