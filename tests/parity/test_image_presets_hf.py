"""Presets against Hugging Face's processors, built from class and settings, without a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpuflow.codecs.orientation import oriented
from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import load_image
from gpuflow.media import Features
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Preset
from tests.parity.tolerances import TOLERANCES
from tests.unit.image_files import blob, encoded, scene, turned

SIZES = ((37, 900), (1500, 60), (48, 64), (224, 224), (333, 517), (336, 224), (601, 400), (29, 31))


def _clip(edge: int) -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})


def _siglip(edge: int) -> Any:
    from transformers import SiglipImageProcessor

    return SiglipImageProcessor(size={"height": edge, "width": edge})


def _qwen(**settings: Any) -> Any:
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(**settings)


def _vit() -> Any:
    from transformers import ViTImageProcessor

    return ViTImageProcessor()


def _dinov2() -> Any:
    from transformers import BitImageProcessor

    return BitImageProcessor(
        size={"shortest_edge": 256}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )


PROCESSORS: dict[str, Callable[[], Any]] = {
    "clip-224": lambda: _clip(224),
    "clip-336": lambda: _clip(336),
    "siglip-224": lambda: _siglip(224),
    "siglip-384": lambda: _siglip(384),
    "qwen2-vl": lambda: _qwen(size={"shortest_edge": 3_136, "longest_edge": 12_845_056}),
    "qwen2.5-vl": lambda: _qwen(size={"shortest_edge": 3_136, "longest_edge": 12_845_056}),
    "qwen3-vl": lambda: _qwen(
        size={"shortest_edge": 65_536, "longest_edge": 16_777_216},
        patch_size=16,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    ),
    "vit-224": _vit,
    "dinov2-224": _dinov2,
}


def _load(picture: Any, preset: Any, context: LoadContext, **options: Any) -> Features:
    data = encoded(picture, "PNG")
    features = load_image(blob(data), sniff(data), ImageOptions(preset=preset, **options), context)
    assert isinstance(features, Features)
    return features


def _assert_equal(features: Features, expected: Any) -> None:
    assert set(features) == set(expected)
    for name in features:
        assert features[name].dtype == expected[name].dtype
        assert features[name].shape == expected[name].shape
        difference = (features[name].double() - expected[name].double()).abs().max()
        assert difference <= TOLERANCES["image/exact"].max_abs


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_exact_engine_equals_the_processor(name: str, context: LoadContext) -> None:
    processor = PROCESSORS[name]()
    for height, width in SIZES:
        picture = scene(height, width)
        with _load(picture, name, context) as features:
            _assert_equal(features, processor(images=picture, return_tensors="pt"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_equals_the_processors_of_the_upright_one(orientation: int, context: LoadContext) -> None:
    data = turned("PNG", orientation)
    upright = np.ascontiguousarray(oriented(scene(), orientation))
    with load_image(blob(data), sniff(data), ImageOptions(preset="clip-224"), context) as features:
        assert isinstance(features, Features)
        _assert_equal(features, PROCESSORS["clip-224"]()(images=upright, return_tensors="pt"))


def test_a_small_budget_shrinks_as_the_processor_does(context: LoadContext) -> None:
    processor = _qwen(size={"shortest_edge": 3_136, "longest_edge": 28 * 28 * 20})
    preset = Preset.from_hf(processor.to_dict())
    for height, width in SIZES:
        picture = scene(height, width)
        with _load(picture, preset, context) as features:
            _assert_equal(features, processor(images=picture, return_tensors="pt"))


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_preset_read_from_the_processors_own_settings_equals_the_built_in_one(name: str) -> None:
    found, built_in = Preset.from_hf(PROCESSORS[name]().to_dict()), image_preset(name)
    for field in ("rule", "resample", "mean", "std", "size", "crop", "min_pixels", "max_pixels", "merge", "layout"):
        assert getattr(found, field) == getattr(built_in, field), field


def test_a_crop_larger_than_the_image_is_padded_as_the_processor_pads(context: LoadContext) -> None:
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": 50}, crop_size={"height": 91, "width": 64})
    picture = scene(48, 77)
    with _load(picture, Preset.from_hf(processor.to_dict()), context) as features:
        _assert_equal(features, processor(images=picture, return_tensors="pt"))


@pytest.mark.parametrize("name", ["clip-224", "siglip-224", "qwen2.5-vl", "vit-224"])
def test_dali_is_within_its_tolerance_of_the_processor(name: str, context: LoadContext) -> None:
    processor, preset, allowed = PROCESSORS[name](), image_preset(name), TOLERANCES["image/dali"]
    for height, width in SIZES:
        picture = scene(height, width)
        with _load(picture, name, context, engine="dali") as features:
            assert features.backend.endswith("+dali")
            expected = processor(images=picture, return_tensors="pt")
            levels = (features["pixel_values"] - expected["pixel_values"]).abs().numpy() * 255 * max(preset.std)
        assert levels.max() <= allowed.max_abs
        assert allowed.max_mean is not None
        assert levels.mean() <= allowed.max_mean


def test_dali_pads_with_black_too(context: LoadContext) -> None:
    preset = Preset("padded", "shortest_edge", size=(50, 50), crop=(91, 64))
    picture = scene(48, 77)
    with _load(picture, preset, context) as exact, _load(picture, preset, context, engine="dali") as dali:
        outside = exact["pixel_values"] == -1.0
        assert np.array_equal(outside[0, :, :20].numpy(), dali["pixel_values"][0, :, :20].numpy() == -1.0)
        assert float((exact["pixel_values"] - dali["pixel_values"]).abs().max()) < 20 / 127.5


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["exact", "dali"])
@pytest.mark.parametrize("name", ["clip-224", "qwen2.5-vl"])
def test_the_gpu_is_within_its_tolerance_of_the_processor(name: str, engine: Any) -> None:
    from gpuflow.config import Limits
    from gpuflow.device import choose
    from gpuflow.flow.context import Deadline
    from gpuflow.memory import Slab
    from gpuflow.observe import Counters

    processor, allowed = PROCESSORS[name](), TOLERANCES["image/views" if engine == "exact" else "image/dali"]
    with Slab("256MiB", device="cuda") as slab, Slab("16MiB") as host:
        context = LoadContext(
            device=choose("cuda"),
            slab=slab,
            host_slab=host,
            limits=Limits(),
            deadline=Deadline(60.0),
            counters=Counters(),
        )
        for height, width in SIZES:
            picture = scene(height, width)
            with _load(picture, name, context, engine=engine) as features:
                expected = processor(images=picture, return_tensors="pt")
                levels = (features["pixel_values"].cpu() - expected["pixel_values"]).abs() * 255 * 0.28
            assert float(levels.max()) <= allowed.max_abs
