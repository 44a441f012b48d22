"""A slab that decode workers may write to; a reader of another process, by each way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpuflow.memory import Slab
from gpuflow.transfer import Reader
from tests.faults.peers import WAYS, transport


@pytest.fixture
def shared() -> Iterator[Slab]:
    with Slab("64MiB", shared=True) as slab:
        yield slab
        assert slab.statistics().live_leases == 0


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
