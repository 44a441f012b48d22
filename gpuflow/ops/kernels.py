"""Kernel source: found in the package or in the checkout, compiled at first use, launched from one value."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpuflow.errors import BackendUnavailable

_PACKAGED = Path(__file__).parents[1] / "_kernels"
_CHECKOUT = Path(__file__).parents[2] / "kernels"
_INCLUDE = re.compile(r'^#include "([\w/.]+)"$', re.M)

Defines = tuple[tuple[str, str], ...]
"""Pairs for ``-D``: ``(("SAMPLE", "unsigned short"),)``."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a kernel. ``arguments`` are numpy scalars of the kernel's own types, addresses as uint64: CuPy and
    the tests on the host hand over their bytes as they are."""

    name: str
    defines: Defines
    grid: tuple[int, int]
    block: tuple[int, int]
    arguments: tuple[np.generic, ...]
    shared_bytes: int = 0

    def compile(self) -> None:
        """Compile its kernel for CuPy's current device, unless somebody has.

        Raises:
            BackendUnavailable: it cannot be compiled here.
        """
        kernel(self.name, self.defines)

    def queue(self) -> None:
        """Queue it on CuPy's current device and stream.

        Raises:
            BackendUnavailable: the kernel cannot be compiled here.
        """
        kernel(self.name, self.defines)(self.grid, self.block, self.arguments, shared_mem=self.shared_bytes)


def folder() -> Path:
    """Where the sources lie."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


@functools.cache
def source(name: str) -> str:
    """The CUDA source of ``"video/picture"`` and the like, with what it includes put in its place: one text for every
    compiler.

    Raises:
        BackendUnavailable: no such kernel; the package is broken.
    """
    return _INCLUDE.sub(lambda included: _text(included[1], name), _text(f"{name}.cu", name))


def _text(path: str, kernel_name: str) -> str:
    try:
        return (folder() / path).read_text(encoding="utf-8")
    except OSError as error:
        raise BackendUnavailable(
            f"the source of kernel {kernel_name!r} is not in {folder()}: install gpuflow again"
        ) from error


def kernel(name: str, defines: Defines = ()) -> Any:
    """The kernel as a ``cupy.RawKernel``, compiled for CuPy's current device once. The function is named like its file.

    Raises:
        BackendUnavailable: the source is missing, or CuPy cannot compile it; the message names the remedy.
    """
    try:
        import cupy

        device = cupy.cuda.runtime.getDevice()
    except (ImportError, RuntimeError) as error:
        raise BackendUnavailable(f"kernels need CuPy and a GPU: pip install 'gpuflow[cu13]' ({error})") from error
    return _compiled(name, defines, device)


@functools.cache
def _compiled(name: str, defines: Defines, device: int) -> Any:
    import cupy

    code = source(name)
    options = ("--std=c++17", *(f"-D{key}={value}" for key, value in defines))
    try:
        compiled = cupy.RawKernel(code, name.rpartition("/")[2], options)
        compiled.compile()
    except (cupy.cuda.compiler.CompileException, ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable(
            f"CuPy cannot compile kernel {name!r} for cuda:{device} ({type(error).__name__}): "
            "NVRTC and the CUDA headers come with pip install 'gpuflow[cu13]'"
        ) from error
    return compiled
