"""Presets with ``reference="pillow"`` against Hugging Face's processors on Pillow, and the passes against numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Picture

from gpuflow.flow.context import LoadContext
from gpuflow.ops.resize import resize_planar, vertical_first
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Preset
from gpuflow.presets.plan import plan
from tests.parity.test_image_presets_hf import FAMILIES, LEVELS, load, processed
from tests.parity.tolerances import TOLERANCES
from tests.parity.whole_processors import data, of_class, picture, processor
from tests.unit.image_files import Pixels, scene

SIZES = ((37, 900), (333, 517), (29, 31))
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}


def weigh(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pillow's filters."""
    x = np.abs(x)
    if name == "bilinear":
        return np.maximum(1 - x, 0)
    if name == "lanczos":
        return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def one_pass(pixels: Pixels, target: int, name: str, axis: int) -> Pixels:
    """Pillow's resample along one axis: 22 bits of weight, rounded and clamped to uint8."""
    source = pixels.shape[axis]
    if source == target:
        return pixels
    scale = source / target
    stretch = max(scale, 1.0)
    rows = []
    for center in (np.arange(target) + 0.5) * scale:
        reach = SUPPORT[name] * stretch
        first, last = max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), source)
        weights = weigh(name, (np.arange(first, last) - center + 0.5) / stretch)
        whole = np.floor(weights / weights.sum() * (1 << 22) + 0.5).astype(np.int64)
        taken = np.moveaxis(pixels, axis, 0)[first:last].astype(np.int64)
        rows.append((np.tensordot(whole, taken, 1) + (1 << 21)) >> 22)
    return np.moveaxis(np.clip(np.array(rows), 0, 255).astype(np.uint8), 0, axis)


@pytest.mark.parametrize("name", SUPPORT)
@pytest.mark.parametrize("passes", ["horizontal_first", "vertical_first", "pillow"])
@pytest.mark.parametrize(
    ("size", "target"),
    [((61, 97), (30, 40)), ((97, 61), (30, 40)), ((61, 97), (80, 33)), ((40, 30), (97, 61))],
    ids=str,
)
def test_both_passes_equal_numpys_in_the_order_that_was_asked_for(
    name: Any, passes: Any, size: tuple[int, int], target: tuple[int, int]
) -> None:
    pixels = scene(*size)
    down = vertical_first(*size, target, passes)
    expected = pixels
    for axis in (0, 1) if down else (1, 0):
        expected = one_pass(expected, target[axis], name, axis)
    planar = torch.from_numpy(pixels).permute(2, 0, 1)
    found = resize_planar(planar, target, name, reference="pillow", passes=passes).permute(1, 2, 0).numpy()
    assert np.array_equal(found, expected)
    if passes == "pillow":  # the order that this release of Pillow takes by itself
        alone = Picture.fromarray(pixels).resize(target[::-1], getattr(Picture.Resampling, name.upper()))
        assert np.array_equal(found, np.asarray(alone))


@settings(max_examples=150, deadline=None)
@given(*[st.integers(2, 90)] * 4)
@example(60, 60, 30, 45)
@example(60, 60, 30, 46)
@example(60, 60, 60, 90)
@example(60, 60, 59, 60)
@example(60, 60, 61, 90)
def test_the_order_is_pillows_for_every_size(height: int, width: int, rows: int, columns: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    planar = torch.from_numpy(pixels).permute(2, 0, 1)
    found = resize_planar(planar, (rows, columns), "bicubic", reference="pillow", passes="pillow")
    expected = Picture.fromarray(pixels).resize((columns, rows), Picture.Resampling.BICUBIC)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_the_order_of_passes_shows() -> None:
    planar = torch.from_numpy(scene(200, 90)).permute(2, 0, 1)
    first, second = (
        resize_planar(planar, (60, 140), "bicubic", reference="pillow", passes=passes)
        for passes in ("horizontal_first", "vertical_first")
    )
    assert not torch.equal(first, second)


def by_pillow(name: str) -> Preset:
    return replace(image_preset(name), reference="pillow", passes="pillow")


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_equal_and_numbers_are_a_rounding_off_the_processors_on_pillow(name: str, context: LoadContext) -> None:
    made, preset, allowed = processor(name, backend="pillow"), by_pillow(name), TOLERANCES["image/exact-pillow"]
    for size in SIZES:
        with load(data(*size), preset, context, normalize=False) as features:
            expected = processed(made, picture(*size), **LEVELS)
            assert set(features) == set(expected)
            assert all(np.array_equal(features[key].numpy(), np.asarray(expected[key])) for key in features)
        with load(data(*size), preset, context) as features:
            expected = processed(made, picture(*size))["pixel_values"]
            assert float((features["pixel_values"] - torch.as_tensor(expected)).abs().max()) <= allowed.max_abs


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("CLIPImageProcessor", {"size": {"shortest_edge": 50}, "crop_size": {"height": 91, "width": 64}}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 41}, "crop_size": {"height": 36, "width": 90}}),
        ("LlavaImageProcessor", {"do_pad": True, "size": {"shortest_edge": 60}, "crop_size": {"height": 71, "width": 40}}),
        ("SiglipImageProcessor", {"resample": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_on_pillow_are_read_and_equal_it(
    kind: str, values: dict[str, Any], context: LoadContext
) -> None:
    made = of_class(kind, backend="pillow")(**values)
    for source in (made, {**made.to_dict(), "image_processor_type": f"{kind}Pil"}):
        preset = Preset.from_hf(source)
        assert (preset.reference, preset.passes, preset.processor) == ("pillow", "pillow", kind)
        for size in ((48, 77), (301, 200), (61, 45)):
            with load(data(*size), preset, context, normalize=False) as features:
                expected = processed(made, picture(*size), **LEVELS)["pixel_values"]
                assert np.array_equal(features["pixel_values"].numpy(), np.asarray(expected))


def test_lanczos_is_pillows_whichever_backend_asks_for_it() -> None:
    preset = Preset.from_hf({"image_processor_type": "SiglipImageProcessor", "resample": 1})
    assert (preset.resample, preset.reference, preset.passes) == ("lanczos", "pillow", "pillow")
    assert plan(preset, 30, 40).reference == "pillow"
