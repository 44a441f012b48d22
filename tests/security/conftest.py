"""The table of what was tried against the library: every test of this folder adds its row, and the run prints it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("table.json")  # of the last run with --write-table: kept in the repository
_ROWS = pytest.StashKey[dict[str, dict[str, object]]]()
Tally = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="write the security table into the repository")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = {}


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """``tally("row", cases=1, refused=1)`` adds numbers up; ``worst_ms=3`` keeps the largest of what begins so."""

    def add(row: str, **figures: float) -> None:
        found = request.config.stash[_ROWS].setdefault(row, {})
        for name, figure in figures.items():
            before = found.get(name, 0)
            assert isinstance(before, (int, float))
            found[name] = round(max(before, figure), 1) if name.startswith("worst") else before + figure

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[_ROWS]
    if not rows:
        return
    terminalreporter.section("what was tried against the library")
    for row, figures in rows.items():
        told = ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in figures.items())
        terminalreporter.line(f"{row:<44} {told}")
    if config.getoption("--write-table"):
        TABLE.write_text(json.dumps(rows, indent=1) + "\n")
