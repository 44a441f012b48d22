"""The wheel, built and installed where the checkout cannot be seen: kernels, names and the command are in it."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from gpuflow.ops.kernels import source
from tests.packaging.conftest import own_environment

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_every_kernel_and_nothing_of_the_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    kernels = {path.relative_to(ROOT / "kernels").as_posix() for path in (ROOT / "kernels").rglob("*.cu*")}
    assert kernels
    assert {f"gpuflow/_kernels/{name}" for name in kernels} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"gpuflow"}
    assert "gpuflow/py.typed" in names


def test_the_wheel_pins_nothing_that_a_server_pins(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    wanted = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    assert any("torch>=" in line for line in wanted)
    assert not [line for line in wanted if "==" in line.split(";")[0]]


def test_the_installed_package_finds_its_kernels_and_not_the_checkouts(installed: Path, tmp_path: Path) -> None:
    code = (
        "import gpuflow, pathlib; from gpuflow.ops import kernels; "
        "print(gpuflow.__file__); print(len(kernels.source('video/picture')))"
    )
    lines = _run(installed, tmp_path, "-c", code).splitlines()
    assert str(ROOT) not in lines[0]
    assert int(lines[1]) == len(source("video/picture"))


def test_the_installed_package_has_every_public_name(installed: Path, tmp_path: Path) -> None:
    code = "import gpuflow; print(all(getattr(gpuflow, name) is not None for name in gpuflow.__all__))"
    assert _run(installed, tmp_path, "-c", code).strip() == "True"


def test_importing_the_installed_package_brings_in_nothing_heavy(installed: Path, tmp_path: Path) -> None:
    code = "import gpuflow, sys; print([m for m in ('numpy', 'torch', 'av', 'httpx', 'msgspec') if m in sys.modules])"
    assert _run(installed, tmp_path, "-c", code).strip() == "[]"


def test_the_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    command = installed.with_name("gpuflow")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60)
    assert "demo" in done.stdout
    done = subprocess.run(
        [command, "env", "--json"], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60
    )
    assert '"driver"' in done.stdout


def _run(python: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, cwd=folder, env=own_environment(), check=True, timeout=120
    )
    return done.stdout
