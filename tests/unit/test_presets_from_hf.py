"""What is read from Hugging Face configurations: files, folders, mappings, and whatever else is put there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.presets.families import image_preset
from gpuflow.presets.hf_whole import FAMILIES
from gpuflow.presets.image import Preset
from gpuflow.presets.plan import plan
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
