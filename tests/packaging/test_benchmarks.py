"""Every benchmark runs at its smallest size, gives a result a row, and can be drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _harness, bench_image
from benchmarks._harness import Contender, Row, measure

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_at_size_one_and_is_drawn(name: str, tmp_path: Path) -> None:
    _run("-m", f"benchmarks.{name}", "--quick", "--rounds", "1", "--device", "cpu", "--out", str(tmp_path))
    result = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert result["machine"]["versions"]["torch"]
    for row in result["rows"]:
        ours = [entry for contender, entry in row["entries"].items() if contender.startswith("gpuflow")]
        assert ours[0]["wall_ratio"] == 1.0
        assert len(row["entries"]) + len(row["absent"]) >= 2
    _run("-m", "benchmarks.plot", str(tmp_path))
    assert next(tmp_path.glob("*.png")).stat().st_size > 10_000


def test_the_stress_of_recycled_blocks_finds_no_wrong_byte(tmp_path: Path) -> None:
    _run("-m", "benchmarks.stress_recycling", "--reads", "100", "--out", str(tmp_path))
    found = json.loads((tmp_path / "recycling.json").read_text())["found"]
    assert {counts["wrong"] for counts in found.values()} == {0}
    assert all(counts["right"] + counts["stale"] >= 100 for counts in found.values())


def test_times_of_a_row_are_of_one_of_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_harness, "_time", lambda run: (0.8, 0.4))
    (row,) = measure([Row("four pictures", [Contender("gpuflow", list)], items=4)], rounds=3, warm=0)
    assert (row["entries"]["gpuflow"]["wall_ms"], row["entries"]["gpuflow"]["cpu_ms"]) == (200.0, 100.0)


def test_a_row_of_jpegs_is_held_to_hugging_faces_pillow_path_and_to_its_fastest() -> None:
    times = {
        "gpuflow": 2.0,
        "HF PIL": 7.0,
        "HF torchvision, PIL decode": 5.0,
        "HF torchvision, torchvision decode": 2.2,
    }
    entries = {name: {"wall_ms": time, "wall_ratio": time / 2, "cpu_ratio": time / 2} for name, time in times.items()}
    row: dict[str, Any] = {"name": "JPEG", "entries": entries}
    verdicts = {target["peer"]: target["met"] for target in bench_image.with_rates(row, "JPEG")}
    assert verdicts == {"HF PIL": True, "HF torchvision, torchvision decode": False}
    assert [target["met"] for target in bench_image.with_rates(row, "PNG")] == [True]
    assert row["entries"]["gpuflow"]["images_per_second"] == 500.0


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
