"""The ``dali`` engine against the ``exact`` one: every family, every way that a view is cut out, resized and placed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gpuflow.flow.context import LoadContext
from gpuflow.media import block_bytes, lay_out
from gpuflow.ops.transform import transform
from gpuflow.ops.views import Picture
from gpuflow.ops.work import Work
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Preset
from gpuflow.presets.plan import ImagePlan, plan_plain
from gpuflow.presets.view import View
from tests.parity.test_image_presets_hf import FAMILIES, load, processed
from tests.parity.tolerances import TOLERANCES
from tests.parity.whole_processors import data, picture, processor
from tests.unit.image_files import Pixels, scene

ALLOWED = TOLERANCES["image/dali"]
PURPLE, OCHRE = (200, 10, 100), (3, 120, 90)


def levels_of(numbers: torch.Tensor, preset: Preset) -> torch.Tensor:
    """What differences of numbers are in levels, the largest of the three channels."""
    return numbers.double() * 255 * max(preset.std)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_within_its_tolerance_of_the_processor(name: str, context: LoadContext) -> None:
    made, preset = processor(name), image_preset(name)
    for size in ((37, 900), (333, 517), (29, 31)):
        with load(data(*size), name, context, engine="dali") as features:
            assert features.backend == "torchvision+dali"
            expected = processed(made, picture(*size))
            assert {key: features[key].shape for key in features} == {key: expected[key].shape for key in expected}
            for key in set(features) - {"pixel_values"}:
                assert torch.equal(features[key], expected[key])
            off = levels_of((features["pixel_values"] - expected["pixel_values"]).abs(), preset)
        assert off.max() <= ALLOWED.max_abs
        assert ALLOWED.max_mean is not None
        assert off.mean() <= ALLOWED.max_mean


def by_engine(engine: Any, pixels: Pixels, wanted: ImagePlan, context: LoadContext) -> torch.Tensor:
    specs = lay_out({name: (dtype, shape) for name, dtype, shape in wanted.outputs})
    with context.slab.allocate(block_bytes(specs)) as lease:
        lease.tensor(specs[0]).fill_(77)
        transform(engine).apply([Work(Picture(pixels), wanted, lease, specs)])
        written: torch.Tensor = lease.tensor(specs[0]).clone()
        return written


def planned(view: View, **more: Any) -> ImagePlan:
    """Levels of one view of an image of 48 x 64."""
    base = plan_plain(48, 64)
    shape = (*view.canvas, 3)
    return replace(base, views=(view,), pixels=("image", "uint8", shape), **more)


PLACES = {
    "cut out": View((20, 30), (20, 30), box=(5, 7, 20, 30)),
    "beyond on all sides": View((60, 80), (60, 80), box=(-6, -8, 60, 80), beyond=PURPLE),
    "beyond at one corner": View((30, 40), (30, 40), box=(30, 50, 30, 40), beyond=PURPLE),
    "outside altogether": View((10, 12), (10, 12), box=(-40, -30, 10, 12), beyond=PURPLE),
    "in the middle": View((48, 64), (61, 75), offset=(6, 5), around=OCHRE),
    "cropped": View((48, 64), (31, 33), offset=(-9, -15)),
    "cropped and padded": View((48, 64), (60, 41), offset=(7, -11), around=OCHRE),
    "pushed out at the end": View((48, 64), (50, 50), offset=(30, 20), around=OCHRE),
    "box and canvas": View((40, 50), (44, 45), (3, -4), (-3, 20, 40, 50), beyond=PURPLE, around=OCHRE),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_only_cut_out_and_placed_is_equal(place: str, context: LoadContext) -> None:
    view, pixels = PLACES[place], scene()
    wanted = planned(view)
    top, left, height, width = view.box or (0, 0, 48, 64)
    boxed = np.full((height, width, 3), view.beyond, np.uint8)  # by hand, pixel by pixel
    for row in range(max(top, 0), min(top + height, 48)):
        for column in range(max(left, 0), min(left + width, 64)):
            boxed[row - top, column - left] = pixels[row, column]
    expected = np.full((*view.canvas, 3), view.around, np.uint8)
    for row in range(height):
        for column in range(width):
            at = (row + view.offset[0], column + view.offset[1])
            if 0 <= at[0] < view.canvas[0] and 0 <= at[1] < view.canvas[1]:
                expected[at] = boxed[row, column]
    for engine in ("exact", "dali"):
        assert np.array_equal(by_engine(engine, pixels, wanted, context).numpy(), expected), engine


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    "view",
    [
        View((24, 30), (24, 30), box=(-6, -8, 60, 80), beyond=PURPLE),
        View((90, 20), (64, 31), (-10, 4), (10, 9, 30, 50), around=OCHRE),
        View((24, 30), (24, 30), via=((100, 90),)),
        View((60, 50), (70, 60), (5, 5), (2, 3, 40, 50), via=((20, 25), (33, 31)), around=OCHRE),
    ],
    ids=["beyond", "box and canvas", "via", "all of them"],
)
def test_what_is_resized_too_lies_in_the_same_place(view: View, resample: Any, context: LoadContext) -> None:
    pixels, wanted = scene(), planned(view, resample=resample)
    exact, dali = (by_engine(engine, pixels, wanted, context).int() for engine in ("exact", "dali"))
    off = (exact - dali).abs().double()
    assert off.max() <= ALLOWED.max_abs
    assert ALLOWED.max_mean is not None
    assert off.mean() <= ALLOWED.max_mean


def test_a_canvas_is_cut_into_the_same_tiles(context: LoadContext) -> None:
    view = View((48, 64), (60, 90), (4, 7), tile=(20, 30), first=1, around=OCHRE)
    wanted = replace(
        plan_plain(48, 64, layout="CHW"),
        views=(View((20, 30), (20, 30), box=(3, 4, 20, 30)), view),
        pixels=("image", "uint8", (10, 3, 20, 30)),
    )
    exact, dali = (by_engine(engine, scene(), wanted, context) for engine in ("exact", "dali"))
    assert torch.equal(exact, dali)
    canvas = by_engine("exact", scene(), planned(replace(view, tile=None, first=0)), context)
    assert torch.equal(exact[5].permute(1, 2, 0), canvas[20:40, 30:60])  # the fifth of nine, after the first view
