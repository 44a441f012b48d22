"""Interleaved comparison: every contender once a round, in an order that changes, warm, wall and CPU time.

These machines are shared and noisy, so figures are medians with quartiles, and ratios to gpuflow in the same run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OURS = "gpuflow"
RESULTS = Path(__file__).with_name("results")
PACKAGES = (
    "torch", "torchvision", "torchaudio", "torchcodec", "transformers", "numpy", "pillow", "av", "soundfile", "soxr",
    "librosa", "opencv-python-headless", "nixl-cu13", "nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13",
    "PyNvVideoCodec", "cupy-cuda13x", "ray", "ai-dynamo-runtime",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing a row's job. ``run`` returns what it made, for ``check``."""

    name: str
    run: Callable[[], Any]


@dataclass(slots=True)
class Row:
    """One job and its contenders; ``check`` raises if a result is wrong. ``absent``: peers that are not here, and why.
    ``items``: how many of what is measured a run does; the row's times are of one."""

    name: str
    contenders: Sequence[Contender]
    check: Callable[[str, Any], None] | None = None
    absent: dict[str, str] = field(default_factory=dict)
    items: int = 1


def measure(rows: Sequence[Row], *, rounds: int, warm: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Time every contender of every row; a row's contenders take turns. ``warm=0``: they have run and were checked."""
    rng, measured = random.Random(seed), []
    for row in rows:
        for contender in row.contenders if warm else ():
            for _ in range(warm):
                result = contender.run()
            if row.check is not None:
                row.check(contender.name, result)
        times: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender in row.contenders}
        for _ in range(rounds):
            for contender in rng.sample(list(row.contenders), len(row.contenders)):
                wall, cpu = _time(contender.run)
                times[contender.name].append((wall / row.items, cpu / row.items))
        measured.append(_summary(row, times))
        print(_line(measured[-1]), flush=True)
    return measured


def save(
    name: str, rows: list[dict[str, Any]], *, out: Path | None, device: str = "cpu", note: str = "", **more: Any
) -> Path:
    """Write ``<name>.json`` below ``out`` or ``results/<machine>/``, with everything needed to read it later."""
    folder = out or RESULTS / machine_name(device)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps(
            {"benchmark": name, "note": note, "device": device, "machine": machine(), "rows": rows, **more}, indent=1
        )
        + "\n"
    )
    return path


def arguments(description: str) -> argparse.Namespace:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=15, help="how often each contender runs (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes only: a test that it runs")
    parser.add_argument("--device", default="auto", help="device of gpuflow's contenders (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the JSON (default: results/<machine>)")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Processor, cores, load, Python, versions, GPU."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release().split("-")[0],
        "gpu": _gpu(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def machine_name(device: str) -> str:
    """The folder of a machine's results."""
    name = _gpu() if device.startswith("cuda") else f"{_processor()} {len(os.sched_getaffinity(0))} cores"
    return re.sub(
        r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)|cpu|processor|@.*ghz", "", (name or "unknown").lower())
    ).strip("-")


def _time(run: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _summary(row: Row, times: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    medians = {name: statistics.median(wall for wall, _ in pairs) for name, pairs in times.items()}
    cpu = {name: statistics.median(used for _, used in pairs) for name, pairs in times.items()}
    ours = next(name for name in times if name.startswith(OURS))
    entries = {}
    for name, pairs in times.items():
        quartiles = statistics.quantiles([wall for wall, _ in pairs], n=4) if len(pairs) > 1 else [medians[name]] * 3
        entries[name] = {
            "wall_ms": round(1e3 * medians[name], 4),
            "wall_quartiles_ms": [round(1e3 * quartiles[0], 4), round(1e3 * quartiles[2], 4)],
            "cpu_ms": round(1e3 * cpu[name], 4),
            "wall_ratio": round(medians[name] / medians[ours], 3),
            "cpu_ratio": round(cpu[name] / cpu[ours], 3) if cpu[ours] else None,
        }
    return {"name": row.name, "rounds": len(next(iter(times.values()))), "entries": entries, "absent": row.absent}


def _line(row: dict[str, Any]) -> str:
    parts = [f"{name} {e['wall_ms']:.2f} ms x{e['wall_ratio']:.2f}" for name, e in row["entries"].items()]
    return f"{row['name']}: " + ", ".join(parts + [f"{name}: {why}" for name, why in row["absent"].items()])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _gpu() -> str | None:
    from gpuflow.device import driver

    if driver().count == 0:
        return None
    import torch

    return torch.cuda.get_device_name(0)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
