"""Fixtures shared by all tests: the device to test on, a slab that must end empty, real media where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuflow import device as devices
from gpuflow.config import Limits
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from gpuflow.workers import worker_pool

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
            limits=Limits(image_seconds=60.0, audio_seconds=60.0),  # libraries are imported on the way
            deadline=Deadline(60.0),
            counters=Counters(),
            segment_pool=pool,
        )


@pytest.fixture(scope="session")
def real_media() -> Path:
    """The folder of real media files; tests that use it skip where it is absent."""
    if not REAL_MEDIA.is_dir():
        pytest.skip("the folder of real media files is not here")
    return REAL_MEDIA
