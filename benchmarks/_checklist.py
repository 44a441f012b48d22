"""Runs the steps of a checklist: each in a process of its own, within its time, its answer kept before the next begins."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._harness import machine
from gpuflow.device import driver

NO_GPU = 3
TOTAL_SECONDS = 570.0
Step = Callable[[bool], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Checklist:
    """``module`` runs it, ``name`` is its file of answers; ``prepare(quick)`` comes before the first step, ``conclude``
    after each: it is given the folder and all answers so far. ``steps``: the step and the seconds it may take."""

    module: str
    name: str
    description: str
    steps: dict[str, tuple[Step, float]]
    prepare: Callable[[bool], None] = lambda _: None
    conclude: Callable[[Path, dict[str, Any]], None] = lambda _, __: None

    def main(self) -> int:
        """Run all steps, or one of them in this process."""
        wanted = self._arguments()
        wanted.out.mkdir(parents=True, exist_ok=True)
        if not driver().count:
            print(f"no GPU here: {driver().reason}")
            write(wanted.out / self.name, {"gpu": None, "reason": driver().reason, "steps": sorted(self.steps)})
            return NO_GPU
        if wanted.step:
            write(wanted.out / f"step-{wanted.step}.json", answer(self.steps[wanted.step][0], wanted.quick))
            return 0
        self._all(wanted.out, wanted.quick)
        return 0

    def _all(self, out: Path, quick: bool) -> None:
        ends = time.monotonic() + TOTAL_SECONDS
        self.prepare(quick)
        answers: dict[str, Any] = {}
        for name, (_, seconds) in self.steps.items():
            answers[name] = self._in_a_process(name, out, quick, min(seconds, ends - time.monotonic()))
            content = {"machine": machine(), "quick": quick, "answers": answers}
            write(out / self.name, content)  # kept, should the next one end us
            self.conclude(out, answers)
            print(f"{name}: {json.dumps(answers[name])[:400]}", flush=True)

    def _in_a_process(self, name: str, out: Path, quick: bool, seconds: float) -> Any:
        path = out / f"step-{name}.json"
        path.unlink(missing_ok=True)
        if seconds <= 5:
            return {"failed": "no time was left"}
        command = [sys.executable, "-m", self.module, "--out", str(out), "--step", name]
        try:
            done = subprocess.run(
                [*command, "--quick"] if quick else command,
                capture_output=True, text=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            return {"failed": f"not done after {seconds:.0f} s", "output": str(error.stderr or b"")[-1_000:]}
        if path.exists():
            return json.loads(path.read_text())
        output = (done.stdout + done.stderr)[-1_500:]
        return {"failed": f"the process ended with status {done.returncode}", "output": output}

    def _arguments(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=self.description)
        parser.add_argument("--out", type=Path, required=True, help="folder of the answers")
        parser.add_argument("--quick", action="store_true", help="the smallest inputs: a test that it runs")
        parser.add_argument("--step", choices=self.steps, help="one step, in this process")
        return parser.parse_args()


def answer(step: Step, quick: bool) -> dict[str, Any]:
    """What a step finds, or how it fails: that is an answer too."""
    began = time.perf_counter()
    try:
        found = step(quick)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to this step
        found = {"failed": f"{type(error).__name__}: {error}"[:500], "at": traceback.format_exc()[-1_500:]}
    return found | {"seconds": round(time.perf_counter() - began, 1)}


def write(path: Path, content: dict[str, Any]) -> None:
    """As JSON; what JSON lacks as text."""
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")
