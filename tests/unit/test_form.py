"""The form of a picture: shapes, places, numbers; what contradicts itself is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gpuflow.errors import InvalidOptions
from gpuflow.ops.form import Form, offsets

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
PATCHES = Form((12, 24), layout="patches", dtype="float32", patch=3, merge=2, temporal_patch=2)


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        (Form((5, 7)), (3, 5, 7, 3)),
        (Form((5, 7), layout="CHW"), (3, 3, 5, 7)),
        (Form((5, 7), canvas=(4, 9)), (3, 4, 9, 3)),
        (PATCHES, (2 * 4 * 8, 3 * 2 * 9)),
    ],
    ids=str,
)
def test_the_shape_of_the_tensor(form: Form, shape: tuple[int, ...]) -> None:
    assert form.shape(3) == shape
    assert form.place(np.zeros(shape), 2).shape == form.place_shape


@pytest.mark.parametrize("form", [Form((5, 7)), Form((5, 7), layout="CHW"), PATCHES], ids=str)
def test_every_pixel_has_an_offset_of_its_own_within_its_place(form: Form) -> None:
    tensor = np.zeros(form.shape(4), np.uint8 if form.dtype == "uint8" else form.dtype)
    place = form.place(tensor, 3)
    rows, columns, channel = offsets(form, place.strides)
    start = (place.ctypes.data - tensor.ctypes.data) // tensor.itemsize
    for c in range(3):
        tensor.reshape(-1)[start + rows[:, None] + columns + c * channel] += 1
    assert (place == 1).all()
    assert tensor.sum() == place.size


def test_offsets_of_the_largest_sides_do_not_overflow() -> None:
    form = Form((65_536, 65_536), dtype="float32")
    rows, columns, _ = offsets(form, (65_536 * 12, 12, 4))
    assert int(rows[-1] + columns[-1]) == 65_535 * 65_536 * 3 + 65_535 * 3


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "levels", [CLIP, ((0.0,) * 3, (1.0,) * 3), (None, None), ((0.5,) * 3, (1e-3, 1e-4, 1e-5))], ids=str
)
def test_numbers_equal_torchs(dtype: str, levels: Any) -> None:
    mean, std = levels
    numbers = Form((1, 1), dtype=dtype, mean=mean, std=std).numbers()
    values = torch.arange(256, dtype=torch.float32).expand(3, 256)
    if mean is not None:
        shift, scale = (torch.tensor(part, dtype=torch.float32)[:, None] * 255.0 for part in (mean, std))
        values = values.sub(shift).div_(scale)
    found = torch.from_numpy(numbers)
    found = found.view(torch.bfloat16) if dtype == "bfloat16" else found
    assert torch.equal(found, values.to(found.dtype))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "int32"},
        {"size": (0, 5)},
        {"mean": CLIP[0], "dtype": "float32"},
        {"mean": CLIP[0], "std": CLIP[1]},
        {"mean": CLIP[0], "std": (1.0, 0.0, 1.0), "dtype": "float32"},
        {"mean": (float("nan"), 0.0, 0.0), "std": CLIP[1], "dtype": "float32"},
        {"layout": "patches", "patch": 3, "merge": 2},
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match="the form of a picture"):
        Form(**{"size": (5, 7), **wrong})


def test_strides_between_numbers_are_refused() -> None:
    with pytest.raises(InvalidOptions, match="whole numbers"):
        offsets(Form((2, 2), dtype="float32"), (25, 12, 4))
