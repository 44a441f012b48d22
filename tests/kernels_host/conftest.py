"""The kernels as built for the host, for tests that run them on cases of their own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuflow.ops import audio_gpu, kernels, picture, staging, tables, views_kernel
from gpuflow.ops.kernels import Launch, source
from tests.kernels_host.building import HostKernel, Schedule, build_for_host

Run = Callable[[Launch], None]


@pytest.fixture(scope="session")
def run_on_host(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a launch, one thread a block; a kernel is built when it is first asked for, by whichever thread."""
    folder: Path = tmp_path_factory.mktemp("host")
    built: dict[object, HostKernel] = {}
    building = threading.Lock()

    def run(launch: Launch) -> None:
        key = (launch.name, launch.defines)
        with building:
            if key not in built:
                library = folder / f"{len(built)}.so"
                built[key] = HostKernel(build_for_host(launch.name, source(launch.name), library, launch.defines))
        built[key].run(launch, Schedule(block=(1, 1)))

    return run


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, run_on_host: Run) -> Iterator[Any]:
    """What stands in for CuPy where only wiring is tested."""
    from tests.kernels_host.cupy_wiring_only import module  # which needs Run from here

    fake: Any = module(run_on_host)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(kernels, "kernel", fake.kernel)
    kept = (
        picture.picture_kernel, views_kernel.views_kernel, audio_gpu.sound_kernels, tables.device_tables, staging.staging,
    )  # fmt: skip
    for one_a_gpu in kept:
        one_a_gpu.cache_clear()
    yield fake
    for one_a_gpu in kept:
        one_a_gpu.cache_clear()
