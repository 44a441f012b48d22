"""Presets of families that see an image whole, against Hugging Face's processors, built without a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gpuflow.codecs.orientation import oriented
from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import load_image
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Features
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Preset
from gpuflow.presets.whole import PRESETS
from tests.parity.tolerances import TOLERANCES
from tests.parity.whole_processors import CHECKPOINTS, SIZES, data, of_class, picture, processor, settings_of
from tests.unit.image_files import blob, scene, turned

LARGE = (1_131, 1_447)
LEVELS = {"do_rescale": False, "do_normalize": False}
# One of each class and rule where everything is run; the other rows differ in numbers alone
FAMILIES = (
    "clip-336", "siglip-384", "siglip2-naflex", "llava-1.5-pad", "qwen2.5-vl", "qwen3-vl", "glm4.6v", "gemma3",
    "gemma3n", "gemma4", "pixtral", "mistral3", "vit-224", "dinov2-224",
)  # fmt: skip


def load(encoded: bytes, preset: Any, context: LoadContext, **options: Any) -> Features:
    features = load_image(blob(encoded), sniff(encoded), ImageOptions(preset=preset, **options), context)
    assert isinstance(features, Features)
    return features


def processed(made: Any, image: Any, **settings: Any) -> Any:
    return made(images=image, return_tensors="pt", do_convert_rgb=True, **settings)


def assert_equal(features: Features, expected: Any, *, dtype: torch.dtype | None = None) -> None:
    """Equal in names, shapes, types and every number."""
    assert set(features) == set(expected)
    for name in features:
        wanted = expected[name].to(dtype) if dtype and name == "pixel_values" else expected[name]
        assert (features[name].dtype, features[name].shape) == (wanted.dtype, wanted.shape), name
        difference = (features[name].double() - wanted.double()).abs().max()
        assert difference <= TOLERANCES["image/exact"].max_abs, name


def test_every_preset_is_compared_here() -> None:
    assert set(CHECKPOINTS) == {preset.name for preset in PRESETS}
    assert {image_preset(name).processor for name in FAMILIES} == {
        preset.processor for preset in PRESETS if preset.name not in ("bit-224", "glm4v")
    }


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_exact_engine_equals_the_processor(name: str, context: LoadContext) -> None:
    made = processor(name)
    for size in SIZES if name in FAMILIES else SIZES[-2:]:
        with load(data(*size), name, context) as features:
            assert features.backend == "torchvision+exact"
            assert_equal(features, processed(made, picture(*size)))


@pytest.mark.parametrize("name", ["llava-1.5-pad", "siglip2-naflex", "qwen2.5-vl", "glm4.6v", "gemma4", "pixtral"])
def test_a_large_picture_equals_the_processors(name: str, context: LoadContext) -> None:
    with load(data(*LARGE), name, context) as features:
        assert_equal(features, processed(processor(name), picture(*LARGE)))


@pytest.mark.parametrize("name", FAMILIES)
def test_other_modes_equal_the_processors_where_transparency_is_dropped(name: str, context: LoadContext) -> None:
    for mode in ("RGBA", "L", "P", "LA"):
        with load(data(75, 130, mode), name, context, alpha="drop") as features:
            assert_equal(features, processed(processor(name), picture(75, 130, mode)))


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_lie_in_the_same_layout(name: str, context: LoadContext) -> None:
    with load(data(133, 217), name, context, normalize=False) as features:
        assert features["pixel_values"].dtype == torch.uint8
        assert_equal(features, processed(processor(name), picture(133, 217), **LEVELS))


@pytest.mark.parametrize("name", FAMILIES)
def test_narrow_types_are_the_processors_numbers_rounded(name: str, context: LoadContext) -> None:
    expected = processed(processor(name), picture(133, 217))
    for dtype in (torch.float16, torch.bfloat16):
        with load(data(133, 217), name, context, dtype=str(dtype).removeprefix("torch.")) as features:
            assert_equal(features, expected, dtype=dtype)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_equals_the_processors_of_the_upright_one(orientation: int, context: LoadContext) -> None:
    upright = np.ascontiguousarray(oriented(scene(), orientation))
    with load(turned("PNG", orientation), "clip-224", context) as features:
        assert_equal(features, processor("clip-224")(images=upright, return_tensors="pt"))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("CLIPImageProcessor", {"size": {"shortest_edge": 50}, "crop_size": {"height": 91, "width": 64}}),
        ("CLIPImageProcessor", {"use_square_size": True, "do_center_crop": False}),
        ("CLIPImageProcessor", {"do_normalize": False}),
        ("LlavaImageProcessor", {"do_pad": True, "do_center_crop": False, "image_mean": [0.999, 0.0, 0.3]}),
        ("LlavaImageProcessor", {"do_pad": True, "size": {"shortest_edge": 60}, "crop_size": {"height": 71, "width": 40}}),
        ("SiglipImageProcessor", {"size": 80, "do_center_crop": True, "crop_size": 70}),
        ("ViTImageProcessor", {"size": {"height": 50, "width": 90}, "do_center_crop": True, "crop_size": 61}),
        ("Siglip2ImageProcessor", {"patch_size": 14, "max_num_patches": 100, "resample": 3}),
        ("Qwen2VLImageProcessor", {"size": {"shortest_edge": 3_136, "longest_edge": 15_680}, "merge_size": 1}),
        ("Qwen2VLImageProcessor", {"min_pixels": 50_000, "max_pixels": 90_000, "temporal_patch_size": 1}),
        ("Glm4vImageProcessor", {"size": {"shortest_edge": 3_136, "longest_edge": 31_360}, "patch_size": 16}),
        ("Glm46VImageProcessor", {"min_pixels": 7, "max_pixels": 90_000, "temporal_patch_size": 4}),
        ("Gemma4ImageProcessor", {"max_soft_tokens": 70, "do_normalize": True, "image_mean": [0.1] * 3}),
        ("Gemma4ImageProcessor", {"pooling_kernel_size": 2, "patch_size": 14, "resample": 2}),
        ("PixtralImageProcessor", {"size": {"height": 100, "width": 160}, "patch_size": {"height": 12, "width": 12}}),
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_of_a_class_are_read_and_equal_it(
    kind: str, settings: dict[str, Any], context: LoadContext
) -> None:
    made = of_class(kind)(**settings)
    preset = Preset.from_hf(made.to_dict())
    assert preset == Preset.from_hf(made)
    for size in ((37, 900), (48, 77), (301, 200), (5, 4)):
        with load(data(*size), preset, context) as features:
            assert_equal(features, processed(made, picture(*size)))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_preset_read_from_the_processors_own_settings_equals_the_built_in_one(name: str) -> None:
    found, built_in = Preset.from_hf(settings_of(name)), image_preset(name)
    assert found.processor == built_in.processor
    assert replace(found, name=name) == built_in


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["exact", "dali"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_gpu_is_within_its_tolerance_of_the_processor(name: str, engine: Any) -> None:
    """Decoded on the host, for PNG has no other way: what is compared is the device's part."""
    levels = TOLERANCES["image/views" if engine == "exact" else "image/dali"].max_abs
    allowed = levels / 255 / min(image_preset(name).std)
    with SyncFlow(device="cuda") as flow:
        for size in SIZES:
            options = ImageOptions(preset=name, engine=engine)
            with flow.load(data(*size), options=options) as features:
                assert isinstance(features, Features)
                expected = processed(processor(name), picture(*size))
                difference = (features["pixel_values"].cpu() - expected["pixel_values"]).abs()
            assert float(difference.max()) <= allowed
