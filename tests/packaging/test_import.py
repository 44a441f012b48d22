"""What `import gpuflow` costs, and that every public name is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gpuflow

HEAVY = ("numpy", "torch", "av", "PIL", "cupy", "httpx", "msgspec", "nixl_cu13", "nvidia")


def test_import_brings_in_nothing_heavy() -> None:
    code = f"import gpuflow, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_takes_less_than_150_ms() -> None:
    code = "import time; t = time.perf_counter(); import gpuflow; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(times) < 0.150


def test_every_public_name_resolves_and_is_declared_for_type_checkers() -> None:
    for name in gpuflow.__all__:
        assert getattr(gpuflow, name) is not None
    tree = ast.parse(Path(gpuflow.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        (alias.name, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert declared == {(name, f"gpuflow.{home}") for name, home in gpuflow._HOME.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        getattr(gpuflow, "nothing")  # noqa: B009
