"""The colour kernel: compiled for every architecture, run on the host, compared with float64; on a GPU, run there."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.ops.color import LUMA_WEIGHTS, nv12_to_rgb, yuv_to_rgb
from tests.kernels_host.building import ARCHITECTURES, build_for_host, compile_by_nvrtc
from tests.parity.tolerances import TOLERANCES

NAME = "video/nv12_to_rgb"
WIDE = "-DSAMPLE=unsigned short"
SIZES = [(16, 8), (17, 9), (1, 1), (2, 3), (31, 2)]
CASES = list(itertools.product(sorted(LUMA_WEIGHTS), (False, True), (8, 10), (0, 90, 180, 270)))


def random_planes(width: int, height: int, bit_depth: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Code values over the whole range, with padded rows: luma ``(H, W)``, chroma ``(H/2, W/2, 2)``."""
    random = np.random.default_rng(width * 1000 + height)
    dtype, shift = (np.uint8, 0) if bit_depth == 8 else (np.uint16, 16 - bit_depth)
    half = (-(-height // 2), -(-width // 2) + 3, 2)
    luma = (random.integers(0, 2**bit_depth, (height, width + 5)) << shift).astype(dtype)
    return luma, (random.integers(0, 2**bit_depth, half) << shift).astype(dtype)


def reference(
    luma: NDArray[Any], chroma: NDArray[Any], size: tuple[int, int], matrix: str, full: bool, bits: int, rotation: int
) -> NDArray[np.float64]:
    """The definitions of BT.601, BT.709 and BT.2020, in float64, each pixel with the chroma of its 2x2 block."""
    width, height = size
    shift = 0 if bits == 8 else 16 - bits
    y = (luma[:height, :width] >> shift).astype(float)
    u, v = (
        np.repeat(np.repeat((chroma[..., part] >> shift).astype(float), 2, 0), 2, 1)[:height, :width] for part in (0, 1)
    )
    unit, peak = 2 ** (bits - 8), 2**bits - 1
    luminance = y / peak if full else (y - 16 * unit) / (219 * unit)
    blueness, redness = ((part - 128 * unit) / (peak if full else 224 * unit) for part in (u, v))
    red_weight, blue_weight = LUMA_WEIGHTS[matrix]
    red = luminance + 2 * (1 - red_weight) * redness
    blue = luminance + 2 * (1 - blue_weight) * blueness
    green = (luminance - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return np.rot90((255 * np.stack([red, green, blue], -1)).clip(0, 255), rotation // 90)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("define", [(), (WIDE,)], ids=["8 bit", "16 bit"])
def test_it_compiles_for_every_architecture_without_spills(architecture: int, define: tuple[str, ...]) -> None:
    log = compile_by_nvrtc(NAME, architecture, *define)
    assert "0 bytes spill stores, 0 bytes spill loads" in log, log


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """The kernel built for the host, by bytes of a sample."""
    built = {}
    for width, define in ((1, ()), (2, (WIDE,))):
        function = build_for_host(NAME, tmp_path_factory.mktemp(f"kernel{width}"), *define).nv12_to_rgb
        address, long, integer = ctypes.c_void_p, ctypes.c_longlong, ctypes.c_int
        function.argtypes = [address, address, long, long, integer, integer, address, long]
        function.argtypes += [ctypes.c_float] * 12 + [integer, integer]
        function.restype = None
        built[width] = function
    return built


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_on_the_host_it_equals_the_float64_matrix(on_host: dict[int, Any], size: tuple[int, int]) -> None:
    width, height = size
    worst = 0.0
    for matrix, full, bits, rotation in CASES:
        luma, chroma = random_planes(width, height, bits)
        shape = (width, height) if rotation % 180 else (height, width)
        guarded = np.full((shape[0], shape[1] + 2, 3), 77, np.uint8)
        on_host[luma.itemsize](
            luma.ctypes.data, chroma.ctypes.data, luma.strides[0], chroma.strides[0], width, height,
            guarded.ctypes.data, guarded.strides[0],
            *yuv_to_rgb(matrix, full_range=full, bit_depth=bits).ravel().tolist(),
            0 if bits == 8 else 16 - bits, rotation // 90,
        )  # fmt: skip
        expected = reference(luma, chroma, size, matrix, full, bits, rotation)
        worst = max(worst, float(np.abs(guarded[:, :-2] - expected).max()))
        assert (guarded[:, -2:] == 77).all()
    assert worst <= TOLERANCES["color/nv12_to_rgb"].max_abs


def test_an_unknown_matrix_is_refused() -> None:
    with pytest.raises(InvalidOptions, match="bt2020"):
        yuv_to_rgb("xyz", full_range=False, bit_depth=8)


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_on_a_gpu_it_equals_the_float64_matrix(size: tuple[int, int]) -> None:
    cupy = pytest.importorskip("cupy")
    width, height = size
    stream = cupy.cuda.Stream(non_blocking=True)
    for matrix, full, bits, rotation in CASES:
        luma, chroma = random_planes(width, height, bits)
        with stream:
            y, uv = cupy.asarray(luma), cupy.asarray(chroma)
            out = cupy.empty((width, height, 3) if rotation % 180 else (height, width, 3), cupy.uint8)
        nv12_to_rgb(
            y.data.ptr, uv.data.ptr, out, luma_pitch=luma.strides[0], chroma_pitch=chroma.strides[0],
            width=width, height=height, matrix=matrix, full_range=full, bit_depth=bits, rotation=rotation, stream=stream,
        )  # fmt: skip
        stream.synchronize()
        expected = reference(luma, chroma, size, matrix, full, bits, rotation)
        assert np.abs(out.get() - expected).max() <= TOLERANCES["color/nv12_to_rgb"].max_abs
