"""Kernel source: found in the package or in the checkout, compiled at first use."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

_PACKAGED = Path(__file__).parents[1] / "_kernels"
_CHECKOUT = Path(__file__).parents[2] / "kernels"


@functools.cache
def source(name: str) -> str:
    """The CUDA source of ``"video/nv12_to_rgb"`` and the like.

    Raises:
        FileNotFoundError: no such kernel; the package is broken.
    """
    folder = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    return (folder / f"{name}.cu").read_text(encoding="utf-8")


@functools.cache
def kernel(name: str, defines: tuple[tuple[str, str], ...] = ()) -> Any:
    """The kernel as a ``cupy.RawKernel``, compiled for the current device at its first launch and kept.

    ``defines``: pairs for ``-D``, ``(("SAMPLE", "unsigned short"),)``. The function is named like its file.
    """
    import cupy

    options = ("--std=c++17", *(f"-D{key}={value}" for key, value in defines))
    return cupy.RawModule(code=source(name), options=options).get_function(name.rpartition("/")[2])
