"""Kernels without a GPU: which there are, NVRTC's compiler, and g++ with the emulator."""

from __future__ import annotations

import ctypes
import functools
import itertools
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuflow.ops.kernels import Defines, Launch, folder, source

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
EMULATOR = Path(__file__).with_name("emulator.h")
BARRIER = re.compile(r"__syncthreads\(\);")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g1", "-O1")
_SHARED = re.compile(r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\[\];")
_VARIANTS = re.compile(r"^// Variants: (.+)$", re.M)
_DEFINE = re.compile(r"(\w+)=((?:[\w ]+\|)*[\w ]+?)(?= \w+=|$)")


def kernel_names() -> tuple[str, ...]:
    """Every kernel that there is, ``"video/picture"`` and so on, from the folder."""
    return tuple(sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in folder().rglob("*.cu")))


def variants(code: str) -> tuple[Defines, ...]:
    """Every combination of ``-D`` that a line of a kernel's header names: ``// Variants: A=1|2 B=unsigned char|int``."""
    lines = [_DEFINE.findall(line) for line in _VARIANTS.findall(code)] or [[]]
    return tuple(
        itertools.chain.from_iterable(
            itertools.product(*([(name, value) for value in values.split("|")] for name, values in choices))
            for choices in lines
        )
    )


def flags(defines: Defines) -> tuple[str, ...]:
    """As a compiler takes them."""
    return tuple(f"-D{name}={value}" for name, value in defines)


@functools.cache
def compile_by_nvrtc(name: str, architecture: int, defines: Defines) -> str:
    """Compile to machine code for ``sm_<architecture>``; what ptxas says about registers and spills."""
    nvrtc: Any = pytest.importorskip(
        "cuda.bindings.nvrtc", reason="cuda-bindings is not installed", exc_type=ImportError
    )
    try:
        status, program = nvrtc.nvrtcCreateProgram(source(name).encode(), f"{name}.cu".encode(), 0, [], [])
    except RuntimeError as error:
        pytest.skip(f"NVRTC does not load: {error}")
    options = [f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v", "--std=c++17", *flags(defines)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    text: str = log.decode(errors="replace")
    assert int(status) == 0, text
    nvrtc.nvrtcDestroyProgram(program)
    return text


def compiler() -> str:
    """g++, or the test is skipped."""
    found = shutil.which("g++")
    if found is None:
        pytest.skip("g++ is not installed")
    return found


def without_barrier(code: str, number: int) -> str:
    """The source with one ``__syncthreads()`` less; ``number`` counts from 0."""
    barrier = list(BARRIER.finditer(code))[number]
    return code[: barrier.start()] + ";" + code[barrier.end() :]


def build_for_host(name: str, code: str, target: Path, defines: Defines, *options: str) -> Path:
    """Compile a kernel's source, changed or not, as a shared library of this machine."""
    unit = target.with_suffix(".cpp")
    code = _SHARED.sub(r"\1* \2 = (\1*)emulator::shared;", code)
    unit.write_text(f"{code}\nEMULATE({name.rpartition('/')[2]})\n")
    command = [compiler(), "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror"]
    command += ["-include", str(EMULATOR), *flags(defines), *options, str(unit), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@dataclass(frozen=True, slots=True)
class Schedule:
    """How an emulated launch runs: its own block or another one, and in which order threads and blocks take turns."""

    order: int = 0
    block: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    seed: int = 1


ORDERS = {"forward": 0, "reverse": 1, "shuffled": 2}
SCHEDULES = (
    *(Schedule(order) for order in ORDERS.values()),
    Schedule(block=(1, 1)),
    Schedule(1, block=(7, 3), grid=(2, 2)),
    Schedule(2, block=(64, 1)),
    Schedule(2, block=(5, 9), grid=(1, 1), seed=2),
)


class HostKernel:
    """A built kernel; ``run`` takes what a GPU would be given, from any thread: one launch at a time, as on one stream, for
    the emulator's fibers are the library's own."""

    def __init__(self, library: Path) -> None:
        self._alone = threading.Lock()
        self._library = ctypes.CDLL(str(library))
        self._library.emulator_run.restype = ctypes.c_char_p
        count = self._library.emulator_count()
        kinds, sizes = ctypes.create_string_buffer(count + 1), (ctypes.c_int * count)()
        self._library.emulator_describe(kinds, sizes)
        self.parameters = list(zip(kinds.raw[:count].decode(), sizes, strict=True))

    def run(self, launch: Launch, schedule: Schedule, *, missing_shared_bytes: int = 0) -> None:
        """Run all blocks. The arguments must have the types of the kernel's parameters."""
        given = [(_kind(value, kind), value.nbytes) for value, (kind, _) in self._paired(launch)]
        assert given == self.parameters
        values = [np.array(value) for value in launch.arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        grid, block = ((ctypes.c_uint * 3)(*sides, 1) for sides in self._sides(launch, schedule))
        shared = ctypes.c_size_t(launch.shared_bytes - missing_shared_bytes)
        with self._alone:
            fault = self._library.emulator_run(
                grid, block, shared, schedule.order, ctypes.c_uint64(schedule.seed), pointers
            )
        assert fault is None, fault

    def _paired(self, launch: Launch) -> Iterator[tuple[Any, tuple[str, int]]]:
        assert len(launch.arguments) == len(self.parameters)
        return zip(launch.arguments, self.parameters, strict=True)

    @staticmethod
    def _sides(launch: Launch, schedule: Schedule) -> tuple[tuple[int, int], tuple[int, int]]:
        return schedule.grid or launch.grid, schedule.block or launch.block


def _kind(value: np.generic, wanted: str) -> str:
    """``"f"`` for floats, ``"p"`` for an unsigned 64-bit number where an address is wanted, ``"i"`` for the rest."""
    if value.dtype.kind == "f":
        return "f"
    return "p" if wanted == "p" and value.dtype == np.uint64 else "i"


class HostTables:
    """``Tables`` in host memory: made once, kept as long as this."""

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def __call__(self, key: Any, make: Any) -> int:
        if key not in self._kept:
            self._kept[key] = np.ascontiguousarray(make())
        return int(self._kept[key].ctypes.data)


@functools.cache
def libasan() -> Path | None:
    """The address sanitiser's library of g++, if it is installed."""
    answer = subprocess.run([compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    path = Path(answer.stdout.strip())
    return path.resolve() if path.is_absolute() and path.exists() else None
