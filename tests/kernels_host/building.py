"""Kernels without a GPU: NVRTC's compiler, and g++ with a shim."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gpuflow.ops.kernels import source

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
SHIM = Path(__file__).with_name("shim.h")


def compile_by_nvrtc(name: str, architecture: int, *defines: str) -> str:
    """Compile to machine code for ``sm_<architecture>``; what ptxas says about registers and spills."""
    nvrtc: Any = pytest.importorskip(
        "cuda.bindings.nvrtc", reason="cuda-bindings is not installed", exc_type=ImportError
    )
    try:
        status, program = nvrtc.nvrtcCreateProgram(source(name).encode(), f"{name}.cu".encode(), 0, [], [])
    except RuntimeError as error:
        pytest.skip(f"NVRTC does not load: {error}")
    options = [f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v", "--std=c++17", *defines]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    text: str = log.decode(errors="replace")
    assert int(status) == 0, text
    nvrtc.nvrtcDestroyProgram(program)
    return text


def build_for_host(name: str, folder: Path, *defines: str) -> ctypes.CDLL:
    """The kernel as a shared library of this machine."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    unit, library = folder / "kernel.cpp", folder / "kernel.so"
    unit.write_text(source(name))
    command = [
        compiler,
        "-O2",
        "-shared",
        "-fPIC",
        "-Wall",
        "-include",
        str(SHIM),
        *defines,
        str(unit),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(library))
