"""Tiles as data: the grids that are chosen, the numbers of tokens, and what is read from a Hugging Face configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.presets import grids
from gpuflow.presets.beside import values_of
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Preset
from gpuflow.presets.plan import plan
from tests.parity.tiled_processors import PROCESSORS, expected, processor
from tests.unit.image_files import scene

SIDES = st.integers(1, 3_000)
UNTIMED = settings(deadline=None)  # libraries are imported on the way
TOKEN_SIZES = ((37, 900), (1500, 60), (29, 31), (333, 517), (336, 336), (384, 768), (1, 40), (50, 3000))


@UNTIMED
@given(SIDES, SIDES, st.sampled_from(["llava-next", "llava-onevision"]))
def test_the_canvas_is_the_one_that_llava_chooses(height: int, width: int, name: str) -> None:
    from transformers.image_processing_utils import select_best_resolution

    preset = image_preset(name)
    canvas = select_best_resolution((height, width), list(preset.grid))
    tiled = plan(preset, height, width).views[1]
    assert tiled.canvas == canvas
    assert tiled.resized == _fitted_by_llava(height, width, canvas)


def _fitted_by_llava(height: int, width: int, canvas: tuple[int, int]) -> Any:
    import torch
    from transformers.image_processing_utils import get_patch_output_size

    return get_patch_output_size(torch.empty(3, height, width, device="meta"), canvas, "channels_first")


@UNTIMED
@given(SIDES, SIDES, st.integers(1, 64), st.integers(1, 64))
def test_the_grid_is_the_one_that_internvl_chooses(height: int, width: int, one: int, other: int) -> None:
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    least, most = sorted((one, other))
    columns, rows = get_optimal_tiled_canvas((height, width), (448, 448), least, most)
    assert grids.closest_ratio(height, width, tile=(448, 448), least=least, most=most) == (rows, columns)


@UNTIMED
@given(SIDES, SIDES)
def test_the_crops_are_those_of_gemma_3(height: int, width: int) -> None:
    import torch

    image = torch.empty(1, 3, height, width, device="meta")
    crops = processor("gemma3-pan-and-scan").pan_and_scan_batched(image, 256, 4, 1.2)
    whole, *views = plan(image_preset("gemma3-pan-and-scan"), height, width).views
    assert whole.box is None
    assert [view.box[2:] for view in views if view.box] == [tuple(crop.shape[-2:]) for crop in crops]
    assert [view.first for view in views] == list(range(1, len(crops) + 1))


@UNTIMED
@given(SIDES, SIDES)
def test_the_canvas_is_the_one_that_llama_4_chooses(height: int, width: int) -> None:
    import torch
    from transformers.image_utils import SizeDict
    from transformers.models.llama4 import image_processing_llama4 as llama4

    resolutions = torch.tensor(llama4.find_supported_resolutions(16, SizeDict(height=336, width=336)))
    canvas = tuple(llama4.get_best_fit((height, width), resolutions).tolist())
    within = (min(max(height, 336), canvas[0]), min(max(width, 336), canvas[1]))
    resized = llama4.get_max_res_without_distortion((height, width), within)
    tiled = plan(image_preset("llama4"), height, width).views[0]
    assert (tiled.canvas, tiled.resized) == (canvas, (max(1, resized[0]), max(1, resized[1])))


@settings(deadline=None, max_examples=30)  # the processor resizes pixels
@given(SIDES, SIDES)
def test_the_canvas_and_the_mask_are_those_of_phi_4(height: int, width: int) -> None:
    import numpy as np
    import torch

    from gpuflow.presets.tile_tokens import attention_mask

    try:
        image, mask = processor("phi-4-multimodal").dynamic_preprocess(
            torch.zeros(3, height, width).byte(), 448, 14, 32, 36
        )
    except ValueError:
        with pytest.raises(LimitExceeded):
            plan(image_preset("phi-4-multimodal"), height, width)
        return
    wanted = plan(image_preset("phi-4-multimodal"), height, width)
    view = wanted.views[0]
    assert view.canvas == tuple(image.shape[1:])
    tiles = np.array(attention_mask(wanted))[0, 1:].reshape(*view.tiles, 32, 32)
    assert np.array_equal(tiles.transpose(0, 2, 1, 3).reshape(mask.shape), mask.numpy())


@UNTIMED
@given(SIDES, SIDES, st.sampled_from(["idefics3", "smolvlm", "smolvlm-512"]))
def test_the_sizes_are_those_of_idefics_3(height: int, width: int, name: str) -> None:
    from transformers.models.idefics3 import image_processing_idefics3 as idefics3

    preset = image_preset(name)
    passage = idefics3._resize_output_size_rescale_to_max_len(height, width, max_len=preset.edge)
    _, rows, columns = processor(name).get_number_of_image_patches(height, width)
    tiled, *whole = plan(preset, height, width).views
    assert tiled.via == (passage,)
    assert tiled.tiles == ((rows, columns) if rows else (1, 1))
    assert [view.via for view in whole] == ([(passage, tiled.canvas)] if rows else [])


def _made(kind: str, name: str, **settings: Any) -> Any:
    """A processor without a tokenizer: of the class's own code only what counts tokens is used."""
    import transformers

    made: Any = getattr(transformers, kind)
    made = made.__new__(made)
    vars(made).update(settings, image_processor=processor(name) if name in PROCESSORS else None)
    return made


def _counted(text: str, token: str) -> int:
    return len(re.findall(re.escape(token), text))


def _llava_next(height: int, width: int, **_: Any) -> int:
    settings = {"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    llava = _made("LlavaNextProcessor", "llava-next", **settings)
    counted: int = llava._get_num_multimodal_tokens([(height, width)])["num_image_tokens"][0]
    return counted


def _onevision(*, images: int) -> Callable[..., int]:
    def count(height: int, width: int, **_: Any) -> int:
        settings = {"num_image_tokens": 729, "vision_aspect_ratio": "anyres_max_9", "image_token": "@"}
        llava = _made("LlavaOnevisionProcessor", "llava-onevision", vision_feature_select_strategy="full", **settings)
        pixels = [SimpleNamespace(shape=(3, 384, 384))]
        inputs = {"batch_num_images": [images], "image_sizes": [[height, width]] * images, "pixel_values": [pixels]}
        return _counted(llava.replace_image_token(inputs, 0), "@")

    return count


def _by_patches(kind: str, key: str, **settings: Any) -> Callable[..., int]:
    def count(height: int, width: int, *, tiles: int, **_: Any) -> int:
        text = _made(kind, "", **settings).replace_image_token({key: [tiles - (key == "num_crops")]}, 0)
        return _counted(text, "@")

    return count


def _llama4(height: int, width: int, *, grid: tuple[int, int], **_: Any) -> int:
    llama = _made("Llama4Processor", "")
    return _counted(llama._prompt_split_image(grid, (336 // 14) ** 2 // 4), "<|patch|>")


def _phi4(height: int, width: int, **_: Any) -> int:
    tokens: int = expected("phi-4-multimodal", scene(height, width))["num_img_tokens"].item()
    return tokens


def _idefics3(name: str, tokens: int) -> Callable[..., int]:
    def count(height: int, width: int, **_: Any) -> int:
        _, rows, columns = processor(name).get_number_of_image_patches(height, width)
        marks = {"fake_image_token": "", "image_token": "@", "global_image_tag": ""}
        idefics = _made("Idefics3Processor", name, image_seq_len=tokens, **marks)
        return _counted(idefics.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0), "@")

    return count


INTERNVL = {"start_image_token": "", "end_image_token": "", "image_token": "@", "image_seq_length": 256}
AYA = {"img_size": 364, "patch_size": 28, "img_patch_token": "@", "start_of_img_token": "", "end_of_img_token": ""}
TOKENS: dict[str, Callable[..., int]] = {
    "llava-next": _llava_next,
    "llava-onevision": _onevision(images=1),
    "llava-onevision-multi": _onevision(images=2),
    "internvl3": _by_patches("InternVLProcessor", "num_patches", **INTERNVL),
    "aya-vision": _by_patches("AyaVisionProcessor", "num_patches", tile_token="", tile_global_token="", **AYA),
    "gemma3-pan-and-scan": _by_patches("Gemma3Processor", "num_crops", full_image_sequence="@" * 256),
    "llama4": _llama4,
    "phi-4-multimodal": _phi4,
    "idefics3": _idefics3("idefics3", 169),
    "smolvlm": _idefics3("smolvlm", 81),
    "smolvlm-512": _idefics3("smolvlm-512", 64),
}


@pytest.mark.parametrize("name", TOKENS)
def test_the_number_of_tokens_is_what_the_processor_writes_into_the_prompt(name: str) -> None:
    large = () if name == "phi-4-multimodal" else ((2310, 2400),)  # it counts from pixels
    for height, width in (*TOKEN_SIZES, *large):
        wanted = plan(image_preset(name), height, width)
        counted = TOKENS[name](height, width, tiles=wanted.num_tiles, grid=wanted.views[0].tiles)
        assert wanted.num_tokens == counted, (height, width)


def test_internvls_own_count_also_has_the_marks_around_the_image() -> None:
    internvl = _made("InternVLProcessor", "internvl3", **INTERNVL)
    for height, width in TOKEN_SIZES:
        counted = internvl._get_num_multimodal_tokens([(height, width)])["num_image_tokens"]
        wanted = plan(image_preset("internvl3"), height, width).num_tokens
        assert wanted is not None
        assert counted == [wanted + 2]


def test_the_small_tensors_say_how_an_image_was_cut() -> None:
    found: dict[str, Any] = {}
    for name in ("internvl3", "gemma3-pan-and-scan", "llama4", "llava-next", "phi-4-multimodal"):
        wanted = plan(image_preset(name), 300, 1_000)
        found |= {beside.name: values_of(beside, wanted) for beside in wanted.beside if len(beside.shape) < 3}
    assert found == {
        "num_patches": [4],
        "num_crops": [3],
        "aspect_ratios": [(1, 3)],
        "image_sizes": [(448, 1_344)],
        "num_img_tokens": [256 + 1 + 15 * 48 + 15 + 16],
    }


def test_only_known_sizes_have_a_number_of_tokens() -> None:
    side = {"height": 384, "width": 384}
    assert (
        plan(Preset.from_hf({"image_processor_type": "GotOcr2ImageProcessor", "size": side}), 48, 64).num_tokens is None
    )


def test_the_tokens_of_a_tile_are_what_the_processor_around_it_says() -> None:
    for name, outer, tokens in (
        ("internvl3", {"image_seq_length": 64}, 64 * 3),
        ("llama4", {"patch_size": 28, "pixel_shuffle_ratio": 1.0}, 144 * 3),
        ("idefics3", {"image_seq_len": 70}, 70 * 9),
        ("llava-next", {"patch_size": 28}, 12 * 12 + 12 * 24 + 12),
        ("llava-next", {"vision_feature_select_strategy": "full"}, None),
        ("llava-onevision", {"vision_aspect_ratio": "anyres_max_4"}, None),
        ("llava-onevision", {"num_image_tokens": 700}, None),
    ):
        preset = Preset.from_hf({**outer, "image_processor": processor(name).to_dict()})
        assert plan(preset, 300, 600).num_tokens == tokens, name


def test_got_ocr_2_is_not_cut_unless_it_says_so() -> None:
    config = {"image_processor_type": "GotOcr2ImageProcessor", "processor_class": "GotOcr2Processor"}
    assert plan(Preset.from_hf(config), 300, 900).num_tiles == 1
    assert plan(Preset.from_hf(config | {"crop_to_patches": True}), 300, 900).num_tiles == 4


def test_gemma_3_has_no_crops_unless_it_says_so() -> None:
    whole = Preset.from_hf({"image_processor_type": "Gemma3ImageProcessor", "do_pan_and_scan": False})
    assert (whole.rule, whole.size, whole.beside) == ("fixed", (224, 224), ("num_crops",))
    assert plan(whole, 300, 900).outputs[1] == ("num_crops", "int64", (1,))


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        ("LlavaNext", {"image_grid_pinpoints": [[224, 336]]}, "image_grid_pinpoints"),
        ("LlavaNext", {"image_grid_pinpoints": []}, "image_grid_pinpoints"),
        ("LlavaNext", {"image_grid_pinpoints": [[224, 224]] * 65}, "image_grid_pinpoints"),
        ("LlavaNext", {"image_grid_pinpoints": [224, 448]}, "image_grid_pinpoints"),
        ("LlavaNext", {"image_grid_pinpoints": [[224, "448"]]}, "image_grid_pinpoints"),
        ("LlavaNext", {"image_grid_pinpoints": "all"}, "image_grid_pinpoints"),
        ("LlavaNext", {"image_grid_pinpoints": [[224_000, 224_000]]}, "whole tiles"),
        ("LlavaNext", {}, "image_grid_pinpoints"),  # the class's own defaults do not fit each other
        ("LlavaNext", {"crop_size": {"height": 112, "width": 112}}, "crop_size"),
        ("LlavaNext", {"size": {"height": 224, "width": 336}}, "square"),
        ("LlavaOnevision", {"do_center_crop": True}, "do_center_crop"),
        ("LlavaOnevision", {"size": [384, 300]}, "square"),
        ("GotOcr2", {"max_patches": 65}, "max_patches"),
        ("GotOcr2", {"max_patches": 10**6}, "max_patches"),
        ("GotOcr2", {"min_patches": "1"}, "min_patches"),
        ("GotOcr2", {"size": {"shortest_edge": 448}}, "height and width"),
        ("GotOcr2", {"image_seq_length": "9"}, "image_seq_length"),
        ("LlavaNext", {"do_center_crop": False, "size": {"shortest_edge": 336}}, "crop_size"),
        ("Gemma3", {"do_pan_and_scan": True}, "ratio_to_activate"),
        ("Gemma3", {"do_pan_and_scan": True, "pan_and_scan_min_ratio_to_activate": 1.2}, "max_num_crops"),
        ("Llama4", {"resize_to_max_canvas": True}, "resize_to_max_canvas"),
        ("Llama4", {"max_patches": 0}, "max_patches"),
        ("Llama4", {"size": {"height": 336, "width": 224}}, "square"),
        ("Phi4Multimodal", {"resample": 2}, "resample"),
        ("Phi4Multimodal", {"patch_size": 15}, "patch_size"),
        ("Phi4Multimodal", {"dynamic_hd": 100}, "dynamic_hd"),
        ("Idefics3", {"resample": 3}, "resample"),
        ("Idefics3", {"size": {"longest_edge": 10**6}}, "max_tiles"),
        ("Idefics3", {"max_image_size": {"longest_edge": 1}}, "max_tiles"),
        ("Idefics3", {"max_image_size": 364}, "max_image_size"),
        ("SmolVLM", {"size": {"height": 364, "width": 364}}, "longest_edge"),
        ("SmolVLM", {"do_rescale": False}, "do_rescale"),
        ("Llama4", {"image_std": [0.5, 0.5]}, "std"),
    ],
    ids=str,
)
def test_a_configuration_that_a_preset_cannot_express_is_refused(kind: str, values: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidOptions, match=named):
        Preset.from_hf({"image_processor_type": f"{kind}ImageProcessor"} | values)


@pytest.mark.parametrize("name", [name for name in PROCESSORS if name != "llava-onevision-multi"])
@pytest.mark.parametrize("value", [None, "x", [], {}, -1, 1.5, float("nan"), [[]], {"longest_edge": None}], ids=str)
def test_a_value_of_a_wrong_type_is_refused_or_plans_few_tiles(name: str, value: Any) -> None:
    config = processor(name).to_dict()
    for key in config:
        if key == "image_processor_type":
            continue
        try:
            preset = Preset.from_hf(config | {key: value})
        except InvalidOptions:
            continue
        assert plan(preset, 300, 700).num_tiles <= 65


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("llava-next", {"grid": ()}),
        ("llava-next", {"grid": ((336, 500),)}),
        ("llava-next", {"grid": ((336 * 9, 336 * 9),)}),
        ("internvl3", {"max_tiles": 65}),
        ("internvl3", {"min_tiles": 0}),
        ("gemma3-pan-and-scan", {"min_crop": 3}),
        ("idefics3", {"edge": 5_000}),
        ("idefics3", {"max_tiles": 2}),
        ("idefics3", {"size": (364, 300)}),
        ("llava-next", {"patch": 0}),
    ],
    ids=str,
)
def test_tiles_beyond_the_bounds_are_refused(name: str, broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match="preset:"):
        replace(image_preset(name), **broken)
