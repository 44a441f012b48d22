"""README's code runs as it stands, with the installed wheel, and its commands are the ones that CI runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from gpuflow.demo import samples
from tests.packaging.conftest import own_environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the media that README's code names."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "cat.jpg").write_bytes(samples.picture("JPEG"))
    (folder / "clip.mp4").write_bytes(samples.clip(seconds=2.0))
    (folder / "talk.mp3").write_bytes(samples.recording())
    return folder


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_readme_runs(number: int, folder: Path, installed: Path) -> None:
    done = subprocess.run(
        [installed, "-c", BLOCKS[number]],
        cwd=folder,
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_readme_has_code_and_the_pictures_that_it_shows() -> None:
    assert len(BLOCKS) == 4
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file()


def test_ci_runs_the_two_commands_of_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    install, *runs = re.findall(
        r"^    (python3 -m pip install[^&\n]*?) && .uv/bin/uv (run \S+ ?\S*)", README, re.MULTILINE
    )[0]
    assert install in ci
    assert [run in ci for run in runs] == [True]
    assert '"$uv" run pytest' in ci
