"""Presets as data: names, sizes, plans, and what is read from a Hugging Face configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.presets.beside import values_of
from gpuflow.presets.families import image_preset, image_preset_names
from gpuflow.presets.hf_whole import FAMILIES
from gpuflow.presets.image import Preset, Rule
from gpuflow.presets.kinds import KINDS
from gpuflow.presets.plan import plan, plan_plain
from gpuflow.presets.sizes import by_pixel_budget, by_shortest_edge
from gpuflow.presets.tokens import RULES as TOKEN_RULES
from tests.unit.odd_values import DEEP, ODD

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
        {"layout": "patches_last"},
        {"rule": "longest_edge"},
        {"rule": "patch_budget"},
        {"rule": "token_budget", "max_patches": 280, "patch": 0},
        {"rule": "within_size"},
        {"rule": "within_size", "patch": 16, "modality": "video"},
    ],
    ids=str,
)
def test_values_that_contradict_each_other_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        replace(image_preset("clip-224"), **broken)


@pytest.mark.parametrize(
    ("name", "size", "shape", "tokens"),
    [
        ("clip-336", (480, 640), (1, 3, 336, 336), None),
        ("llava-1.5", (480, 640), (1, 3, 336, 336), 576),
        ("siglip2-naflex", (480, 640), (1, 256, 768), None),
        ("gemma4", (480, 640), (1, 2_520, 768), 14 * 19),
        ("mistral3", (480, 640), (1, 3, 504, 644), 18 * 24),
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
    assert replace(Preset.from_hf(config), name=name) == image_preset(name)


def test_a_configuration_can_be_a_file_or_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(QWEN_CONFIG))
    assert Preset.from_hf(tmp_path) == Preset.from_hf(file) == Preset.from_hf(QWEN_CONFIG)
    with pytest.raises(InvalidOptions, match=r"preprocessor_config\.json"):
        Preset.from_hf(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidOptions, match=r"preprocessor_config\.json .*cannot be read"):
        Preset.from_hf(tmp_path / "empty")


@pytest.mark.parametrize("name", ["openai/clip-vit-large-patch14", "x" * 9_000, "a\0b", ""])
def test_a_name_on_a_hub_is_no_folder(name: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        Preset.from_hf(name)
    if name:
        assert "no name of a checkpoint on a hub" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["size", "image_mean", "image_std", "crop_size", "resample", "rescale_factor", "type"])
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_a_setting_of_any_depth_or_length_is_refused_in_a_few_words(key: str, value: Any) -> None:
    config = {"image_processor_type": CLIP, "image_processor_type" if key == "type" else key: value}
    with pytest.raises(InvalidOptions) as caught:
        Preset.from_hf(config)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("modality", ["audio", "", 3, DEEP], ids=["audio", "empty", "3", "deep"])
def test_a_modality_is_image_or_video(modality: Any) -> None:
    with pytest.raises(InvalidOptions, match="modality is 'image' or 'video'"):
        Preset.from_hf(QWEN_CONFIG, modality=modality)


CLIP, SIGLIP, LLAVA, PIXTRAL = (f"{name}ImageProcessor" for name in ("CLIP", "Siglip", "Llava", "Pixtral"))
QWEN, GLM, NAFLEX, GEMMA4 = (
    "Qwen2VLImageProcessor",
    "Glm4vImageProcessor",
    "Siglip2ImageProcessor",
    "Gemma4ImageProcessor",
)
PAN_AND_SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_ratio_to_activate": 1.2,
    "size": {"height": 896, "width": 896},
}


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        ("", {}, "image_processor_type"),
        ("DINOv3ViTImageProcessor", {}, "DINOv3ViTImageProcessor"),  # scales before it resizes
        (["CLIPImageProcessor"], {}, "image_processor_type"),
        (CLIP, {"do_resize": False}, "do_resize"),
        (CLIP, {"do_resize": 0}, "do_resize"),
        (CLIP, {"do_rescale": False}, "do_rescale"),
        (CLIP, {"rescale_factor": 1.0}, "rescale_factor"),
        (CLIP, {"rescale_factor": 0.0039215}, "rescale_factor"),
        (CLIP, {"rescale_factor": "x"}, "rescale_factor"),
        (CLIP, {"resample": 0}, "resample"),
        (CLIP, {"resample": 4}, "resample"),
        (CLIP, {"resample": []}, "resample"),
        (CLIP, {"resample": True}, "resample"),
        (CLIP, {"do_pad": True, "pad_size": {"height": 300, "width": 300}}, "pad_size"),
        (CLIP, {"size": {"longest_edge": 3}}, "longest_edge"),
        (CLIP, {"size": {"shortest_edge": 3, "longest_edge": 30}}, "longest_edge"),
        (CLIP, {"size": 3.5}, "size"),
        (CLIP, {"size": [3, 4, 5]}, "size"),
        (CLIP, {"size": 10**400}, "size"),
        (CLIP, {"crop_size": {"shortest_edge": 3}}, "shortest_edge"),
        (CLIP, {"image_mean": ["a"]}, "image_mean"),
        (CLIP, {"image_mean": [0.5]}, "image_mean"),
        (CLIP, {"image_mean": 5}, "image_mean"),
        (CLIP, {"image_std": []}, "image_std"),
        (CLIP, {"image_std": [0.5, 0.5, "0.5"]}, "image_std"),
        (CLIP, {"image_std": [0.5, 0.5, float("nan")]}, "image_std"),
        (CLIP, {"image_std": [0.5, 0.5, 0]}, "above 0"),
        (SIGLIP, {"size": "big"}, "size"),
        (SIGLIP, {"do_center_crop": True}, "crop_size"),
        (SIGLIP, {"image_seq_length": -1}, "image_seq_length"),
        ("Gemma3ImageProcessor", {"do_pan_and_scan": True}, "do_pan_and_scan"),
        (QWEN, {"size": 224}, "shortest_edge"),
        (QWEN, {"size": {"height": 224, "width": 224}}, "shortest_edge"),
        (QWEN, {"size": {"min_pixels": 224, "max_pixels": 500}}, "min_pixels"),
        (QWEN, {"min_pixels": 10, "max_pixels": 9}, "max_pixels"),
        (QWEN, {"patch_size": 0}, "^patch_size is a whole number"),
        (QWEN, {"merge_size": 1 << 30}, "merge"),
        (GLM, {"size": {"longest_edge": 9}}, "min_pixels"),
        (NAFLEX, {"max_num_patches": 1 << 30}, "max_patches"),
        (NAFLEX, {"patch_size": {"height": 16, "width": 14}}, "patch_size"),
        (GEMMA4, {"max_soft_tokens": 281}, "max_soft_tokens"),
        (GEMMA4, {"pooling_kernel_size": "3"}, "pooling_kernel_size"),
        (CLIP, {"data_format": "channels_last"}, "data_format is channels_first here; got 'channels_last'"),
        (QWEN, {"data_format": "channels_last"}, "data_format"),
        (CLIP, {"crop_size": 2.5}, "^crop_size"),
        (CLIP, {"image_std": [1e-320, 1, 1]}, "above 0, in float32"),
        (CLIP, {"image_std": [1e-38, 1, 1]}, "above 0, in float32"),
        ("Gemma3ImageProcessor", PAN_AND_SCAN, "pan_and_scan_max_num_crops is a whole number above 0; it is left out"),
        (QWEN, {"temporal_patch_size": 1 << 40}, "temporal_patch in 1 .. 64"),
        (PIXTRAL, {"do_center_crop": True}, "do_center_crop"),
        (PIXTRAL, {"size": {"shortest_edge": 3}}, "shortest_edge"),
        (PIXTRAL, {"patch_size": 1 << 20}, "patch"),
    ],
    ids=str,
)
def test_a_setting_that_a_preset_cannot_express_is_refused_by_name(
    kind: Any, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidOptions, match=says):
        Preset.from_hf({"image_processor_type": kind, **values})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (CLIP, {"do_convert_rgb": False, "do_pad": True, "device": "cuda", "processor_class": "X"}),
        (CLIP, {"size": None, "crop_size": None, "resample": None, "image_mean": None, "do_center_crop": None}),
        (CLIP, {"do_convert_rgb": True, "data_format": "channels_first"}),
        (CLIP, {"rescale_factor": 0.0039215686275, "image_seq_length": 3}),
        (QWEN, {"do_center_crop": True, "crop_size": 3, "do_pad": True}),  # its class looks at none of them
    ],
    ids=str,
)
def test_a_setting_that_changes_nothing_is_left_aside(kind: str, values: dict[str, Any]) -> None:
    assert Preset.from_hf({"image_processor_type": kind, **values}) == Preset.from_hf({"image_processor_type": kind})


@pytest.mark.parametrize("suffix", ["", "Fast"])
@pytest.mark.parametrize("kind", [CLIP, QWEN, NAFLEX])
def test_all_names_of_a_class_are_read_and_pillows_is_marked(kind: str, suffix: str) -> None:
    plain, pillow = (Preset.from_hf({"image_processor_type": f"{kind}{end}"}) for end in (suffix, "Pil"))
    assert plain.processor == pillow.processor == kind
    assert (plain.reference, plain.passes) == ("torchvision", "horizontal_first")
    assert replace(plain, reference="pillow", passes="pillow", normalization="two_steps") == pillow


def test_tokens_are_those_of_the_processor_around_the_image_processor() -> None:
    own = {"image_processor_type": CLIP, "size": 336, "crop_size": 336}
    llava = {"image_processor": own, "patch_size": 14, "vision_feature_select_strategy": "default"}
    assert Preset.from_hf(own).tokens == ""
    assert plan(Preset.from_hf(llava | {"num_additional_image_tokens": 1}), 9, 9).num_tokens == 576
    assert plan(Preset.from_hf(llava), 9, 9).num_tokens == 575  # as LLaVA's processor counts without that setting
    assert plan(Preset.from_hf(llava | {"vision_feature_select_strategy": "full"}), 9, 9).num_tokens == 576
    siglip = {"image_processor": {"image_processor_type": SIGLIP, "image_seq_length": 64}, "image_seq_length": 256}
    assert plan(Preset.from_hf(siglip), 9, 9).num_tokens == 256
    for wrong in ({"patch_size": "14"}, {"num_additional_image_tokens": "1"}, {"num_additional_image_tokens": -600}):
        with pytest.raises(InvalidOptions):
            Preset.from_hf(llava | wrong)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["height", "width", "shortest_edge", "longest_edge", "min_pixels", "max_pixels"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=4,
)
KEYS = (
    "size", "crop_size", "do_center_crop", "do_pad", "pad_size", "resample", "rescale_factor", "do_rescale", "do_resize",
    "do_normalize", "image_mean", "image_std", "patch_size", "merge_size", "temporal_patch_size", "min_pixels",
    "max_pixels", "max_num_patches", "max_soft_tokens", "pooling_kernel_size", "image_seq_length", "use_square_size",
    "default_to_square", "do_pan_and_scan", "image_processor", "processor", "vision_feature_select_strategy",
    "num_additional_image_tokens", "spatial_merge_size",
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=4),
    st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=3),
)
def test_any_file_gives_a_preset_or_invalid_options(kind: str, own: dict[str, Any], outer: dict[str, Any]) -> None:
    for config in (
        {**own, "image_processor_type": kind},
        {**outer, "image_processor": {**own, "image_processor_type": kind}},
    ):
        try:
            wanted = plan(Preset.from_hf(config), 48, 64)
        except (InvalidOptions, LimitExceeded):
            continue
        assert all(min(shape) > 0 for _, _, shape in wanted.outputs)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"size": 1e999}', b"null"], ids=repr
)
def test_a_file_that_is_no_configuration_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_bytes(content)
    for path in (tmp_path, tmp_path / "preprocessor_config.json", str(tmp_path)):
        with pytest.raises(InvalidOptions):
            Preset.from_hf(path)
    with pytest.raises(InvalidOptions):
        Preset.from_hf(3)  # type: ignore[arg-type]


def test_of_two_files_the_nested_one_comes_first_as_in_transformers(tmp_path: Path) -> None:
    flat, nested = ({"image_processor_type": CLIP, "size": size} for size in (100, 200))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(flat))
    assert Preset.from_hf(tmp_path).size == (100, 100)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert Preset.from_hf(tmp_path).size == (100, 100)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    assert Preset.from_hf(tmp_path).size == (200, 200)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("qwen2-vl", (1, 201)), ("glm4v", (28, 5_601)), ("glm4v", (1, 300)), ("pixtral", (1, 1_025)),
        ("mistral3", (3_081, 2)),
    ],
)  # fmt: skip
def test_a_shape_that_the_family_refuses_is_named(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(LimitExceeded, match=f"{size[1]}x{size[0]}"):
        plan(image_preset(name), *size)


@pytest.mark.parametrize("name", ["siglip2-naflex", "gemma4", "clip-224", "llava-1.5-pad"])
def test_other_families_take_any_shape(name: str) -> None:
    for size in ((1, 1), (1, 16_384), (16_384, 1)):
        assert plan(image_preset(name), *size).pixels[2]


def test_patches_that_hold_no_token_are_refused() -> None:
    with pytest.raises(LimitExceeded, match="64x48"):
        plan(replace(image_preset("gemma4"), max_patches=8), 48, 64)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5, 2.0), ("5", 5), (True, 5), (5, 1 << 40), (5, None)], ids=str)
def test_a_size_that_no_image_has_is_refused(size: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidOptions, match="whole number of pixels"):
        plan(image_preset("clip-224"), *size)


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
    ("values", "says"),
    [
        ({"beside": ("grid",)}, "grid goes with layout patches or patches_last"),
        ({"beside": ("soft_tokens",)}, "soft_tokens goes with layout"),
        ({"beside": ("patch_shape",)}, "patch_shape goes with layout"),
        ({"beside": ("patch_mask",)}, "patch_mask goes with layout patches_last"),
        ({"beside": ("patch_places",)}, "patch_places goes with layout"),
        ({"beside": ("attention_mask",)}, "after an overview"),
        ({"beside": ("num_img_tokens",)}, "tokens is empty"),
        ({"beside": ("weird",)}, "beside the pixels there are grid, image_size"),
        ({"beside": ("image_size", "image_size")}, "names of their own"),
        ({"beside": ("image_size", "canvas_size")}, "names of their own"),
        ({"beside": ("image_size",), "pixels": "image_sizes"}, "names of their own"),
        ({"pixels": ""}, "names of their own"),
        ({"tokens": "nope"}, "tokens is one of patches, rows, tiles"),
        ({"tokens": "patches"}, "patch is above 0"),
        ({"tokens": "rows"}, "patch is above 0"),
        ({"tokens": "tiles"}, "tile_tokens is above 0"),
        ({"tokens": "phi4"}, "patch lies in 1 .. size"),
        ({"thumbnail": "overview"}, "no thumbnail"),
        ({"rule": "pan_and_scan", "min_crop": 9, "thumbnail": "overview"}, "no thumbnail"),
        ({"std": (1e-320, 1.0, 1.0)}, "in float32"),
        ({"rule": "weird"}, "rule: one of 'fixed', 'shortest_edge', .*; got 'weird'"),
        ({"thumbnail": 3}, "thumbnail: one of '', 'first', 'last', 'overview'; got 3"),
    ],
    ids=str,
)
def test_a_preset_that_contradicts_itself_is_refused_when_it_is_made(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        Preset(**{"name": "x", "rule": "fixed", "size": (5, 5)} | values)


CHANGES = {
    "rule": st.sampled_from(get_args(Rule)),
    "layout": st.sampled_from(["image", "patches", "patches_last"]),
    "beside": st.lists(st.sampled_from([*KINDS, "weird"]), max_size=3).map(tuple),
    "tokens": st.sampled_from(["", "nope", *TOKEN_RULES]),
    "thumbnail": st.sampled_from(["", "first", "last", "overview"]),
    "pixels": st.sampled_from(["pixel_values", "image_sizes", ""]),
    "patch": st.sampled_from([0, 1, 14, 500]),
    "merge": st.sampled_from([1, 2, 3]),
    "temporal_patch": st.sampled_from([1, 2]),
    "size": st.sampled_from([(0, 0), (5, 5), (224, 224), (336, 448)]),
    "crop": st.sampled_from([None, (5, 7)]),
    "tile_tokens": st.sampled_from([-1, 0, 3]),
    "max_patches": st.sampled_from([0, 1, 280]),
    "min_pixels": st.sampled_from([0, 1, 4_000]),
    "max_pixels": st.sampled_from([0, 1, 90_000]),
    "grid": st.sampled_from([(), ((224, 448), (448, 224))]),
    "min_tiles": st.sampled_from([1, 3]),
    "max_tiles": st.sampled_from([1, 2, 12]),
    "min_crop": st.sampled_from([0, 16, 256]),
    "edge": st.sampled_from([0, 448]),
    "tiled": st.booleans(),
    "square": st.booleans(),
}


@settings(max_examples=1_500, deadline=None)
@given(
    st.sampled_from(image_preset_names()),
    st.lists(st.sampled_from(sorted(CHANGES)), max_size=5).flatmap(
        lambda names: st.fixed_dictionaries({name: CHANGES[name] for name in names})
    ),
    st.sampled_from([(48, 64), (300, 30), (1, 1), (700, 1_100)]),
)
def test_a_preset_that_is_made_plans_every_image(name: str, changes: dict[str, Any], size: tuple[int, int]) -> None:
    try:
        preset = replace(image_preset(name), **changes)
    except InvalidOptions:
        return
    try:
        wanted = plan(preset, *size)
    except LimitExceeded:  # of the image's shape
        return
    assert len({name for name, *_ in wanted.outputs}) == len(wanted.outputs)
    for beside in wanted.beside:
        values = np.asarray(values_of(beside, wanted), beside.dtype)
        assert np.broadcast_to(values, beside.shape).shape == beside.shape


def test_numpy_is_not_needed_to_make_presets() -> None:
    code = "import sys, gpuflow.presets.families; assert 'numpy' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
