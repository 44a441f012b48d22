"""The emulator itself: what it must notice, on kernels that are wrong on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpuflow.ops.kernels import Launch
from tests.kernels_host.building import (
    ORDERS,
    SANITIZE,
    HostKernel,
    Schedule,
    build_for_host,
    libasan,
    variants,
    without_barrier,
)

REVERSED = """
extern "C" __global__ void reversed(const int* in, int* out, int n)
{
    extern __shared__ int held[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) held[i] = in[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = held[n - 1 - i];
}
"""
COUNT = 37


def _kernel(code: str, folder: Path, *options: str) -> HostKernel:
    return HostKernel(build_for_host("reversed", code, folder / "reversed.so", (), *options))


def _launch(
    data: np.ndarray[tuple[int], np.dtype[np.int32]], out: np.ndarray[tuple[int], np.dtype[np.int32]]
) -> Launch:
    arguments = (np.uint64(data.ctypes.data), np.uint64(out.ctypes.data), np.int32(COUNT))
    return Launch("reversed", (), (1, 1), (16, 1), arguments, 4 * COUNT)


def _run(kernel: HostKernel, schedule: Schedule) -> bool:
    """Whether it reversed what it was given."""
    data, out = np.arange(COUNT, dtype=np.int32), np.zeros(COUNT, np.int32)
    kernel.run(_launch(data, out), schedule)
    return bool((out == data[::-1]).all())


@pytest.mark.parametrize("options", [(), ("-DEMULATOR_UCONTEXT",)], ids=["own switch", "ucontext"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_threads_meet_at_barriers_whoever_comes_first(tmp_path: Path, order: int, options: tuple[str, ...]) -> None:
    assert _run(_kernel(REVERSED, tmp_path, *options), Schedule(order))


def test_a_missing_barrier_shows_with_many_threads_and_not_with_one(tmp_path: Path) -> None:
    kernel = _kernel(without_barrier(REVERSED, 0), tmp_path)
    assert _run(kernel, Schedule(block=(1, 1)))
    assert not any(_run(kernel, Schedule(order)) for order in ORDERS.values())


def test_a_barrier_that_some_threads_never_reach_is_a_fault(tmp_path: Path) -> None:
    code = REVERSED.replace("    __syncthreads();", "    if (threadIdx.x == 3) return;\n    __syncthreads();")
    with pytest.raises(AssertionError, match="ended while others wait"):
        _run(_kernel(code, tmp_path), Schedule())


def test_threads_that_wait_at_different_barriers_are_a_fault(tmp_path: Path) -> None:
    code = REVERSED.replace(
        "    __syncthreads();", "    if (threadIdx.x % 2) __syncthreads();\n    else\n    __syncthreads();"
    )
    with pytest.raises(AssertionError, match="different barriers"):
        _run(_kernel(code, tmp_path), Schedule())


def test_shared_memory_holds_nothing_of_use_when_a_block_begins(tmp_path: Path) -> None:
    code = REVERSED.replace("held[i] = in[i]", "held[i] += 0 * in[i]")
    data, out = np.zeros(COUNT, np.int32), np.zeros(COUNT, np.int32)
    _kernel(code, tmp_path).run(_launch(data, out), Schedule())
    assert (out == -1).all()


def test_arguments_of_other_types_than_the_parameters_are_refused(tmp_path: Path) -> None:
    kernel, out = _kernel(REVERSED, tmp_path), np.zeros(COUNT, np.int32)
    good = _launch(out, out)
    for wrong in ((*good.arguments[:2], np.int64(1)), (*good.arguments[:2], np.float32(1)), good.arguments[:2]):
        with pytest.raises(AssertionError):
            kernel.run(Launch("reversed", (), (1, 1), (16, 1), wrong, 4 * COUNT), Schedule())


def test_a_write_behind_an_array_is_caught_by_the_sanitiser_with_its_line(tmp_path: Path) -> None:
    library = libasan()
    if library is None:
        pytest.skip("g++ has no libasan here")
    build_for_host("reversed", REVERSED.replace("out[i] =", "out[i + 1] ="), tmp_path / "reversed.so", (), *SANITIZE)
    program = (
        "import sys; from pathlib import Path; import tests.kernels_host.test_emulator as t;"
        "t._run(t.HostKernel(Path(sys.argv[1])), t.Schedule())"
    )
    environment = os.environ | {"LD_PRELOAD": str(library), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-c", program, str(tmp_path / "reversed.so")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root, timeout=120)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "reversed.cpp:7" in done.stderr, done.stderr[-4_000:]


def test_variants_are_every_combination_that_the_header_names() -> None:
    named = variants("// What it does.\n// Variants: SAMPLE=unsigned char|unsigned short N=1|2\n")
    assert named == tuple(
        (("SAMPLE", sample), ("N", n)) for sample in ("unsigned char", "unsigned short") for n in "12"
    )
    assert variants("// What it does.\n") == ((),)
