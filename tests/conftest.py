"""Fixtures of all tests: the device to test on, a slab that must end empty, a flow, real media where they lie."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks._priority import never_real_time
from gpuflow import device as devices
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.sync import SyncFlow
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from gpuflow.workers import worker_pool
from tests.tally import Tally
from tests.waiting import PATIENT, wait_until

TABLE = Path(__file__).parent / "security" / "table.json"  # of the last run with --write-table: kept
_ROWS = pytest.StashKey[dict[str, dict[str, float]]]()
REAL_MEDIA = Path(__file__).parents[2] / "shared" / "media"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests where there is no GPU, unless ``GPUFLOW_REQUIRE_GPU=1`` says that there must be one."""
    if os.environ.get("GPUFLOW_REQUIRE_GPU") == "1":
        return
    chosen = devices.choose("auto")
    if chosen.is_cuda:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=f"no GPU here: {chosen.reason}"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """``"cpu"``, and ``"cuda"`` where there is one."""
    return str(request.param)


@pytest.fixture
def slab() -> Iterator[Slab]:
    """A 256 MiB host slab; the test must give every lease back."""
    with Slab("256MiB") as slab:
        yield slab
        assert slab.statistics().live_leases == 0


@pytest.fixture
def context(slab: Slab) -> Iterator[LoadContext]:
    """The surroundings of one load on the CPU, with the default limits."""
    with worker_pool(2, "gpuflow-segment") as pool:
        yield LoadContext(
            device=devices.choose("cpu"),
            slab=slab,
            host_slab=slab,
            limits=PATIENT,
            deadline=Deadline(60.0),
            counters=Counters(),
            segment_pool=pool,
        )


@pytest.fixture(scope="module", params=["none", "process"])
def flow(request: pytest.FixtureRequest) -> Iterator[SyncFlow]:
    """On this process's threads, and in worker processes."""
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=2, isolation=request.param, limits=PATIENT) as flow:
        yield flow
        wait_until(lambda: flow.slab.statistics().live_leases == 0)


@pytest.fixture(scope="session")
def real_media() -> Path:
    """The folder of real media files; tests that use it skip where it is absent."""
    if not REAL_MEDIA.is_dir():
        pytest.skip("the folder of real media files is not here")
    return REAL_MEDIA


def pytest_addoption(parser: pytest.Parser) -> None:
    """What runs on record are asked for."""
    parser.addoption("--write-table", action="store_true", help="keep the table of what was tried in the repository")


def pytest_configure(config: pytest.Config) -> None:
    """No row yet; no encoder takes the machine."""
    config.stash[_ROWS] = {}
    never_real_time()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """``tally("row", cases=1, refused=1)`` adds up in the table of what was tried against the library; of figures that
    begin with ``worst`` the largest is kept."""

    def add(row: str, **figures: float) -> None:
        found = request.config.stash[_ROWS].setdefault(row, {})
        for name, figure in figures.items():
            before = found.get(name, 0)
            found[name] = round(max(before, figure), 2) if name.startswith("worst") else before + figure

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write it where that was asked for."""
    rows = config.stash[_ROWS]
    if not rows:
        return
    terminalreporter.section("what was tried against the library")
    for row, figures in rows.items():
        told = ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in figures.items())
        terminalreporter.line(f"{row:<52} {told}")
    if config.getoption("--write-table"):
        TABLE.write_text(json.dumps(rows, indent=1) + "\n")
