"""HEIC: its header, a clear refusal where its decoder is not installed, and its pixels where it is."""

from __future__ import annotations

import importlib.metadata
import io
import os
import subprocess
import sys
from typing import Any, Literal

import av
import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageOps

from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.images import decode_image
from gpuflow.codecs.probe import image_info, sniff
from gpuflow.errors import CorruptMedia
from gpuflow.flow.sync import SyncFlow
from tests.unit.image_files import HEIC, HEIC_COLOR, ORIENTATION, Pixels, scene, with_alpha

try:
    importlib.metadata.version("pillow-heif")
    INSTALLED = True
except importlib.metadata.PackageNotFoundError:
    INSTALLED = False
installed = pytest.mark.skipif(not INSTALLED, reason="pillow-heif is not installed: pip install 'gpuflow[heif]'")
WITHOUT_IT = """
import importlib.metadata, sys
found = importlib.metadata.version
def version(name):
    if name == "pillow-heif":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
sys.modules["pillow_heif"] = None
import gpuflow
from tests.unit.image_files import HEIC
try:
    gpuflow.load(HEIC, device="cpu")
except gpuflow.UnsupportedFormat as error:
    print(error.http_status, error)
"""


def info_of(data: bytes) -> ImageInfo:
    """Its header's facts."""
    return image_info(data, sniff(data))


def heic(picture: Pixels, **options: Any) -> bytes:
    """Encoded by libheif and x265."""
    import pillow_heif

    height, width, channels = picture.shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    out = io.BytesIO()
    pillow_heif.from_bytes(mode=mode, size=(width, height), data=picture.tobytes()).save(out, **options)
    return out.getvalue()


def by_ffmpeg(data: bytes) -> Pixels:
    """The picture as FFmpeg decodes it, which leaves the padding of odd sides there."""
    with av.open(io.BytesIO(data), format="mov") as container:
        pixels: Pixels = next(container.decode(video=0)).to_ndarray(format="rgb24")
        return pixels


def test_the_header_is_read_without_its_decoder() -> None:
    assert info_of(HEIC) == ImageInfo("heic", 16, 16, color="ycbcr", chroma="420")


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_every_brand_of_hevc_pictures_is_known(brand: bytes) -> None:
    assert sniff(HEIC[:8] + brand + HEIC[12:]).name == "heic"


def test_without_its_decoder_a_heic_is_refused_with_the_name_of_the_extra() -> None:
    paths = os.pathsep.join(path for path in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if path)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_IT],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert run.stdout.startswith("415"), run.stderr
    assert "pip install 'gpuflow[heif]'" in run.stdout


@installed
def test_the_pixels_are_those_that_were_encoded() -> None:
    pixels = decode_image(HEIC, info_of(HEIC)).pixels
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - HEIC_COLOR).max() <= 2


@installed
@pytest.mark.parametrize(
    ("options", "chroma"), [({"chroma": 444}, "444"), ({"chroma": 420}, "420"), ({"tile_size": 128}, "420")]
)
def test_the_pixels_are_ffmpegs(options: dict[str, Any], chroma: str) -> None:
    data = heic(scene(256, 320), quality=90, **options)
    info = info_of(data)
    assert (info.width, info.height, info.chroma) == (320, 256, chroma)
    expected = by_ffmpeg(data)
    pixels = (
        decode_image(data, info).pixels[: expected.shape[0], : expected.shape[1]].astype(int)
    )  # of a grid: one tile
    assert np.abs(pixels - expected[:256, :320]).mean() < (0.6 if chroma == "444" else 1.0)


@installed
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(48, 64), (37, 53)], ids=["even", "odd"])
def test_every_orientation_is_shown_upright(orientation: int, size: tuple[int, int]) -> None:
    exif = Picture.Exif()
    exif[ORIENTATION] = orientation
    data = heic(scene(*size), quality=-1, chroma=444, exif=exif.tobytes())
    picture = Picture.fromarray(scene(*size))
    picture.getexif()[ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))
    info = info_of(data)
    assert (info.height, info.width, info.orientation) == (*expected.shape[:2], orientation)
    assert np.abs(decode_image(data, info).pixels.astype(int) - expected).max() <= 2


@installed
def test_alpha_gray_and_ten_bits_are_kept() -> None:
    import pillow_heif

    pixels = decode_image(data := heic(with_alpha(), quality=-1, chroma=444), info_of(data)).pixels
    assert np.abs(pixels.astype(int) - with_alpha()).max() <= 2
    gray = np.ascontiguousarray(scene()[:, :, :1])
    data = heic(gray, quality=-1)
    assert (info_of(data).color, info_of(data).channels) == ("gray", 1)
    assert np.abs(decode_image(data, info_of(data)).pixels.astype(int) - gray).max() <= 2
    levels = np.random.default_rng(3).integers(0, 1024, (6, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    out = io.BytesIO()
    deep = (levels << 6).astype("<u2").tobytes()
    pillow_heif.from_bytes(mode="RGB;16", size=(64, 48), data=deep).save(out, quality=-1, chroma=444)
    assert info_of(out.getvalue()).bit_depth == 10
    pixels = decode_image(out.getvalue(), info_of(out.getvalue())).pixels
    assert np.abs(pixels - levels * (255 / 1023)).max() <= 1.5


@installed
@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_heic_is_loaded_here_and_in_a_worker(isolation: Literal["none", "process"]) -> None:
    data = heic(scene(300, 400), quality=80, tile_size=128)
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=1, isolation=isolation) as flow, flow.load(data) as image:
        assert np.array_equal(image.numpy(), decode_image(data, info_of(data)).pixels)
        assert image.backend == "pillow-heif"


@installed
@pytest.mark.parametrize("kept", range(1, 10))
def test_a_truncated_heic_is_corrupt_media(kept: int) -> None:
    data = heic(scene(), quality=90)
    with pytest.raises(CorruptMedia):
        decode_image(cut := data[: kept * len(data) // 10], info_of(cut))
