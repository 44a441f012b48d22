"""A slab that decode workers may write to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpuflow.memory import Slab


@pytest.fixture
def shared() -> Iterator[Slab]:
    with Slab("64MiB", shared=True) as slab:
        yield slab
        assert slab.statistics().live_leases == 0
