"""Damaged files through the whole way, decoded by sandboxed workers: none of them ends one.

Seeded. ``GPUFLOW_FUZZ_INPUTS=1000000`` for a long run, ``GPUFLOW_FUZZ_SEED`` for another, ``GPUFLOW_CORPUS`` for a folder of
files to begin with besides those that are made here.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpuflow.config import Limits
from gpuflow.device import choose
from gpuflow.errors import DecoderCrashed, GpuflowError
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.dispatch import load_blob
from gpuflow.isolation.pool import DecoderPool
from gpuflow.isolation.remote import Isolated
from gpuflow.media import Blob, Media
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from tests.faults.test_probe_fuzz import mutated
from tests.tally import Tally
from tests.unit.probe_files import FILES, made

INPUTS = int(os.environ.get("GPUFLOW_FUZZ_INPUTS", "20000"))
SEED = int(os.environ.get("GPUFLOW_FUZZ_SEED", "0"))
CORPUS = os.environ.get("GPUFLOW_CORPUS")
LIMITS = Limits(image_seconds=10.0, audio_seconds=10.0, video_seconds=10.0)
MAX_BYTES = 1 << 20
WORKERS = 2


def _seeds() -> list[bytes]:
    files = [path for path in sorted(Path(CORPUS).rglob("*")) if path.is_file()] if CORPUS else []
    corpus = [path.read_bytes() for path in files if 0 < path.stat().st_size <= MAX_BYTES]
    return [data for name in sorted(FILES) if len(data := made(name)) <= MAX_BYTES] + corpus


class Fuzzing:
    """What the damaged files came to."""

    def __init__(self, pool: DecoderPool, slab: Slab) -> None:
        self.outcomes: Counter[str] = Counter()
        self.crashes: list[str] = []
        self.slowest = 0.0
        self._pool, self._slab = pool, slab
        self._lock = threading.Lock()

    def load(self, data: bytes, number: int) -> None:
        """One file, as a request's bytes."""
        context = LoadContext(
            device=choose("cpu"),
            slab=self._slab,
            host_slab=self._slab,
            limits=LIMITS,
            deadline=Deadline(30.0),
            counters=Counters(),
            decoding=Isolated(self._pool, self._slab),
        )
        started = time.monotonic()
        try:
            media = load_blob(Blob(data, f"{number:064d}"), None, None, context)
            assert isinstance(media, Media)
            media.release()
            outcome = "decoded"
        except GpuflowError as error:
            outcome = type(error).__name__
            if isinstance(error, DecoderCrashed) or error.http_status >= 500:
                self.crashes.append(f"seed {SEED}, input {number}: {error}")
        with self._lock:
            self.outcomes[outcome] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_damaged_file_ends_a_worker(tally: Tally) -> None:
    seeds, rng = _seeds(), random.Random(SEED)
    with Slab("256MiB", shared=True) as slab, DecoderPool(slab, workers=WORKERS, max_queued=8) as pool:
        fuzzing = Fuzzing(pool, slab)
        with ThreadPoolExecutor(WORKERS) as threads:
            for start in range(0, INPUTS, 1_000):
                batch = [mutated(rng.choice(seeds), rng) for _ in range(min(1_000, INPUTS - start))]
                list(threads.map(fuzzing.load, batch, range(start, start + len(batch))))
        peak = max(_peak_mib(pid) for pid in pool.pids)
        assert slab.statistics().live_leases == 0
    assert fuzzing.crashes == []
    assert sum(fuzzing.outcomes.values()) == INPUTS
    assert fuzzing.outcomes["decoded"] > INPUTS // 20
    assert peak < 2_048
    tally(
        "damaged files, decoded by sandboxed workers", cases=INPUTS, decoded=fuzzing.outcomes["decoded"], workers_ended=0,
        worst_seconds=fuzzing.slowest, worst_worker_mib=peak,
    )  # fmt: skip
