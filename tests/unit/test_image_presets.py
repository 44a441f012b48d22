"""Presets as data: names, sizes, plans, and values that contradict each other."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.presets.beside import values_of
from gpuflow.presets.families import image_preset, image_preset_names
from gpuflow.presets.image import Preset, Rule
from gpuflow.presets.kinds import KINDS
from gpuflow.presets.plan import plan, plan_plain
from gpuflow.presets.sizes import by_pixel_budget, by_shortest_edge
from gpuflow.presets.tokens import RULES as TOKEN_RULES


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
