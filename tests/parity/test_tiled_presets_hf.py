"""Presets of families that cut images into tiles, against Hugging Face's processors built from class and settings."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

import gpuflow
from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions
from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import load_image
from gpuflow.media import Features
from gpuflow.ops.resize import resize_planar
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Preset
from gpuflow.presets.plan import plan
from gpuflow.presets.tiled import PRESETS
from tests.parity.tiled_processors import PROCESSORS, expected, processor
from tests.parity.tolerances import TOLERANCES
from tests.unit.image_files import blob, encoded, scene

SIZES = ((37, 900), (1500, 60), (29, 31), (333, 517))
LARGER = {  # than the largest grid, for one preset of each rule
    "llava-next": (1100, 700),
    "llava-onevision": (2400, 2310),
    "llava-onevision-multi": (700, 701),
    "internvl3": (1900, 1400),
    "gemma3-pan-and-scan": (300, 2000),
    "llama4": (1360, 1400),
    "phi-4-multimodal": (460, 9_000),
    "idefics3": (1501, 1520),
}


@functools.cache
def _scene(height: int, width: int) -> Any:
    return scene(height, width)


def _load(picture: Any, preset: Any, context: LoadContext, file_format: str = "BMP", **options: Any) -> Features:
    data = encoded(picture, file_format)
    features = load_image(blob(data), sniff(data), ImageOptions(preset=preset, **options), context)
    assert isinstance(features, Features)
    return features


def _assert_equal(found: Any, wanted: Any) -> None:
    assert list(found) == list(wanted)
    for name in wanted:
        assert (found[name].dtype, found[name].shape) == (wanted[name].dtype, wanted[name].shape), name
        difference = (found[name].double() - wanted[name].double()).abs().max()
        assert difference <= TOLERANCES["image/exact"].max_abs, name


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_exact_engine_equals_the_processor(name: str, context: LoadContext) -> None:
    one_tile = image_preset(name).size
    sizes = (*SIZES, LARGER[name]) if name in LARGER else SIZES[:1]
    for size in (*sizes, one_tile):
        with _load(_scene(*size), name, context) as features:
            _assert_equal(features, expected(name, _scene(*size)))


@pytest.mark.parametrize("mode", ["RGBA", "L"])
@pytest.mark.parametrize("name", LARGER)
def test_pictures_of_other_modes_equal_the_processors_of_them(name: str, mode: str, context: LoadContext) -> None:
    picture = Picture.fromarray(_scene(333, 517)).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Picture.fromarray(np.tile(np.arange(517, dtype=np.uint16) // 3, (333, 1)).astype(np.uint8)))
    with _load(picture, name, context, "PNG", alpha="drop") as features:
        _assert_equal(features, expected(name, picture))


@pytest.mark.parametrize("name", LARGER)
def test_levels_that_are_not_normalised_lie_in_the_same_places(name: str, context: LoadContext) -> None:
    raw = expected(name, _scene(333, 517), do_rescale=False, do_normalize=False)
    with _load(_scene(333, 517), name, context, normalize=False) as features:
        assert features.dtype == "uint8"
        _assert_equal(features, raw)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["llava-next", "llama4", "phi-4-multimodal", "idefics3"])
def test_other_types_are_the_processors_numbers_rounded_once(name: str, dtype: Any, context: LoadContext) -> None:
    import torch

    pixels = image_preset(name).pixels
    wanted = dict(expected(name, _scene(500, 517)))
    wanted[pixels] = wanted[pixels].to(getattr(torch, dtype))
    with _load(_scene(500, 517), name, context, dtype=dtype) as features:
        _assert_equal(features, wanted)


@pytest.mark.parametrize("name", LARGER)
def test_dali_is_within_its_tolerance(name: str, context: LoadContext) -> None:
    preset = image_preset(name)
    allowed = TOLERANCES["image/dali-lanczos" if preset.resample == "lanczos" else "image/dali"]
    for size in ((29, 31), (200, 900)):
        wanted = expected(name, _scene(*size))
        with _load(_scene(*size), name, context, engine="dali") as features:
            assert features.backend.endswith("+dali")
            levels = (features.tensor.float() - wanted[preset.pixels].float()).abs().numpy() * 255 * max(preset.std)
            _assert_equal({key: features[key] for key in [*features][1:]}, {key: wanted[key] for key in [*wanted][1:]})
        assert levels.max() <= allowed.max_abs
        assert allowed.max_mean is not None
        assert levels.mean() <= allowed.max_mean


@pytest.mark.parametrize("suffix", ["", "Fast"])
@pytest.mark.parametrize("name", [name for name in PROCESSORS if name != "llava-onevision-multi"])
def test_a_preset_read_from_the_processors_own_settings_is_the_built_in_one(name: str, suffix: str) -> None:
    config = processor(name).to_dict()
    config["image_processor_type"] += suffix
    assert Preset.from_hf(processor(name)) == Preset.from_hf(config)
    assert replace(Preset.from_hf(config), name=name) == image_preset(name)


def test_every_preset_of_the_table_has_its_processor_here() -> None:
    assert [preset.name for preset in PRESETS] == list(PROCESSORS)
    for preset in PRESETS:
        assert type(processor(preset.name)).__name__.removesuffix("Pil") == preset.processor


@pytest.mark.parametrize("name", ["llava-next", "llava-onevision", "internvl3", "gemma3-pan-and-scan"])
def test_the_processors_on_pillow_are_equalled_too(name: str, context: LoadContext) -> None:
    import transformers

    torchvisions = processor(name)
    kind = f"{type(torchvisions).__name__}Pil"
    settings = {key: value for key, value in torchvisions.to_dict().items() if key != "image_processor_type"}
    pillows = getattr(transformers, kind)(**settings)
    preset = Preset.from_hf(pillows)
    assert preset == Preset.from_hf({**pillows.to_dict(), "image_processor_type": kind})
    for size in ((37, 900), (333, 517), (29, 31)):
        picture = Picture.fromarray(_scene(*size))
        with _load(_scene(*size), preset, context) as features:
            _assert_equal(features, pillows(images=picture, return_tensors="pt"))


def test_settings_of_another_checkpoint_equal_the_processor_of_them(context: LoadContext) -> None:
    from transformers import (
        GotOcr2ImageProcessor,
        Idefics3ImageProcessorPil,
        Llama4ImageProcessor,
        Phi4MultimodalImageProcessor,
    )

    picture = _scene(333, 517)
    for other, settings in (
        (
            GotOcr2ImageProcessor(size={"height": 90, "width": 60}, min_patches=3, max_patches=6),
            {"crop_to_patches": True},
        ),
        (Llama4ImageProcessor(size={"height": 112, "width": 112}, max_patches=5, image_std=[0.3, 0.4, 0.5]), {}),
        (Phi4MultimodalImageProcessor(size={"height": 112, "width": 112}, patch_size=16, dynamic_hd=9), {}),
        (Idefics3ImageProcessorPil(do_image_splitting=False, do_pad=False), {}),
        (Idefics3ImageProcessorPil(size={"longest_edge": 333}, max_image_size={"longest_edge": 100}), {}),
    ):
        with _load(picture, Preset.from_hf(other.to_dict()), context) as features:
            _assert_equal(features, other(images=picture, return_tensors="pt", **settings))


def test_an_image_that_phi_4_refuses_is_too_large_a_request() -> None:
    with pytest.raises(ValueError, match="extreme"):
        expected("phi-4-multimodal", _scene(3000, 9))
    with pytest.raises(LimitExceeded, match="too thin"):
        plan(image_preset("phi-4-multimodal"), 3000, 9)


def test_a_strip_that_a_square_would_make_huge_is_refused(context: LoadContext) -> None:
    with pytest.raises(LimitExceeded, match="max_image_pixels"):
        _load(np.zeros((2, 9_000, 3), np.uint8), "llava-onevision-multi", context)


def test_pillows_order_of_passes_is_known_by_the_sizes() -> None:
    import torch

    noise = np.random.default_rng(0)
    for _ in range(300):
        height, width, *size = (int(side) for side in noise.integers(5, 90, 4))
        picture = noise.integers(0, 256, (height, width, 3), np.uint8)
        wanted = Picture.fromarray(picture).resize((size[1], size[0]), Picture.Resampling.LANCZOS)
        planar = torch.from_numpy(picture).permute(2, 0, 1)
        found = resize_planar(planar, (size[0], size[1]), "lanczos", reference="pillow", passes="pillow")
        assert np.array_equal(found.permute(1, 2, 0).numpy(), np.array(wanted)), (height, width, size)


@pytest.mark.parametrize("name", LARGER)
def test_a_batch_is_what_the_processor_returns_for_a_list(name: str, context: LoadContext) -> None:
    pictures = [_scene(210, 330), _scene(29, 31), _scene(100, 400)]
    images = [pictures] if name == "llava-onevision-multi" else pictures
    wanted = processor(name)(images=images, return_tensors="pt")
    with ExitStack() as stack:
        parts = [stack.enter_context(_load(picture, name, context)) for picture in pictures]
        batch = gpuflow.collate(parts)
    _assert_equal(batch, wanted)


def test_a_batch_of_patches_and_of_whole_images_is_the_processors_too(context: LoadContext) -> None:
    from transformers import (
        CLIPImageProcessor,
        Gemma4ImageProcessor,
        PixtralImageProcessor,
        Qwen2VLImageProcessor,
        Siglip2ImageProcessor,
    )

    pictures = [_scene(333, 517), _scene(60, 90)]
    for other in (
        Qwen2VLImageProcessor(size={"shortest_edge": 3_136, "longest_edge": 12_845_056}),
        CLIPImageProcessor(),
        PixtralImageProcessor(),
        Siglip2ImageProcessor(),
        Gemma4ImageProcessor(),
    ):
        preset = Preset.from_hf(other)
        with ExitStack() as stack:
            parts = [stack.enter_context(_load(picture, preset, context)) for picture in pictures]
            _assert_equal(gpuflow.collate(parts), other(images=pictures, return_tensors="pt"))


def test_a_batch_has_one_preset_and_one_type(context: LoadContext) -> None:
    with pytest.raises(InvalidOptions, match="one image or more"):
        gpuflow.collate([])
    picture = _scene(48, 64)
    with (
        _load(picture, "clip-224", context) as clip,
        _load(picture, "siglip-224", context) as siglip,
        _load(picture, "clip-224", context, dtype="float16") as half,
    ):
        for other in (siglip, half):
            with pytest.raises(InvalidOptions, match="one preset, types and device"):
                gpuflow.collate([clip, other])
