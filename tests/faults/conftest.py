"""A slab that decode workers may write to, and a flow with and without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpuflow.flow.sync import SyncFlow
from gpuflow.memory import Slab
from tests.faults.pools import PATIENT
from tests.waiting import wait_until


@pytest.fixture
def shared() -> Iterator[Slab]:
    with Slab("64MiB", shared=True) as slab:
        yield slab
        assert slab.statistics().live_leases == 0


@pytest.fixture(scope="module", params=["none", "process"])
def flow(request: pytest.FixtureRequest) -> Iterator[SyncFlow]:
    """On this process's threads, and in worker processes."""
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=2, isolation=request.param, limits=PATIENT) as flow:
        yield flow
        wait_until(lambda: flow.slab.statistics().live_leases == 0)
