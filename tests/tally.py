"""The type of the ``tally`` fixture, which adds to the table of what was tried against the library."""

from __future__ import annotations

from typing import Protocol


class Tally(Protocol):
    """Adds figures to a row."""

    def __call__(self, row: str, **figures: float) -> None: ...
