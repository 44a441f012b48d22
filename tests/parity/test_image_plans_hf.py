"""What is known before a decoder runs, sizes and numbers of tokens, against the code of Hugging Face that computes it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpuflow.errors import LimitExceeded
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Preset
from gpuflow.presets.plan import plan
from tests.parity.whole_processors import AROUND, CHECKPOINTS, LLAVA, SIZES, processor


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Before Hypothesis watches: an import takes it three times as long."""
    processor("clip-224")


SIDES = st.integers(4, 2_000)  # transformers takes an array of 1 or 3 rows for one of as many channels


def _smart(name: str, height: int, width: int) -> Any:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    made = processor(name)
    least, most = made.size["shortest_edge"], made.size["longest_edge"]
    return smart_resize(height, width, factor=made.patch_size * 2, min_pixels=least, max_pixels=most)


def _smart_volume(name: str, height: int, width: int) -> Any:
    from transformers.models.glm4v.image_processing_glm4v import smart_resize

    size = processor(name).size
    return smart_resize(2, height, width, min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"])


def _naflex(name: str, height: int, width: int) -> Any:
    from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

    return get_image_size_for_max_num_patches(height, width, 16, 256)


def _gemma4(name: str, height: int, width: int) -> Any:
    from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size

    return get_aspect_ratio_preserving_size(height, width, 16, 280 * 9, 3)


def _pixtral(name: str, height: int, width: int) -> Any:
    from transformers.models.pixtral.image_processing_pixtral import get_resize_output_image_size

    made = processor(name)
    patch = made.patch_size if isinstance(made.patch_size, int) else made.patch_size["height"]
    size = get_resize_output_image_size(np.empty((height, width, 3)), made.size["longest_edge"], patch)
    if min(size) < 1:
        raise ValueError("the processor's resize refuses a side of 0")
    return size


RESIZES: dict[str, Callable[[str, int, int], Any]] = {
    "qwen2.5-vl": _smart,
    "qwen3-vl": _smart,
    "glm4v": _smart_volume,
    "glm4.6v": _smart_volume,
    "siglip2-naflex": _naflex,
    "gemma4": _gemma4,
    "pixtral": _pixtral,
    "mistral3": _pixtral,
}


@pytest.mark.parametrize("name", RESIZES)
@settings(max_examples=120, deadline=None)
@given(SIDES, SIDES)
@example(4, 2_000)
@example(2_000, 4)
@example(37, 900)
@example(4, 804)
@example(804, 4)
def test_every_size_becomes_what_the_processor_makes_of_it(name: str, height: int, width: int) -> None:
    try:
        expected = RESIZES[name](name, height, width)
    except ValueError:
        with pytest.raises(LimitExceeded, match=f"{width}x{height}"):
            plan(image_preset(name), height, width)
        return
    wanted = plan(image_preset(name), height, width)
    assert wanted.views[0].canvas == tuple(expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2_000), st.integers(1, 2_000), st.integers(1, 500))
def test_the_shorter_edge_is_rounded_as_transformers_rounds_it(height: int, width: int, edge: int) -> None:
    from transformers.image_transforms import get_resize_output_image_size

    preset = Preset("x", "shortest_edge", size=(edge, edge))
    expected = get_resize_output_image_size(
        np.empty((3, height, width)), edge, default_to_square=False, input_data_format="channels_first"
    )
    assert plan(preset, height, width).views[0].resized == tuple(expected)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_shapes_of_all_tensors_are_those_that_the_processor_returns(name: str) -> None:
    made = processor(name)
    for height, width in ((5, 4), (61, 200)):
        expected = made(images=np.zeros((height, width, 3), np.uint8), return_tensors="pt")
        outputs = plan(image_preset(name), height, width).outputs
        assert {out: (f"torch.{dtype}", shape) for out, dtype, shape in outputs} == {
            out: (str(value.dtype), tuple(value.shape)) for out, value in expected.items()
        }


def _counted(module: str, kind: str) -> Callable[[str, list[tuple[int, int]]], Any]:
    """The processor's own code, without the tokenizer that it does not look at."""

    def count(name: str, sizes: list[tuple[int, int]]) -> Any:
        family = __import__(f"transformers.models.{module}", fromlist=[kind])
        length = image_preset(name).tile_tokens
        around = SimpleNamespace(image_processor=processor(name), image_seq_length=length)
        vars(around).update(AROUND.get(name, {"patch_size": 16, "spatial_merge_size": 1}))
        return getattr(family, kind)._get_num_multimodal_tokens(around, image_sizes=sizes).num_image_tokens

    return count


TOKENS: dict[str, Callable[[str, list[tuple[int, int]]], Any]] = {
    "llava-1.5": _counted("llava.processing_llava", "LlavaProcessor"),
    "llava-1.5-pad": _counted("llava.processing_llava", "LlavaProcessor"),
    "qwen2-vl": _counted("qwen2_vl.processing_qwen2_vl", "Qwen2VLProcessor"),
    "qwen2.5-vl": _counted("qwen2_5_vl.processing_qwen2_5_vl", "Qwen2_5_VLProcessor"),
    "qwen3-vl": _counted("qwen3_vl.processing_qwen3_vl", "Qwen3VLProcessor"),
    "glm4v": _counted("glm4v.processing_glm4v", "Glm4vProcessor"),
    "glm4.6v": _counted("glm46v.processing_glm46v", "Glm46VProcessor"),
    "gemma4": _counted("gemma4.processing_gemma4", "Gemma4Processor"),
    "pixtral": _counted("pixtral.processing_pixtral", "PixtralProcessor"),
    "mistral3": _counted("pixtral.processing_pixtral", "PixtralProcessor"),
    "gemma3": _counted("gemma3.processing_gemma3", "Gemma3Processor"),
    **dict.fromkeys(
        ("paligemma-224", "paligemma-448", "paligemma-896"),
        _counted("paligemma.processing_paligemma", "PaliGemmaProcessor"),
    ),
}


@pytest.mark.parametrize("name", TOKENS)
def test_the_number_of_placeholder_tokens_is_the_processors(name: str) -> None:
    sizes = [*SIZES, (48, 64), (1_080, 1_920), (3_000, 4_000), (16, 16), (5, 600)]
    found = [plan(image_preset(name), height, width).num_tokens for height, width in sizes]
    assert found == TOKENS[name](name, sizes)


def test_gemma_3n_takes_the_tokens_that_its_processor_takes_by_default() -> None:
    import inspect

    from transformers import Gemma3nProcessor

    default = inspect.signature(Gemma3nProcessor.__init__).parameters["image_seq_length"].default
    assert plan(image_preset("gemma3n"), 300, 200).num_tokens == default


def test_families_without_placeholders_say_so() -> None:
    silent = {name for name in CHECKPOINTS if plan(image_preset(name), 100, 100).num_tokens is None}
    assert silent == set(CHECKPOINTS) - set(TOKENS) - {"gemma3n"}
    assert all(name.split("-")[0] in ("clip", "siglip", "siglip2", "vit", "bit", "dinov2") for name in silent)


@functools.cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = ("<unk>", "<image>", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    vocabulary = models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), unk_token="<unk>")


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("LlavaProcessor", "llava-1.5", LLAVA),
        ("PixtralProcessor", "mistral3", {"patch_size": 14, "spatial_merge_size": 2}),
    ],
)
def test_a_checkpoints_folder_says_what_the_image_processor_alone_does_not(
    kind: str, name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    import transformers

    made = getattr(transformers, kind)(processor(name), _tokenizer(), **settings)
    made.save_pretrained(tmp_path)
    expected = image_preset(name)
    for source in (made, made.to_dict(), tmp_path, tmp_path / "processor_config.json"):
        found = Preset.from_hf(source)
        assert plan(found, 900, 700) == plan(expected, 900, 700)
    older = tmp_path / "older"  # two files, and the image processor's is flat
    older.mkdir()
    joint = json.loads((tmp_path / "processor_config.json").read_text())
    (older / "preprocessor_config.json").write_text(json.dumps(joint.pop("image_processor")))
    (older / "processor_config.json").write_text(json.dumps(joint))
    assert plan(Preset.from_hf(older), 900, 700) == plan(expected, 900, 700)
