"""Kernels that cannot be had: our own error, and what mends it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpuflow import device
from gpuflow.errors import BackendUnavailable
from gpuflow.ops import kernels
from gpuflow.ops.kernels import Launch, kernel, source


def test_a_kernel_without_a_source_is_ours_to_say() -> None:
    with pytest.raises(BackendUnavailable, match=r"'video/nothing'.*install gpuflow again"):
        source("video/nothing")


def test_what_a_kernel_includes_stands_in_its_source() -> None:
    for name in ("video/picture", "image/views"):
        assert "#include" not in source(name)
        assert source(name).count("void resize_tile(") == 1


def test_an_included_file_that_is_missing_is_ours_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.cu").write_text('#include "gone.cuh"\n')
    monkeypatch.setattr(kernels, "folder", lambda: tmp_path)
    with pytest.raises(BackendUnavailable, match=r"'broken'.*install gpuflow again"):
        source("broken")


@pytest.mark.skipif(bool(device.driver().count), reason="there is a GPU here")
def test_a_launch_without_a_gpu_says_so() -> None:
    with pytest.raises(BackendUnavailable, match=r"gpuflow\[cu13\]"):
        Launch("video/picture", (), (1, 1), (1, 1), (np.int32(1),)).queue()


@pytest.mark.skipif(bool(device.driver().count), reason="there is a GPU here")
def test_a_kernel_that_cupy_cannot_compile_is_ours_to_say() -> None:
    pytest.importorskip("cupy")
    with pytest.raises(BackendUnavailable, match=r"cannot compile kernel 'video/picture'.*NVRTC"):
        kernels._compiled("video/picture", (("RESIZE", "0"),), 0)


@pytest.mark.gpu
def test_a_kernel_with_a_mistake_in_it_is_ours_to_say() -> None:
    with pytest.raises(BackendUnavailable, match="cannot compile"):
        kernel("video/picture", (("SAMPLE", "no such type"),))


@pytest.mark.gpu
def test_a_kernel_is_compiled_once() -> None:
    assert kernel("video/picture", (("RESIZE", "0"),)) is kernel("video/picture", (("RESIZE", "0"),))
