"""Presets as data: names, sizes, plans, and what is read from a Hugging Face configuration."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.presets.families import image_preset, image_preset_names
from gpuflow.presets.image import Preset
from gpuflow.presets.plan import plan, plan_plain
from gpuflow.presets.sizes import by_pixel_budget, by_shortest_edge

QWEN_CONFIG = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "min_pixels": 3_136,
    "max_pixels": 12_845_056,
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def test_every_name_gives_a_preset_of_that_name() -> None:
    assert {"clip-336", "siglip-384", "qwen2.5-vl", "qwen3-vl"} <= set(image_preset_names())
    assert all(image_preset(name).name == name for name in image_preset_names())


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidOptions, match=r"clip-224.*qwen2\.5-vl"):
        image_preset("no-such-model")


def test_a_preset_is_a_frozen_value() -> None:
    with pytest.raises(FrozenInstanceError):
        image_preset("clip-224").patch = 32  # type: ignore[misc]
    assert replace(image_preset("clip-224"), patch=32) != image_preset("clip-224")


@pytest.mark.parametrize(
    "broken",
    [
        {"resample": "lanczos"},
        {"std": (0.5, 0.0, 0.5)},
        {"size": (0, 224)},
        {"crop": (224, 0)},
        {"rule": "pixel_budget"},
        {"layout": "patches"},
    ],
    ids=str,
)
def test_values_that_contradict_each_other_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        replace(image_preset("clip-224"), **broken)


@pytest.mark.parametrize(
    ("name", "size", "shape", "tokens"),
    [
        ("clip-336", (480, 640), (1, 3, 336, 336), 576),
        ("clip-224", (480, 640), (1, 3, 224, 224), None),
        ("siglip-384", (37, 900), (1, 3, 384, 384), None),
        ("qwen2.5-vl", (480, 640), (34 * 46, 1_176), 17 * 23),
        ("qwen3-vl", (480, 640), (30 * 40, 1_536), 15 * 20),
    ],
)
def test_shapes_and_tokens_are_known_before_anything_is_decoded(
    name: str, size: tuple[int, int], shape: tuple[int, ...], tokens: int | None
) -> None:
    wanted = plan(image_preset(name), *size)
    assert wanted.outputs[0] == ("pixel_values", "float32", shape)
    assert wanted.num_tokens == tokens


@given(st.integers(1, 5_000), st.integers(1, 5_000))
def test_a_pixel_budget_is_kept_and_sides_are_multiples(height: int, width: int) -> None:
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(LimitExceeded):
            by_pixel_budget(height, width, factor=28, min_pixels=3_136, max_pixels=1_003_520)
        return
    rows, columns = by_pixel_budget(height, width, factor=28, min_pixels=3_136, max_pixels=1_003_520)
    assert rows % 28 == columns % 28 == 0
    assert rows * columns >= 3_136
    assert rows * columns <= 1_003_520 or 28 in (rows, columns)


@given(st.integers(1, 5_000), st.integers(1, 5_000))
def test_the_shortest_edge_becomes_what_was_asked_for(height: int, width: int) -> None:
    assert min(by_shortest_edge(height, width, 224)) == 224


def test_a_plain_plan_keeps_the_size_and_the_levels() -> None:
    wanted = plan_plain(48, 64)
    assert (wanted.views[0].resized, wanted.mean, wanted.outputs) == (
        (48, 64),
        None,
        (("image", "uint8", (48, 64, 3)),),
    )
    assert plan_plain(48, 64, size=(7, 9), layout="CHW", dtype="float16").outputs == (("image", "float16", (3, 7, 9)),)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}}, "clip-224"),
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 336}, "clip-336"),
        ({"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}}, "siglip-384"),
        ({"image_processor_type": "ViTImageProcessorFast", "size": {"height": 224, "width": 224}}, "vit-224"),
        (
            {
                "image_processor_type": "BitImageProcessor",
                "size": {"shortest_edge": 256},
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            },
            "dinov2-224",
        ),
        (QWEN_CONFIG, "qwen2.5-vl"),
        (
            QWEN_CONFIG
            | {
                "min_pixels": None,
                "max_pixels": None,
                "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
                "patch_size": 16,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            },
            "qwen3-vl",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hugging_face_configuration_gives_the_built_in_preset(config: dict[str, Any], name: str) -> None:
    expected = image_preset(name)
    found = Preset.from_hf(config)
    assert replace(found, name=name, patch=expected.patch, tokens=expected.tokens) == expected


def test_a_configuration_can_be_a_file_or_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(QWEN_CONFIG))
    assert Preset.from_hf(tmp_path) == Preset.from_hf(file) == Preset.from_hf(QWEN_CONFIG)
    with pytest.raises(InvalidOptions, match=r"preprocessor_config\.json"):
        Preset.from_hf(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"image_processor_type": "LlavaNextImageProcessor"},
        {"image_processor_type": "CLIPImageProcessor", "do_normalize": False},
        {"image_processor_type": "CLIPImageProcessor", "resample": 1},
        {"image_processor_type": "CLIPImageProcessor", "rescale_factor": 1.0},
        {"image_processor_type": "CLIPImageProcessor", "size": {"longest_edge": 3}},
        {"image_processor_type": "SiglipImageProcessor", "size": "big"},
        {"image_processor_type": "Qwen2VLImageProcessor", "size": 224},
        {"image_processor_type": "CLIPImageProcessor", "image_mean": ["a"]},
        {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.5]},
    ],
    ids=str,
)
def test_a_configuration_that_a_preset_cannot_express_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        Preset.from_hf(config)


@pytest.mark.parametrize(
    "values",
    [
        {"rule": "weird"},
        {"size": (3,)},
        {"size": (3.5, 3)},
        {"merge": 0},
        {"patch": -1},
        {"std": (1.0, 1.0, float("nan"))},
    ],
    ids=str,
)
def test_a_preset_of_wrong_types_is_refused_when_it_is_made(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        Preset(**{"name": "x", "rule": "fixed", "size": (8, 8)} | values)


@pytest.mark.parametrize(
    "values", [{"resample": []}, {"rescale_factor": "x"}, {"size": 3.5}, {"image_mean": 5}], ids=str
)
def test_a_configuration_with_wrong_types_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        Preset.from_hf({"image_processor_type": "CLIPImageProcessor"} | values)
