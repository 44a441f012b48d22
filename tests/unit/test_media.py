"""Sources of every kind, and what media look like from outside."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpuflow.errors import InvalidSource, LeaseExpired
from gpuflow.media import FeatureMetadata, Features, Image, ImageMetadata, Source, block_bytes, lay_out
from gpuflow.memory import Slab

METADATA = ImageMetadata("png", 4, 3)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("https://host.example/a.mp4", "url"),
        ("HTTP://host.example/a.mp4", "url"),
        ("data:image/png;base64,AAAA", "data"),
        ("file:///srv/a.png", "path"),
        (Path("a.png"), "path"),
        (b"\x89PNG", "bytes"),
        (bytearray(b"x"), "bytes"),
        (memoryview(b"x"), "bytes"),
        (io.BytesIO(b"x"), "file"),
    ],
)
def test_a_source_is_recognised_by_what_it_is(value: object, kind: str) -> None:
    assert Source.of(value).kind == kind


def test_a_bare_string_is_a_path_only_when_the_caller_is_trusted() -> None:
    assert Source.of("cat.jpg", trusted=True).kind == "path"
    with pytest.raises(InvalidSource, match=r"pathlib\.Path"):
        Source.of("cat.jpg")


@pytest.mark.parametrize(
    ("part", "kind", "modality"),
    [
        ({"type": "image_url", "image_url": {"url": "https://h.example/a"}}, "url", "image"),
        ({"type": "image_url", "image_url": "data:image/png;base64,AAAA"}, "data", "image"),
        ({"type": "video_url", "video_url": {"url": "https://h.example/a"}}, "url", "video"),
        ({"type": "audio_url", "audio_url": {"url": "https://h.example/a"}}, "url", "audio"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "base64", "audio"),
    ],
)
def test_openai_content_parts_are_sources(part: dict[str, Any], kind: str, modality: str) -> None:
    source = Source.of(part)
    assert (source.kind, source.modality, source.trusted) == (kind, modality, False)


@pytest.mark.parametrize(
    "value",
    [None, 3, ["a"], {}, {"type": "text", "text": "hi"}, {"type": "image_url"}, {"type": "image_url", "image_url": {}},
     {"type": "image_url", "image_url": {"url": "/etc/passwd"}}, {"type": "input_audio", "input_audio": {"data": 3}}],
)  # fmt: skip
def test_anything_else_is_an_invalid_source(value: object) -> None:
    with pytest.raises(InvalidSource) as caught:
        Source.of(value)
    assert caught.value.code == "invalid_media_reference"


def test_media_export_their_memory_through_dlpack_without_a_copy(slab: Slab) -> None:
    with _image(slab) as image:
        assert torch.utils.dlpack.from_dlpack(image).data_ptr() == image.lease.address
        assert np.from_dlpack(image).ctypes.data == image.lease.address
        assert image.tensor.data_ptr() == image.lease.address
        assert image.numpy().ctypes.data == image.lease.address


def test_released_media_cannot_be_used(slab: Slab) -> None:
    image = _image(slab)
    image.release()
    image.release()
    with pytest.raises(LeaseExpired):
        _ = image.tensor


def test_media_refuse_pickling_and_say_what_to_send(slab: Slab) -> None:
    with _image(slab) as image, pytest.raises(TypeError, match=r"descriptor\.to_bytes"):
        pickle.dumps(image)


def test_the_repr_shows_shapes_and_never_pixels(slab: Slab) -> None:
    with _image(slab) as image:
        assert repr(image) == "<Image data uint8[3, 4, 3] on cpu by test>"


def test_an_image_shows_itself_in_a_notebook(slab: Slab) -> None:
    from PIL import Image as Picture

    with _image(slab) as image:
        png = image._repr_png_()
        assert png is not None
        assert np.array_equal(np.asarray(Picture.open(io.BytesIO(png))), image.numpy())


def test_features_are_a_mapping_of_tensors(slab: Slab) -> None:
    specs = lay_out({"pixel_values": ("float32", (2, 3)), "image_grid_thw": ("int64", (1, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.seal()
    with Features(lease, specs, FeatureMetadata("p", METADATA), backend="test") as features:
        assert set(features) == {"pixel_values", "image_grid_thw"}
        assert dict(features)["image_grid_thw"].dtype == torch.int64
        assert features.shape == (2, 3)
        with pytest.raises(KeyError):
            features["other"]


def _image(slab: Slab) -> Image:
    specs = lay_out({"data": ("uint8", (3, 4, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.array(specs[0])[:] = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    lease.seal()
    return Image(lease, specs, METADATA, backend="test")
