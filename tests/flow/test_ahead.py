"""What is told of an image before it is decoded, and what then comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gpuflow as gf
from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import load_image
from gpuflow.media import Features
from gpuflow.presets.families import image_preset_names
from tests.unit.image_files import animation, blob, encoded, scene, turned

SIZE = (301, 417)
OPTIONS: list[dict[str, Any]] = [
    *({"preset": name} for name in image_preset_names()),
    {"preset": "clip-224", "normalize": False},
    {"preset": "qwen2.5-vl", "dtype": "bfloat16"},
    {},
    {"size": (20, 30), "layout": "CHW", "dtype": "float16"},
    {"region": (10, 20, 110, 90)},
    {"region": (10, 20, 110, 90), "preset": "siglip-224"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_plan_is_what_comes(options: dict[str, Any], context: LoadContext) -> None:
    data = encoded(scene(*SIZE), "JPEG")
    planned = gf.plan_image(gf.probe_image(data), options)
    with load_image(blob(data), sniff(data), ImageOptions.from_mapping(options), context) as media:
        assert planned.outputs == tuple((spec.name, spec.dtype, spec.shape) for spec in media.specs)
        assert isinstance(media._lease, gf.Lease)
        assert planned.nbytes == media._lease.nbytes
        if isinstance(media, Features):
            assert planned.num_tokens == media.metadata.num_tokens


def test_a_header_is_enough() -> None:
    data = encoded(scene(*SIZE), "JPEG")
    header = data[: data.index(b"\xff\xda") + 40]
    planned = gf.plan_image(gf.probe_image(header), {"preset": "qwen2.5-vl"})
    assert planned == gf.plan_image(SIZE, {"preset": "qwen2.5-vl"})
    assert planned.num_tokens == (308 // 28) * (420 // 28)


def test_a_turned_picture_is_planned_as_it_is_shown() -> None:
    info = gf.probe_image(turned("JPEG", 6))
    assert (info.height, info.width) == (64, 48)
    assert gf.plan_image(info).outputs == (("image", "uint8", (64, 48, 3)),)


def test_a_path_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.gif"
    file.write_bytes(animation("GIF", 3))
    assert gf.probe_image(file) == gf.probe_image(str(file)) == gf.probe_image(file.read_bytes())
    assert gf.probe_image(file).num_frames == 3
    with pytest.raises(gf.SourceNotFound):
        gf.probe_image(tmp_path / "none.gif")


@pytest.mark.parametrize(
    ("image", "options", "limits", "error"),
    [
        ((10, 10), {"preset": "no-such"}, None, gf.InvalidOptions),
        ((10, 10), {"frame": 1}, None, gf.InvalidOptions),
        ((10, 10), {"region": (0, 0, 11, 5)}, None, gf.InvalidOptions),
        ((10, 10), gf.VideoOptions(), None, gf.InvalidOptions),
        ((2, 2000), {"preset": "qwen2.5-vl"}, None, gf.LimitExceeded),
        ((10, 10), {"size": 5000}, {"max_image_pixels": 1_000_000}, gf.LimitExceeded),
    ],
    ids=str,
)
def test_what_load_refuses_is_refused_before(image: Any, options: Any, limits: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        gf.plan_image(image, options, limits=limits)


def test_an_image_beyond_the_limits_is_refused() -> None:
    data = encoded(scene(*SIZE), "PNG")
    assert isinstance(gf.probe_image(data), ImageInfo)
    with pytest.raises(gf.LimitExceeded):
        gf.probe_image(data, limits={"max_image_pixels": 1_000})
    with pytest.raises(gf.UnsupportedFormat):
        gf.probe_image(b"<html></html>")


def test_bytes_of_any_kind_are_probed() -> None:
    data = encoded(scene(*SIZE), "PNG")
    found = gf.probe_image(data)
    assert gf.probe_image(bytearray(data)) == gf.probe_image(memoryview(data)) == found
    assert gf.probe_image(memoryview(bytes(reversed(data)))[::-1]) == found


@pytest.mark.parametrize("source", [None, 5, [1], object()], ids=["none", "number", "list", "object"])
def test_what_is_neither_bytes_nor_a_path_is_named(source: Any) -> None:
    with pytest.raises(gf.InvalidSource, match="its bytes or its path"):
        gf.probe_image(source)


@pytest.mark.parametrize(
    "frame", ["a", -5, 1.0, True, None, 1, 10**5_000], ids=["a", "-5", "1.0", "true", "none", "1", "large"]
)
def test_a_frame_that_the_image_does_not_have_is_refused(frame: Any) -> None:
    with pytest.raises(gf.InvalidOptions, match="frame"):
        gf.probe_image(encoded(scene(*SIZE), "PNG"), frame=frame)


@pytest.mark.parametrize("options", [{}, {"preset": "clip-224"}, {"region": (0, 0, 1, 1)}, {"size": 5}], ids=str)
@pytest.mark.parametrize(
    "image",
    [
        (0, 5), (5, -1), (float("nan"), 5), (1.5, 5), (True, 5), ("a", 5), (5, 1 << 40), None, (5,), (5, 5, 5), 5, "ab",
        (5, None),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_size_is_refused_with_a_preset_or_without(image: Any, options: dict[str, Any]) -> None:
    with pytest.raises(gf.InvalidOptions):
        gf.plan_image(image, options)


@pytest.mark.parametrize("features", [None, 5, "ab", [], [None], {}], ids=str)
def test_a_batch_is_of_features(features: Any) -> None:
    with pytest.raises(gf.InvalidOptions, match="features of one image or more"):
        gf.collate(features)
