"""`image/views` on the host against the exact engine on the CPU, Pillow and torch's own views; on a GPU against both."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from gpuflow.codecs.orientation import oriented
from gpuflow.errors import InvalidOptions
from gpuflow.media import lay_out
from gpuflow.memory import Slab
from gpuflow.ops.arrange import view_places
from gpuflow.ops.places import first_place, places
from gpuflow.ops.tiling import num_tiles, tile_for
from gpuflow.ops.transform_exact import ExactTransform
from gpuflow.ops.views import Job, Picture, launches, unfilled
from gpuflow.ops.work import Work
from gpuflow.presets.families import image_preset
from gpuflow.presets.plan import ImagePlan, plan, plan_plain
from gpuflow.presets.view import View
from tests.kernels_host.building import HostTables
from tests.kernels_host.check_image_views import Case, HostMemory, noise, plan_of, written
from tests.kernels_host.conftest import Run
from tests.parity.tolerances import TOLERANCES
from tests.unit.image_files import scene

SIZES = ((37, 900), (1500, 60), (48, 64), (224, 224), (333, 517), (29, 31))
PRESETS = ("clip-224", "siglip-224", "qwen2-vl", "dinov2-224", "vit-224")
FORMS: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    ("float32", "CHW", {}),
    ("bfloat16", "patches", {"patch": 4, "merge": 2, "temporal_patch": 2}),
    ("float16", "patches_last", {"patch": 4}),
    ("uint8", "HWC", {}),
)
RESIZES: tuple[dict[str, Any], ...] = (
    {"resample": "bicubic"},
    {"resample": "bilinear"},
    {"resample": "nearest"},
    {"resample": "lanczos", "reference": "pillow", "passes": "vertical_first"},
    {"resample": "bicubic", "reference": "pillow", "passes": "pillow"},
)


def by_the_exact_engine(slab: Slab, cases: list[Case]) -> list[NDArray[Any]]:
    """The pixels of each case as the engine makes them on the CPU; bfloat16 as its bits."""
    engine, found = ExactTransform(), []
    for picture, wanted in cases:
        specs = lay_out({name: (dtype, shape) for name, dtype, shape in wanted.outputs})
        with slab.allocate(specs[-1].offset + specs[-1].nbytes) as lease:
            engine.apply([Work(picture, wanted, lease, specs)])
            found.append(lease.array(specs[0]).copy())
    return found


def assert_equal(found: list[NDArray[Any]], expected: list[NDArray[Any]], cases: list[Case]) -> None:
    assert len(found) == len(expected) == len(cases) > 0
    assert TOLERANCES["image/views"].max_abs == 0.0
    for ours, theirs, (picture, wanted) in zip(found, expected, cases, strict=True):
        np.testing.assert_array_equal(
            ours.view(np.uint8), theirs.view(np.uint8), f"{picture.pixels.shape} {wanted.views} {wanted.layout}"
        )


def preset_cases() -> list[Case]:
    """Every preset and size, noise and a drawn scene by turns."""
    cases = []
    for number, (name, (height, width)) in enumerate(itertools.product(PRESETS, SIZES)):
        pixels = scene(height, width) if number % 2 else noise(height, width)
        dtype = ("float32", "bfloat16", "float16")[number % 3]
        cases.append((Picture(pixels), plan(image_preset(name), height, width, dtype=dtype)))
    return cases


def hand_made_cases() -> list[Case]:
    """Boxes, tiles, chains, canvases larger and smaller than the image, in every layout and by every table."""
    cases: list[Case] = []
    views = (
        View((40, 56), (40, 56)),
        View((47, 30), (40, 32), (-5, 1), around=(127, 128, 129)),
        View((24, 71), (32, 64), (4, -6), box=(5, 7, 60, 90), around=(1, 2, 3)),
        View((16, 16), (16, 16), via=((90, 31), (20, 80)), box=(-20, -10, 140, 130), beyond=(200, 100, 50)),
    )
    for number, (view, (dtype, layout, form), resize) in enumerate(itertools.product(views, FORMS, RESIZES)):
        pixels = noise(97, 110, 3 + number % 2) if number % 3 else scene(110, 97).swapaxes(0, 1)[:, ::-1]
        wanted = plan_of((view,), layout, dtype, **form, **resize)
        cases.append((Picture(pixels, (255, 9, 60) if number % 4 else None), wanted))
    tiled = View((100, 150), (96, 160), (-2, 5), tile=(32, 40), first=1, around=(12, 13, 14))
    thumbnail = View((32, 30), (32, 40), (0, 5))
    cases.append((Picture(scene(200, 300)), plan_of((thumbnail, tiled), dtype="float32")))
    return cases


def test_presets_equal_the_exact_engine_in_one_sequence_of_launches(run_on_host: Run, slab: Slab) -> None:
    cases = preset_cases()
    assert_equal(written(run_on_host, cases), by_the_exact_engine(slab, cases), cases)


def test_plans_by_hand_equal_the_exact_engine_in_one_sequence_of_launches(run_on_host: Run, slab: Slab) -> None:
    cases = hand_made_cases()
    assert_equal(written(run_on_host, cases), by_the_exact_engine(slab, cases), cases)


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_resize_by_pillows_tables_equals_pillow(run_on_host: Run, resample: Any) -> None:
    random = np.random.default_rng(11)
    sizes = [((37, 900), (224, 224)), ((1500, 60), (48, 70)), ((1, 1), (5, 3)), ((300, 401), (301, 20))]
    sizes += [tuple(tuple(int(side) for side in random.integers(1, 160, 2)) for _ in "ab") for _ in range(30)]  # type: ignore[misc]
    cases = [
        (Picture(noise(*before)), plan_plain(*before, size=after, resample=resample, reference="pillow"))
        for before, after in sizes
    ]
    for (picture, _), (_, after), found in zip(cases, sizes, written(run_on_host, cases), strict=True):
        expected = Image.fromarray(picture.pixels).resize(after[::-1], Image.Resampling[resample.upper()])
        np.testing.assert_array_equal(found, np.array(expected), f"{picture.pixels.shape} {after}")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("background", [None, (255, 255, 255)], ids=str)
def test_a_turned_and_transparent_picture_is_read_as_it_lies(
    run_on_host: Run, orientation: int, background: Any
) -> None:
    stored = noise(33, 47, 4, seed=orientation)
    shown = oriented(stored, orientation)
    wanted = plan_of((View((20, 31), (20, 31)),), "HWC")
    upright = Image.fromarray(np.ascontiguousarray(shown))
    flat = Image.new("RGB", upright.size, background or (0, 0, 0))
    flat.paste(upright.convert("RGB"), mask=upright.getchannel("A") if background else None)
    (found,), (expected,) = (
        written(run_on_host, [(Picture(pixels, background), wanted)]) for pixels in (shown, np.array(flat))
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "wanted",
    [plan_of((View((32, 48), (32, 48)),), layout, dtype, **form) for dtype, layout, form in FORMS]
    + [plan_of((View((32, 48), (32, 48), tile=(16, 12), first=2),))],
    ids=lambda wanted: f"{wanted.layout}-{wanted.views[0].tile}",
)
def test_offsets_are_those_of_torchs_views(wanted: ImagePlan) -> None:
    view = wanted.views[0]
    pixels = torch.arange(int(np.prod(wanted.pixels[2]))).view(wanted.pixels[2])
    found, start = places(wanted, view), first_place(wanted, view)
    grid = start + found.rows[:, None, None] + found.columns[:, None] + found.channel * np.arange(3)
    for repeat, theirs in enumerate(view_places(pixels, wanted, view)):
        assert set((grid + repeat * found.repeat).ravel().tolist()) == set(theirs.ravel().tolist())
    assert found.repeats == len(view_places(pixels, wanted, view))


def test_rows_that_no_view_fills_are_named_to_be_zeroed() -> None:
    filled = plan_of((View((8, 12), (8, 12)),), "patches_last", "float16", patch=4)
    assert unfilled(Job(Picture(noise(8, 12)), filled, 512))[1] == 0
    rows = 3 * 4 * 4
    longer = replace(filled, grid=(1, 2, 3), pixels=("pixels", "float16", (1, 10, rows)))
    assert unfilled(Job(Picture(noise(8, 12)), longer, 512)) == (512 + 2 * 6 * rows, 2 * 4 * rows)


def test_all_views_of_a_round_are_one_launch_and_chains_take_as_many_as_the_longest() -> None:
    tables, memory = HostTables(), HostMemory()
    one, chain = View((9, 9), (9, 9)), View((9, 9), (9, 9), via=((20, 20), (5, 5)))
    for views, rounds in (((one, one), 1), ((one, chain), 3), ((), 0)):
        wanted = plan_of(views or (one,))
        jobs = [Job(Picture(noise(30, 40)), wanted, 0)] * (3 if views else 0)
        made = launches(jobs, tables=tables, upload=memory.upload, scratch=memory.scratch)
        assert len(made) == rounds
        assert all(launch.shared_bytes <= 48 << 10 for launch in made)
    assert made == []


def test_tiles_are_smaller_where_a_batch_has_few_of_them() -> None:
    few, many = tile_for([(224, 224)]), tile_for([(224, 224)] * 64)
    assert few[0] < many[0]
    assert num_tiles((224, 224), few) >= 132, "a large GPU has as many multiprocessors"


def test_pictures_and_addresses_that_the_kernel_cannot_take_are_refused() -> None:
    for wrong in (noise(4, 4)[..., :2], noise(4, 4).astype(np.float32), noise(4, 4)[:0], noise(4, 4)[0]):
        with pytest.raises(InvalidOptions, match=r"a picture is \(H, W, 3\)"):
            Picture(wrong)
    memory = HostMemory()
    job = Job(Picture(noise(4, 4)), plan_of((View((4, 4), (4, 4)),), dtype="float32"), 1_026)
    with pytest.raises(InvalidOptions, match="multiple of 4 bytes; got 1026"):
        launches([job], tables=HostTables(), upload=memory.upload, scratch=memory.scratch)


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["host", "device"])
def test_on_a_gpu_the_exact_engine_equals_itself_on_the_cpu(where: str, slab: Slab) -> None:
    cupy = pytest.importorskip("cupy")
    cases = preset_cases() + hand_made_cases()
    expected = by_the_exact_engine(slab, cases)
    with Slab("256MiB", device="cuda") as gpu:
        works = []
        for picture, wanted in cases:
            specs = lay_out({name: (dtype, shape) for name, dtype, shape in wanted.outputs})
            here = Picture(cupy.asarray(picture.pixels), picture.background) if where == "device" else picture
            works.append(Work(here, wanted, gpu.allocate(specs[-1].offset + specs[-1].nbytes), specs))
        ExactTransform().apply(works)
        found = []
        for work in works:
            work.lease.synchronize()
            found.append(work.lease.array(work.specs[0]).get())
            work.lease.release()
    assert_equal(found, expected, cases)
