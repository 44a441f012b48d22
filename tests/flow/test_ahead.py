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
