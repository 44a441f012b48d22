"""Every benchmark runs at its smallest size, gives a result a row, and can be drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
