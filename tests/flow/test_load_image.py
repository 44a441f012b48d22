"""Images from bytes to a lease: pixels, orientation, transparency, sizes, types, engines, and what the result says."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from PIL import ImageOps

from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions, Limits
from gpuflow.errors import CorruptMedia, InvalidOptions, LimitExceeded, UnsupportedFormat
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import load_image
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import FeatureMetadata, Features, Image
from tests.parity.tolerances import TOLERANCES
from tests.unit.image_files import animation, blob, by_pillow, encoded, png, scene, turned, with_alpha
from tests.unit.image_variants import pages

PICTURE = Picture.fromarray(scene())
OPAQUE: dict[str, bytes] = {
    "jpeg 4:2:0": encoded(scene(), "JPEG"),
    "jpeg 4:4:4": encoded(scene(), "JPEG", subsampling=0),
    "jpeg progressive": encoded(scene(), "JPEG", progressive=True),
    "jpeg gray": encoded(PICTURE.convert("L"), "JPEG"),
    "jpeg cmyk": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "png": encoded(scene(), "PNG"),
    "png palette": encoded(PICTURE.quantize(16), "PNG"),
    "webp": encoded(scene(), "WEBP"),
    "gif": encoded(PICTURE.quantize(16), "GIF"),
    "bmp": encoded(scene(), "BMP"),
    "avif": encoded(scene(), "AVIF", speed=10),
    "tiff": encoded(scene(), "TIFF", compression="tiff_lzw"),
}


BACKENDS = {
    "jpeg": "simplejpeg", "jpeg cmyk": "torchvision", "png": "torchvision", "webp": "torchvision", "gif": "pillow",
    "bmp": "pillow", "avif": "pillow", "tiff": "pillow",
}  # fmt: skip


def _load(data: bytes, context: LoadContext, **options: Any) -> Image | Features:
    return load_image(blob(data), sniff(data), ImageOptions(**options), context)


@pytest.mark.parametrize("name", OPAQUE)
def test_the_pixels_are_pillows(name: str, context: LoadContext) -> None:
    with _load(OPAQUE[name], context) as image:
        assert isinstance(image, Image)
        assert np.array_equal(image.numpy(), by_pillow(OPAQUE[name]))
        assert image.backend == BACKENDS.get(name, BACKENDS.get(name.split()[0]))
        assert image.fallback is None
        assert image.metadata.format == name.split()[0]


def test_a_16_bit_png_keeps_its_brightness(context: LoadContext) -> None:
    levels = np.linspace(0, 65_535, 300).astype(np.uint16).reshape(10, 10, 3)
    with _load(png(levels, 2, depth=16), context) as image:
        assert np.array_equal(image.numpy(), np.round(levels / 257).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_is_shown_upright(file_format: str, orientation: int, context: LoadContext) -> None:
    data = turned(file_format, orientation)
    with _load(data, context) as image, Picture.open(io.BytesIO(data)) as picture:
        assert np.array_equal(image.numpy(), np.asarray(ImageOps.exif_transpose(picture).convert("RGB")))
        assert isinstance(image, Image)
        assert (image.metadata.height, image.metadata.width) == image.shape[:2]
        assert image.metadata.orientation == orientation


@pytest.mark.parametrize("name", ["exif_landscape_6.jpg", "exif_portrait_8.jpg", "chelsea.png", "newtonscradle.gif"])
@pytest.mark.media
def test_real_files_equal_pillow(name: str, real_media: Path, context: LoadContext) -> None:
    data = (real_media / name).read_bytes()
    with _load(data, context) as image, Picture.open(io.BytesIO(data)) as picture:
        assert np.array_equal(image.numpy(), np.asarray(ImageOps.exif_transpose(picture).convert("RGB")))


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparency_is_laid_over_the_background(file_format: str, context: LoadContext) -> None:
    data = encoded(with_alpha(), file_format)
    layer = Picture.fromarray(by_pillow(data))
    expected = Picture.new("RGB", layer.size, (10, 200, 30))
    expected.paste(layer, mask=layer.getchannel("A"))
    with _load(data, context, background=(10, 200, 30)) as image:
        assert np.array_equal(image.numpy(), np.asarray(expected))
        assert isinstance(image, Image)
        assert image.metadata.had_alpha
    with _load(data, context, alpha="drop") as image:
        assert np.array_equal(image.numpy(), by_pillow(data)[:, :, :3])


@pytest.mark.parametrize("frame", [0, 2])
@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_a_frame_of_an_animation_can_be_asked_for(file_format: str, frame: int, context: LoadContext) -> None:
    data = animation(file_format)
    with _load(data, context, frame=frame) as image:
        assert np.array_equal(image.numpy(), by_pillow(data, frame)[:, :, :3])
        assert isinstance(image, Image)
        assert (image.metadata.frame, image.metadata.num_frames) == (frame, 3)


@pytest.mark.parametrize("name", ["png palette, alpha", "png rgb key", "png gray and alpha", "gif", "webp", "tiff"])
def test_dropped_alpha_is_what_hugging_face_loads(name: str, context: LoadContext) -> None:
    """Their ``load_image``: the picture turned upright, then Pillow's ``convert("RGB")``."""
    quantized = PICTURE.quantize(16)
    data = {
        "png palette, alpha": encoded(quantized, "PNG", transparency=bytes([0, 99, 200])),
        "png rgb key": encoded(scene(), "PNG", transparency=tuple(int(level) for level in scene()[0, 0])),
        "png gray and alpha": encoded(Picture.fromarray(with_alpha()).convert("LA"), "PNG"),
        "gif": encoded(quantized, "GIF", transparency=3),
        "webp": encoded(with_alpha(), "WEBP", lossless=True, exact=True),
        "tiff": encoded(with_alpha(), "TIFF"),
    }[name]
    with Picture.open(io.BytesIO(data)) as picture, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Palette images with Transparency")  # what it does with them is asked here
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    with _load(data, context, alpha="drop") as image:
        assert np.array_equal(image.numpy(), expected)


@pytest.mark.parametrize(("frame", "size"), [(0, (37, 53)), (1, (20, 53)), (2, (13, 19))])
def test_a_tiff_of_several_pages_gives_the_one_that_is_asked_for(
    frame: int, size: tuple[int, int], context: LoadContext
) -> None:
    with _load(pages(), context, frame=frame) as image:
        assert image.shape == (*size, 3)
        assert isinstance(image, Image)
        assert (image.metadata.height, image.metadata.width) == size
        assert (image.metadata.frame, image.metadata.num_frames) == (frame, 3)
    with pytest.raises(InvalidOptions, match="has 3"):
        _load(pages(), context, frame=3)


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_a_region_is_cut_from_the_upright_image(file_format: str, orientation: int, context: LoadContext) -> None:
    data = turned(file_format, orientation)
    with _load(data, context) as whole, _load(data, context, region=(3, 5, 40, 44)) as part:
        assert np.array_equal(part.numpy(), whole.numpy()[5:44, 3:40])
        assert isinstance(part, Image)
        assert part.metadata.region == (3, 5, 40, 44)
        assert (part.metadata.height, part.metadata.width) == whole.shape[:2]


@pytest.mark.parametrize("engine", ["exact", "dali"])
def test_a_preset_sees_a_region_as_the_image(engine: str, context: LoadContext) -> None:
    picture = scene(300, 400)
    cut = np.ascontiguousarray(picture[20:220, 30:290])
    options = {"preset": "clip-224", "engine": engine}
    with (
        _load(encoded(picture, "PNG"), context, region=(30, 20, 290, 220), **options) as part,
        _load(encoded(cut, "PNG"), context, **options) as alone,
    ):
        assert torch.equal(part.tensor, alone.tensor)


@pytest.mark.parametrize(
    "region", [(0, 0, 65, 48), (0, 0, 64, 49), (64, 0, 65, 1), (5, 5, 5, 9), (5, 5, 9, 4), (-1, 0, 4, 4)]
)
def test_a_region_outside_the_image_or_an_empty_one_is_refused(
    region: tuple[int, int, int, int], context: LoadContext
) -> None:
    with pytest.raises(InvalidOptions, match="region"):
        _load(OPAQUE["png"], context, region=region)


PHOTOGRAPHS = ["chelsea.png", "coffee.png", "hubble_deep_field.png", "exif_landscape_6.jpg", "exif_portrait_8.jpg"]


def _large(picture: Picture.Image, subsampling: int) -> bytes:
    """A JPEG whose sides eight divides."""
    width, height = (side // 8 * 8 for side in picture.size)
    return encoded(picture.convert("RGB").crop((0, 0, width, height)), "JPEG", quality=90, subsampling=subsampling)


def _is_approximate(data: bytes, divisor: int, resample: str, context: LoadContext) -> None:
    with Picture.open(io.BytesIO(data)) as picture:
        size = (picture.height // divisor // 3, picture.width // divisor // 3)
    with (
        _load(data, context, size=size, resample=resample) as full,
        _load(data, context, size=size, resample=resample, approximate=True) as approximate,
    ):
        assert approximate.backend == f"simplejpeg-dct1/{divisor}+exact"
        assert full.backend == "simplejpeg+exact"
        assert np.abs(approximate.numpy().astype(int) - full.numpy()).mean() <= 0.5


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_an_approximate_decode_is_within_half_a_level(divisor: int, subsampling: int, context: LoadContext) -> None:
    _is_approximate(_large(Picture.fromarray(scene(1_200, 1_600)), subsampling), divisor, "bicubic", context)


@pytest.mark.media
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_an_approximate_decode_of_a_photograph_is_within_half_a_level(
    name: str, resample: str, real_media: Path, context: LoadContext
) -> None:
    for subsampling in (0, 2):
        data = _large(Picture.open(real_media / name), subsampling)
        for divisor in (2, 4, 8) if "exif" in name else (2,):
            _is_approximate(data, divisor, resample, context)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"size": (64, 80)}, (320, 400)),  # five times
        ({"size": (20, 25)}, (321, 400)),  # a side that no divisor divides
        ({"size": (20, 25), "resample": "nearest"}, (320, 400)),
        ({"size": (20, 25), "region": (0, 0, 400, 320)}, (320, 400)),
        ({}, (320, 400)),
    ],
    ids=["too small", "odd", "nearest", "region", "no size"],
)
def test_what_would_not_be_close_is_decoded_in_full(
    options: dict[str, Any], size: tuple[int, int], context: LoadContext
) -> None:
    data = encoded(scene(*size), "JPEG")
    with _load(data, context, approximate=True, **options) as allowed, _load(data, context, **options) as full:
        assert allowed.backend.partition("+")[0] == "simplejpeg"
        assert np.array_equal(allowed.numpy(), full.numpy())


def test_what_is_no_jpeg_is_decoded_in_full_however_approximate(context: LoadContext) -> None:
    for data in (encoded(scene(320, 400), "PNG"), encoded(Picture.fromarray(scene(320, 400)).convert("CMYK"), "JPEG")):
        with _load(data, context, size=16, approximate=True) as image:
            assert image.backend == "torchvision+exact"


def test_a_turned_jpeg_is_decoded_smaller_and_upright(context: LoadContext) -> None:
    exif = Picture.Exif()
    exif[0x0112] = 6
    data = encoded(scene(640, 960), "JPEG", exif=exif)
    with _load(data, context, size=(96, 64)) as full, _load(data, context, size=(96, 64), approximate=True) as small:
        assert small.backend == "simplejpeg-dct1/2+exact"
        assert np.abs(full.numpy().astype(int) - small.numpy()).mean() <= 0.5


def test_a_frame_that_is_not_there_is_refused(context: LoadContext) -> None:
    with pytest.raises(InvalidOptions, match="has 3"):
        _load(animation("GIF"), context, frame=3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floats_run_from_0_to_1_in_the_layout_that_was_asked_for(dtype: str, context: LoadContext) -> None:
    with _load(OPAQUE["png"], context, dtype=dtype, layout="CHW") as image:
        expected = torch.from_numpy(scene()).permute(2, 0, 1).float() / 255
        assert torch.equal(image.tensor, expected.to(getattr(torch, dtype)))


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_size_is_kept_and_the_picture_with_it(resample: str, context: LoadContext) -> None:
    picture = scene(240, 320)
    filters = {"nearest": 0, "bilinear": 2, "bicubic": 3, "lanczos": 1}
    expected = np.asarray(Picture.fromarray(picture).resize((80, 100), filters[resample]))
    with _load(encoded(picture, "PNG"), context, size=(100, 80), resample=resample) as image:
        assert image.shape == (100, 80, 3)
        assert image.backend == "torchvision+exact"
        if resample != "nearest":
            assert np.abs(image.numpy().astype(int) - expected).mean() < 0.5


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_dali_is_within_its_tolerance_of_exact(resample: str, context: LoadContext) -> None:
    allowed = TOLERANCES["image/dali"]
    data = encoded(scene(240, 321), "PNG")
    for size in ((100, 81), (480, 500), (33, 700)):
        with (
            _load(data, context, size=size, resample=resample) as exact,
            _load(data, context, size=size, resample=resample, engine="dali") as dali,
        ):
            assert dali.backend == "torchvision+dali"
            difference = np.abs(exact.numpy().astype(int) - dali.numpy())
            assert difference.max() <= allowed.max_abs
            assert allowed.max_mean is not None
            assert difference.mean() <= allowed.max_mean


def test_features_carry_names_tokens_and_their_source(context: LoadContext) -> None:
    with _load(OPAQUE["jpeg 4:2:0"], context, preset="qwen2.5-vl") as features:
        assert isinstance(features, Features)
        assert set(features) == {"pixel_values", "image_grid_thw"}
        assert features["image_grid_thw"].tolist() == [[1, 4, 4]]
        assert isinstance(features.metadata, FeatureMetadata)
        assert (features.metadata.preset, features.metadata.num_tokens) == ("qwen2.5-vl", 4)
        assert features.metadata.source.width == 64  # type: ignore[union-attr]
        assert features.content_hash == "0" * 64


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_features_of_half_precision_are_rounded_once(dtype: Any, context: LoadContext) -> None:
    with (
        _load(OPAQUE["png"], context, preset="siglip-224") as full,
        _load(OPAQUE["png"], context, preset="siglip-224", dtype=dtype) as half,
    ):
        assert torch.equal(full.tensor.to(getattr(torch, dtype)), half.tensor)


def test_without_normalisation_a_preset_gives_its_levels(context: LoadContext) -> None:
    with _load(OPAQUE["png"], context, preset="siglip-224", normalize=False) as features:
        assert (features.dtype, features.shape) == ("uint8", (1, 3, 224, 224))


def test_stages_are_timed_in_order(context: LoadContext) -> None:
    _load(OPAQUE["png"], context).release()
    _load(OPAQUE["png"], context, preset="clip-224").release()
    names = ["probe", "decode", "place", "probe", "decode", "transform"]
    assert [stage.name for stage in context.stages] == names


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "no-such-model"},
        {"preset": 3},
        {"preset": "clip-224", "dtype": "uint8"},
        {"preset": "clip-224", "dtype": "float16", "normalize": False},
    ],
    ids=str,
)
def test_options_that_cannot_be_met_are_refused(options: dict[str, Any], context: LoadContext) -> None:
    with pytest.raises(InvalidOptions):
        _load(OPAQUE["png"], context, **options)


def test_a_thin_picture_may_not_become_a_huge_one(context: LoadContext) -> None:
    data = encoded(Picture.new("RGB", (16_000, 4)), "PNG")
    with pytest.raises(LimitExceeded, match="max_image_pixels"):
        _load(data, context, preset="clip-224")
    with pytest.raises(LimitExceeded, match="200"):
        _load(data, context, preset="qwen2.5-vl")
    with pytest.raises(LimitExceeded):
        _load(OPAQUE["png"], context, size=100_000)


def test_a_result_larger_than_allowed_is_refused(context: LoadContext) -> None:
    context.limits = Limits(max_output_bytes=1_000)
    with pytest.raises(LimitExceeded, match="max_output_bytes"):
        _load(OPAQUE["png"], context)


def test_a_video_is_no_image(context: LoadContext) -> None:
    data = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41"
    with pytest.raises(UnsupportedFormat, match="mp4"):
        _load(data, context)


@pytest.mark.parametrize("torch_threads", [1, 2])
def test_a_thread_on_which_torch_has_no_others_loads_an_image_itself(torch_threads: int) -> None:
    usual, before = torch.get_num_threads(), set(threading.enumerate())
    torch.set_num_threads(torch_threads)
    try:
        with SyncFlow(device="cpu", workers=1) as flow:
            for options in ({}, {"preset": "clip-224"}):
                with flow.load(encoded(scene(), "JPEG"), options=options) as media:
                    assert media.backend.startswith("simplejpeg")
            begun = set(threading.enumerate()) - before
            workers = [thread for thread in begun if thread.name.startswith("gpuflow-decode")]
            assert len(workers) == (0 if torch_threads == 1 else 1)
            assert flow.flow.counters.snapshot()['gpuflow_media_total{kind="image"}'] == 1
            with pytest.raises(CorruptMedia):
                flow.load(encoded(scene(240, 320), "JPEG")[:2000])
            flow.load(encoded(scene(), "JPEG", progressive=True)).release()  # which may take long: a worker's
            workers = [thread for thread in threading.enumerate() if thread.name.startswith("gpuflow-decode")]
            assert set(workers) - before
            assert flow.slab.statistics().live_leases == 0
    finally:
        torch.set_num_threads(usual)


def test_an_image_that_never_fits_the_slab_is_no_matter_of_waiting() -> None:
    with SyncFlow(device="cpu", slab_bytes="64KiB") as flow:
        for options in ({}, {"preset": "clip-224"}, {"size": 300}):
            with pytest.raises(LimitExceeded, match="all of the slab has 65536"):
                flow.load(encoded(scene(240, 320), "JPEG"), options=options)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(40, 90), (20, 200), (100, 30)], ids=str)
def test_pillows_resize_is_reproduced_where_it_is_asked_for(
    resample: Any, size: tuple[int, int], context: LoadContext
) -> None:
    data, options = encoded(scene(), "PNG"), ImageOptions(size=size, resample=resample, reference="pillow")
    with load_image(blob(data), sniff(data), options, context) as image:
        expected = PICTURE.resize(size[::-1], getattr(Picture.Resampling, resample.upper()))
        np.testing.assert_array_equal(image.numpy(), np.asarray(expected))


def test_a_preset_can_refer_to_pillow(context: LoadContext) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    picture = scene(333, 517)
    data, options = encoded(picture, "PNG"), ImageOptions(preset="clip-224", reference="pillow")
    with load_image(blob(data), sniff(data), options, context) as features:
        assert isinstance(features, Features)
        expected = CLIPImageProcessorPil()(images=picture, return_tensors="pt")["pixel_values"]
        assert float((features["pixel_values"] - expected).abs().max()) <= TOLERANCES["image/exact-pillow"].max_abs
    with pytest.raises(InvalidOptions, match="Lanczos"):
        load_image(blob(data), sniff(data), ImageOptions(preset="idefics3", reference="torchvision"), context)
