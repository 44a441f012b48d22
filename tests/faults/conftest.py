"""A slab that decode workers may write to, a flow with and without them; a reader of another process, by each way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpuflow.flow.sync import SyncFlow
from gpuflow.memory import Slab
from gpuflow.transfer import Reader
from tests.faults.peers import WAYS, transport
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


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How the bytes of the other process come; see ``peer_process``."""
    return str(request.param)


@pytest.fixture
def reader(way: str) -> Iterator[Reader]:
    """A reader by that way; the test must release what it read."""
    with Reader(slab_bytes="1GiB", device="cpu", transports=(transport(way),)) as reader:
        yield reader
        assert reader.slab.statistics().live_leases == 0
