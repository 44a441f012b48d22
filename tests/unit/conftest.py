"""A slab that a few media fill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpuflow.memory import Slab


@pytest.fixture
def small() -> Iterator[Slab]:
    """An 8 MiB host slab; the test must give every lease back."""
    with Slab("8MiB") as slab:
        yield slab
        assert slab.statistics().live_leases == 0
