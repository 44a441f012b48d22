"""The kernels as built for the host, for tests that run them on cases of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpuflow.ops.kernels import Launch, source
from tests.kernels_host.building import HostKernel, Schedule, build_for_host

Run = Callable[[Launch], None]


@pytest.fixture(scope="session")
def run_on_host(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a launch, one thread a block; a kernel is built when it is first asked for."""
    folder: Path = tmp_path_factory.mktemp("host")
    built: dict[object, HostKernel] = {}

    def run(launch: Launch) -> None:
        key = (launch.name, launch.defines)
        if key not in built:
            library = folder / f"{len(built)}.so"
            built[key] = HostKernel(build_for_host(launch.name, source(launch.name), library, launch.defines))
        built[key].run(launch, Schedule(block=(1, 1)))

    return run
