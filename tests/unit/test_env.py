"""The environment report, whole and half broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuflow import env

FILE = Path(env.__file__)


def test_the_report_names_every_part_and_says_what_mends_what_is_missing() -> None:
    facts = env.report()
    assert set(facts) == {"gpuflow", "system", "driver", "device", "packages", "backends"}
    for package in facts["packages"].values():
        assert bool(package["problem"]) == bool(package["remedy"])
    for group in ("images", "videos", "audio", "transforms", "transfer"):
        for name, backend in facts["backends"][group].items():
            assert backend["available"] or backend["reason"], name


def test_the_text_names_every_package_and_backend() -> None:
    facts = env.report()
    text = env.text(facts)
    for name in (*facts["packages"], *(name for group in facts["backends"].values() for name in group)):
        assert name in text


def test_it_works_as_a_file_without_any_package() -> None:
    """``-I -S`` hides every installed package, gpuflow too: the most broken installation there is."""
    done = subprocess.run([sys.executable, "-I", "-S", str(FILE), "--json"], capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["packages"]["torch"]["problem"] == "not installed"
    assert facts["packages"]["torch"]["remedy"] == "pip install torch"
    assert "cannot tell" in facts["device"]


def test_it_works_when_a_dependency_is_broken(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('broken on purpose')")
    code = "from gpuflow import env; import sys; sys.exit(env.main(as_json=True))"
    environment = {"PYTHONPATH": f"{tmp_path}:{FILE.parents[1]}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "broken on purpose" in json.dumps(json.loads(done.stdout)["backends"])


def test_no_vendor_library_is_loaded_by_the_report() -> None:
    """Some of them end the process when the driver is broken."""
    code = "import sys; from gpuflow import env; env.report(); print([m for m in ('cupy', 'torch', 'PyNvVideoCodec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.gpu
def test_with_a_gpu_the_gpu_backends_are_ready() -> None:
    facts: dict[str, Any] = env.report()
    assert facts["device"].startswith("cuda:0")
    assert facts["backends"]["images"]["nvimagecodec"]["available"]
    assert facts["backends"]["videos"]["pynvvideocodec"]["available"]
