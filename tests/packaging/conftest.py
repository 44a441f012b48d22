"""The wheel, built from the checkout and installed with its dependencies where nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by uv from the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    _uv("build", "-q", "--wheel", "--out-dir", str(out), str(ROOT))
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a clean environment that holds the wheel with its extra ``cu13``, at the versions of the lock."""
    place = tmp_path_factory.mktemp("clean")
    python, requirements = place / "venv" / "bin" / "python", place / "requirements.txt"
    lock = ("export", "-q", "--project", str(ROOT), "--locked", "--no-default-groups", "--extra", "cu13")
    _uv(*lock, "--no-emit-project", "--no-hashes", "-o", str(requirements))
    _uv("venv", "-q", "--python", sys.executable, str(place / "venv"))
    _uv("pip", "install", "-q", "--no-deps", "--python", str(python), "-r", str(requirements), str(wheel))
    return python


def own_environment() -> dict[str, str]:
    """What a user's shell has: without what the test process and the libraries in it have set."""
    return {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR", "USER")}


def _uv(*arguments: str) -> None:
    local = ROOT / ".uv" / "bin" / "uv"
    uv = str(local) if local.exists() else shutil.which("uv") or os.environ.get("UV", "")
    if not uv:
        pytest.skip("uv is not here: README's first command installs it")
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    done = subprocess.run([uv, *arguments], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
