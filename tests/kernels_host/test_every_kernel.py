"""Every kernel that there is: compiled for every architecture, run on the host in every order, without each barrier, and
under the sanitisers. A kernel without a check fails here."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpuflow.ops.kernels import Defines, Launch, source
from tests.kernels_host.building import (
    ARCHITECTURES,
    BARRIER,
    ORDERS,
    SANITIZE,
    SCHEDULES,
    HostKernel,
    Schedule,
    build_for_host,
    compile_by_nvrtc,
    kernel_names,
    libasan,
    variants,
    without_barrier,
)
from tests.kernels_host.checks import check_of

NAMES = kernel_names()
VARIANTS = [(name, defines) for name in NAMES for defines in variants(source(name))]
BARRIERS = [(name, number) for name in NAMES for number in range(len(BARRIER.findall(source(name))))]
SHORT_BYTES = 16

Libraries = dict[Defines, Path]


def _built(folder: Path, *options: str) -> dict[str, Libraries]:
    """Every kernel in every variant, as many at once as there are cores."""
    places = [folder / f"{number}.so" for number in range(len(VARIANTS))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(
            lambda variant, place: build_for_host(variant[0], source(variant[0]), place, variant[1], *options),
            VARIANTS,
            places,
        )
    libraries: dict[str, Libraries] = {name: {} for name in NAMES}
    for (name, defines), library in zip(VARIANTS, made, strict=True):
        libraries[name][defines] = library
    return libraries


def _check(name: str, libraries: Libraries, schedule: Schedule) -> None:
    kernels = {defines: HostKernel(library) for defines, library in libraries.items()}
    used = set()

    def run(launch: Launch) -> None:
        assert launch.name == name
        used.add(launch.defines)
        kernels[launch.defines].run(launch, schedule)

    check_of(name)(run)
    assert used == set(kernels), "a variant that the header names is not checked"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Libraries]:
    """Every kernel built for the host."""
    return _built(tmp_path_factory.mktemp("kernels"))


def test_there_are_kernels() -> None:
    assert NAMES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("name", "defines"), VARIANTS, ids=str)
def test_it_compiles_for_every_architecture_without_spills(name: str, defines: Defines, architecture: int) -> None:
    log = compile_by_nvrtc(name, architecture, defines)
    assert "0 bytes spill stores, 0 bytes spill loads" in log, log


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_on_the_host_it_is_right_in_every_order_and_with_every_block(
    libraries: dict[str, Libraries], name: str, schedule: Schedule
) -> None:
    _check(name, libraries[name], schedule)


@pytest.mark.parametrize(("name", "number"), BARRIERS, ids=str)
def test_without_one_of_its_barriers_it_is_wrong_in_every_order(
    libraries: dict[str, Libraries], name: str, number: int, tmp_path: Path
) -> None:
    """One variant without it is enough: the last one that takes that barrier at all."""
    code = without_barrier(source(name), number)
    for defines in reversed(variants(code)):
        mutant = build_for_host(name, code, tmp_path / f"{len(os.listdir(tmp_path))}.so", defines)
        if all(_is_wrong(name, libraries[name] | {defines: mutant}, order) for order in ORDERS.values()):
            return
    pytest.fail("no variant is wrong in every order without it")


def _is_wrong(name: str, libraries: Libraries, order: int) -> bool:
    try:
        _check(name, libraries, Schedule(order))
    except AssertionError:
        return True
    return False


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Libraries]:
    """Every kernel built with the address and undefined-behaviour sanitisers."""
    if libasan() is None:
        pytest.skip("g++ has no libasan here")
    return _built(tmp_path_factory.mktemp("sanitized"), *SANITIZE)


def _run_sanitized(name: str, libraries: Libraries, missing_bytes: int = 0) -> subprocess.CompletedProcess[str]:
    entries = [f"{defines}={library}" for defines, library in libraries.items()]
    command = [sys.executable, "-m", "tests.kernels_host.sanitized", name, str(missing_bytes), *entries]
    environment = os.environ | {
        "LD_PRELOAD": str(libasan()),
        "ASAN_OPTIONS": "detect_leaks=0:handle_segv=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    root = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root, timeout=120)


@pytest.mark.parametrize("name", NAMES)
def test_under_the_sanitisers_it_touches_nothing_that_is_not_its_own(
    sanitized: dict[str, Libraries], name: str
) -> None:
    done = _run_sanitized(name, sanitized[name])
    assert done.returncode == 0, done.stderr[-4_000:]


@pytest.mark.parametrize("name", [name for name in NAMES if "__shared__" in source(name)])
def test_shared_memory_that_is_too_small_is_caught_by_the_sanitiser(sanitized: dict[str, Libraries], name: str) -> None:
    done = _run_sanitized(name, sanitized[name], SHORT_BYTES)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr, done.stderr[-4_000:]
