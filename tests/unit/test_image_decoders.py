"""Decoders against Pillow's plain reading, and the order in which they are tried."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from gpuflow.codecs._backends.nvimagecodec import NvImageCodecDecoder
from gpuflow.codecs._backends.pillow import PillowDecoder
from gpuflow.codecs._backends.pyav_png import PyAvPngDecoder
from gpuflow.codecs._backends.simplejpeg import SimpleJpegDecoder
from gpuflow.codecs._backends.torchvision import TorchvisionDecoder
from gpuflow.codecs.base import ImageDecoder, ImageInfo, MediaType
from gpuflow.codecs.images import capabilities, decode_image, gpu_decoder, image_decoders
from gpuflow.codecs.orientation import oriented
from gpuflow.codecs.probe import image_info, sniff
from gpuflow.errors import CorruptMedia, UnsupportedFormat
from gpuflow.ops.composite import flattened
from tests.parity.tolerances import TOLERANCES
from tests.unit.image_files import Pixels, animation, by_pillow, encoded, png, scene, turned, with_alpha

PICTURE = Picture.fromarray(scene())
SAME: dict[str, bytes] = {
    "jpeg 4:2:0": encoded(scene(), "JPEG"),
    "jpeg 4:4:4": encoded(scene(), "JPEG", subsampling=0),
    "jpeg progressive": encoded(scene(47, 63), "JPEG", progressive=True),
    "jpeg gray": encoded(PICTURE.convert("L"), "JPEG"),
    "jpeg cmyk": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "png": encoded(scene(), "PNG"),
    "png gray": encoded(PICTURE.convert("L"), "PNG"),
    "png 1 bit": encoded(PICTURE.convert("1"), "PNG"),
    "png gray, alpha": encoded(PICTURE.convert("LA"), "PNG"),
    "png alpha": encoded(with_alpha(), "PNG"),
    "png palette": encoded(PICTURE.quantize(16), "PNG"),
    "png palette, transparent": encoded(PICTURE.quantize(16), "PNG", transparency=bytes([0, 99, 200])),
    "png colour key": encoded(scene(), "PNG", transparency=tuple(int(level) for level in scene()[0, 0])),
    "png gray key": encoded(PICTURE.convert("L"), "PNG", transparency=99),
    "png animated": animation("PNG"),
    "webp": encoded(scene(), "WEBP"),
    "webp lossless": encoded(scene(), "WEBP", lossless=True),
    "webp alpha": encoded(with_alpha(), "WEBP"),
    "webp animated": animation("WEBP"),
    "gif": encoded(PICTURE.quantize(16), "GIF"),
    "gif transparent": encoded(PICTURE.quantize(16), "GIF", transparency=3),
    "bmp": encoded(scene(), "BMP"),
    "avif": encoded(scene(), "AVIF", speed=10),
    "avif alpha": encoded(with_alpha(), "AVIF", speed=10),
}
CPU_DECODERS: tuple[ImageDecoder, ...] = (
    TorchvisionDecoder(), PillowDecoder(), NvImageCodecDecoder(None),
    *([SimpleJpegDecoder()] if SimpleJpegDecoder().capability() else []),
)  # fmt: skip


def _info(data: bytes) -> ImageInfo:
    return image_info(data, sniff(data))


@pytest.mark.parametrize("name", SAME)
def test_every_decoder_that_takes_an_image_equals_pillow(name: str) -> None:
    data = SAME[name]
    info = _info(data)
    takers = [decoder for decoder in CPU_DECODERS if decoder.supports(info)]
    assert takers
    for decoder in takers:
        assert np.array_equal(decoder.decode(data, info), by_pillow(data)), decoder.name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("decoder", "file_format"),
    [(TorchvisionDecoder(), "JPEG"), (TorchvisionDecoder(), "PNG"), (TorchvisionDecoder(), "WEBP"),
     (PillowDecoder(), "JPEG"), (PillowDecoder(), "PNG"), (PillowDecoder(), "WEBP"), (PillowDecoder(), "AVIF"),
     (NvImageCodecDecoder(None), "JPEG")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)  # fmt: skip
def test_all_orientations_are_applied(decoder: ImageDecoder, file_format: str, orientation: int) -> None:
    from PIL import ImageOps

    data = turned(file_format, orientation)
    info = _info(data)
    expected = np.asarray(ImageOps.exif_transpose(_opened(data)).convert("RGB"))
    assert np.array_equal(decoder.decode(data, info), expected)
    out = np.zeros_like(expected)
    assert decoder.decode(data, info, out=out) is out
    assert np.array_equal(out, expected)


def _opened(data: bytes) -> Picture.Image:
    import io

    return Picture.open(io.BytesIO(data))


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_levels_are_divided_by_257_and_rounded(color: int, channels: int) -> None:
    levels = np.random.default_rng(3).integers(0, 65_536, (9, 11, channels), dtype=np.uint16)
    data = png(levels, color, depth=16)
    expected = np.round(levels / 257).astype(np.uint8)
    colors = expected[:, :, :3] if channels > 2 else np.repeat(expected[:, :, :1], 3, axis=2)
    if channels % 2 == 0:
        colors = np.dstack([colors, expected[:, :, -1]])
    for decoder in (TorchvisionDecoder(), PyAvPngDecoder()):
        assert np.array_equal(decoder.decode(data, _info(data)), colors)


def test_a_16_bit_gray_png_is_not_clipped_by_the_fallback() -> None:
    levels = np.linspace(0, 65_535, 120).astype(np.uint16).reshape(10, 12, 1)
    data = png(levels, 0, depth=16)
    assert np.array_equal(
        PillowDecoder().decode(data, _info(data))[:, :, 0], np.round(levels[:, :, 0] / 257).astype(np.uint8)
    )


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("frame", [0, 1, 2])
def test_any_frame_of_an_animation_can_be_had(file_format: str, frame: int) -> None:
    data = animation(file_format)
    decoded = decode_image(data, _info(data), frame=frame).pixels
    assert np.array_equal(decoded[:, :, :3], by_pillow(data, frame)[:, :, :3])


FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic")
SHAPES = tuple(itertools.product((1, 2, 3, 4), (1, 4, 8, 10, 12, 16), (False, True), (1, 5)))
TAKEN = {
    "nvimagecodec": {"jpeg"},
    "simplejpeg": {"jpeg"},
    "torchvision": {"jpeg", "png", "webp"},
    "pyav": {"png"},
    "pillow": {"jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"},
    "pillow-heif": {"heic"},
}


def _all_decoders(info: ImageInfo) -> list[ImageDecoder]:
    return [*([gpu_decoder(0)] if gpu_decoder(0).supports(info) else []), *image_decoders(info)]


def test_no_format_reaches_a_decoder_that_is_not_trusted_with_it() -> None:
    """GIF not torchvision's, and nothing but JPEG nvImageCodec, whose other formats are OpenCV's, whatever their facts."""
    taken: dict[str, set[str]] = {}
    for name, (channels, bits, alpha, frames) in itertools.product((*FORMATS, "jp2", "svg"), SHAPES):
        info = ImageInfo(name, 8, 8, channels=channels, bit_depth=bits, has_alpha=alpha, num_frames=frames)
        for decoder in _all_decoders(info):
            taken.setdefault(decoder.name, set()).add(name)
    taken.setdefault("pillow-heif", {"heic"})  # which is not installed everywhere
    assert taken == TAKEN


def test_no_opencv_is_in_the_table_and_jpeg_2000_is_known_to_no_reader() -> None:
    names = {decoder.name for decoder in _all_decoders(ImageInfo("jpeg", 8, 8))}
    assert names == {"nvimagecodec", "simplejpeg", "torchvision", "pillow"}
    for data in (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), b"\xff\x4f\xff\x51" + bytes(99)):
        with pytest.raises(UnsupportedFormat, match="JPEG 2000"):
            sniff(data)
    with pytest.raises(UnsupportedFormat):
        image_info(b"", MediaType("jp2", "image"))


def test_who_decodes_a_jpeg_and_in_which_order() -> None:
    info = _info(SAME["jpeg 4:2:0"])
    assert gpu_decoder(0).supports(info)
    assert [decoder.name for decoder in image_decoders(info)] == ["simplejpeg", "torchvision", "pillow"]
    assert [decoder.name for decoder in image_decoders(_info(SAME["jpeg cmyk"]))] == ["torchvision", "pillow"]
    assert gpu_decoder(0).obstacle(_info(SAME["jpeg cmyk"])) is not None


def test_capabilities_say_why_not() -> None:
    found = capabilities()
    assert found["torchvision"]
    assert found["pillow"]
    assert found["nvimagecodec"] or found["nvimagecodec"].reason


def test_what_torchvision_refuses_pillow_reads() -> None:
    decoded = decode_image(SAME["png colour key"], _info(SAME["png colour key"]))
    assert decoded.backend == "pillow"
    with pytest.raises(UnsupportedFormat):
        TorchvisionDecoder().decode(SAME["png animated"], _info(SAME["png animated"]), frame=1)


@pytest.mark.parametrize("decoder", CPU_DECODERS, ids=lambda decoder: decoder.name)
def test_a_truncated_jpeg_is_corrupt_media_for_every_decoder(decoder: ImageDecoder) -> None:
    data = encoded(scene(240, 320), "JPEG")
    with pytest.raises(CorruptMedia):
        decoder.decode(data[: len(data) // 2], _info(data))


def test_what_the_first_decoder_only_doubts_the_next_reads() -> None:
    """simplejpeg takes libjpeg's warnings for errors: bytes between the last scan and its end are none."""
    data = encoded(scene(), "JPEG")
    odd = data[:-2] + b"\xff\xfe\0\3!" + b"junk" + data[-2:]
    with pytest.raises(CorruptMedia):
        SimpleJpegDecoder().decode(odd, _info(odd))
    decoded = decode_image(odd, _info(odd))
    assert decoded.backend != "simplejpeg"
    assert np.array_equal(decoded.pixels, by_pillow(data))


def test_each_thread_has_its_own_library_decoder() -> None:
    decoder, data = NvImageCodecDecoder(None), SAME["jpeg 4:2:0"]
    expected = by_pillow(data)
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(lambda _: decoder.decode(data, _info(data)), range(80)))
    assert all(np.array_equal(pixels, expected) for pixels in decoded)


def test_orientation_is_a_view() -> None:
    pixels = scene()
    assert all(np.shares_memory(oriented(pixels, n), pixels) for n in range(1, 9))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (12, 200, 99)])
def test_compositing_rounds_as_pillows_paste_does(background: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (256, 256, 4), dtype=np.uint8)
    layer = Picture.fromarray(pixels)
    expected = Picture.new("RGB", layer.size, background)
    expected.paste(layer, mask=layer.getchannel("A"))
    assert np.array_equal(flattened(pixels, background), np.asarray(expected))


def test_dropping_alpha_shows_the_hidden_colour() -> None:
    pixels: Pixels = with_alpha()
    assert np.array_equal(flattened(pixels, None), pixels[:, :, :3])


def test_importing_the_codecs_loads_no_vendor_library() -> None:
    code = (
        "import sys, gpuflow.codecs.images, gpuflow.codecs.probe, gpuflow.ops.transform;"
        "print([m for m in ('torch', 'torchvision', 'PIL', 'cupy', 'nvidia.nvimgcodec', 'nvidia.dali') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


@pytest.mark.gpu
def test_the_gpu_decodes_a_jpeg_into_the_slab() -> None:
    from gpuflow.media import block_bytes, lay_out
    from gpuflow.memory import Slab

    data = encoded(scene(480, 640), "JPEG", subsampling=2)
    info = _info(data)
    specs = lay_out({"pixels": ("uint8", (480, 640, 3))})
    with Slab("64MiB", device="cuda") as slab, slab.allocate(block_bytes(specs)) as lease:
        decoded = gpu_decoder(0).decode(data, info, out=lease.array(specs[0]))
        difference: Any = np.abs(decoded.get().astype(int) - by_pillow(data))
    assert difference.mean() <= TOLERANCES["image/nvjpeg"].max_mean


@pytest.mark.gpu
def test_chroma_is_not_upsampled_by_repeating_it() -> None:
    """Nearest chroma puts a hard step where libjpeg has a ramp: more than 50 levels beside a red and blue edge."""
    from gpuflow.media import block_bytes, lay_out
    from gpuflow.memory import Slab

    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :33], picture[:, 33:] = (255, 0, 0), (0, 0, 255)
    data = encoded(picture, "JPEG", quality=95, subsampling=2)
    specs = lay_out({"pixels": ("uint8", (64, 64, 3))})
    with Slab("64MiB", device="cuda") as slab, slab.allocate(block_bytes(specs)) as lease:
        decoded = gpu_decoder(0).decode(data, _info(data), out=lease.array(specs[0])).get()
    assert np.abs(decoded.astype(int) - by_pillow(data)).max() < 50
