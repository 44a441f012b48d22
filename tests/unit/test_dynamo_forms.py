"""The dicts that Dynamo reads, byte for byte, and the notification key that frees a block."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuflow.media import FeatureMetadata, Image, ImageMetadata, VideoMetadata, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer.descriptor import Descriptor, Peer, write_metadata
from gpuflow.transfer.dynamo import content_hash, notification_key, parse_notification_key

IMAGE = ImageMetadata("jpeg", 640, 480)
VIDEO = VideoMetadata("h264", 640, 360, 600, 30.0, 20.0, (0, 299), (0.0, 9.967))
TOKEN = bytes(range(16))
TEXT = "gf1:7:42:000102030405060708090a0b0c0d0e0f"
AGENT = "b64:" + base64.b64encode(b"m" * 30).decode()
PIXELS = (("data", "uint8", (480, 640, 3), 0),)


def _descriptor(**changes: Any) -> Descriptor:
    fields: dict[str, Any] = {
        "peer": Peer("gpuflow/host/1/abc", b"m" * 30), "mem_type": "DRAM", "device_id": 0,
        "address": 1 << 46, "nbytes": 2_000_000, "table_address": 1 << 45, "slot": 7, "generation": 42, "token": TOKEN,
        "ttl_ms": 5000, "kind": "image", "tensors": PIXELS, "metadata": write_metadata(IMAGE), "backend": "pattern",
    }  # fmt: skip
    return Descriptor(**(fields | changes))


def _features(**changes: Any) -> Descriptor:
    tensors = (("pixel_values", "bfloat16", (64, 1176), 0), ("image_grid_thw", "int64", (1, 3), 150_528))
    metadata = write_metadata(FeatureMetadata("pattern", IMAGE, None, 16))
    return _descriptor(**({"kind": "features", "tensors": tensors, "metadata": metadata} | changes))


def test_rdma_metadata_names_the_range_of_the_first_tensor() -> None:
    assert _descriptor().to_dynamo_rdma() == {
        "descriptors": [{"device": "cpu", "ptr": 1 << 46, "size": 480 * 640 * 3}],
        "nixl_metadata": AGENT,
        "notification_key": TEXT,
        "operation_kind": 1,
    }


def test_a_named_tensor_has_its_own_address_and_size() -> None:
    form = _features(mem_type="VRAM", device_id=3).to_dynamo_rdma("image_grid_thw")
    assert form["descriptors"] == [{"device": "cuda:3", "ptr": (1 << 46) + 150_528, "size": 24}]


def test_a_transfer_request_gives_shape_and_type_beside_the_range() -> None:
    descriptor = _features()
    for form in (descriptor.to_transfer_request(), descriptor.to_transfer_request("pixel_values")):
        assert form == {
            "embeddings_shape": [64, 1176],
            "embedding_dtype_str": "bfloat16",
            "serialized_request": descriptor.to_dynamo_rdma("pixel_values"),
        }


def test_an_image_is_a_media_descriptor() -> None:
    form: dict[str, Any] = {
        "nixl_metadata": AGENT,
        "nixl_descriptor": {"addr": 1 << 46, "size": 480 * 640 * 3, "mem_type": "Dram", "device_id": 0},
        "shape": [480, 640, 3],
        "dtype": "UINT8",
        "metadata": {"Image": {"format": "Jpeg", "color_type": "Rgb8", "layout": "HWC"}},
    }
    assert _descriptor().to_dynamo_media() == form
    assert _descriptor().to_dynamo_media("00" * 8) == {**form, "content_hash": "00" * 8}


def test_frames_in_gpu_memory_are_a_media_descriptor() -> None:
    tensors = (("data", "uint8", (2, 360, 640, 3), 0),)
    frames = _descriptor(
        kind="frames", tensors=tensors, metadata=write_metadata(VIDEO), mem_type="VRAM", device_id=1
    ).to_dynamo_media()
    assert frames["nixl_descriptor"] == {"addr": 1 << 46, "size": 2 * 360 * 640 * 3, "mem_type": "Vram", "device_id": 1}
    assert frames["metadata"] == {
        "Video": {"source_fps": 30.0, "source_duration": 20.0, "sampled_timestamps": [0.0, 9.967]}
    }


def test_an_image_of_a_format_that_dynamo_does_not_name_has_no_format() -> None:
    form = _descriptor(metadata=write_metadata(ImageMetadata("raw", 640, 480))).to_dynamo_media()
    assert form["metadata"]["Image"]["format"] is None


def test_the_forms_are_json() -> None:
    for form in (_descriptor().to_dynamo_media(), _features().to_transfer_request()):
        assert json.loads(json.dumps(form)) == form


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": (("data", "float32", (48, 64, 3), 0),)},
        {"tensors": (("data", "uint8", (3, 480, 640), 0),)},
        {"tensors": (("data", "uint8", (480, 640), 0),)},
        {"tensors": (*PIXELS, ("mask", "uint8", (480, 640, 1), 921_600))},
        {"kind": "frames", "metadata": write_metadata(VIDEO)},
        {"kind": "features", "metadata": write_metadata(FeatureMetadata("p", IMAGE))},
    ],
    ids=str,
)
def test_what_dynamo_would_misread_as_decoded_media_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one uint8 tensor"):
        _descriptor(**changes).to_dynamo_media()


def test_an_unknown_tensor_is_refused_with_the_names_that_there_are() -> None:
    for method in (_features().to_dynamo_rdma, _features().to_transfer_request):
        with pytest.raises(ValueError, match="pixel_values, image_grid_thw"):
            method("nothing")


@pytest.fixture
def pixels(slab: Slab) -> Any:
    """Makes an image of a shape, with the bytes 0, 1, 2 and so on."""

    def make(shape: tuple[int, ...], dtype: str = "uint8") -> Image:
        specs = lay_out({"data": (dtype, shape)})
        lease = slab.allocate(block_bytes(specs))
        lease.array(specs[0])[:] = np.arange(specs[0].nbytes).reshape(shape) % 256 if dtype == "uint8" else 0
        lease.seal()
        return Image(lease, specs, IMAGE, backend="pattern")

    return make


def test_the_content_hash_is_dynamos(pixels: Any) -> None:
    with pixels((1, 2, 3)) as image:
        assert content_hash(image) == "7a9bbcb11a898630"


def test_the_content_hash_knows_the_shape(pixels: Any) -> None:
    with pixels((4, 2, 3)) as one, pixels((2, 4, 3)) as other:
        assert content_hash(one) != content_hash(other)


def test_only_bytes_are_hashed(pixels: Any) -> None:
    with pixels((1, 2, 3), "float32") as floats, pytest.raises(ValueError, match="one uint8 tensor in host memory"):
        content_hash(floats)


@pytest.mark.gpu
def test_only_host_memory_is_hashed() -> None:
    with Slab("1MiB", device="cuda") as slab:
        specs = lay_out({"data": ("uint8", (1, 2, 3))})
        lease = slab.allocate(block_bytes(specs))
        lease.seal()
        with Image(lease, specs, IMAGE, backend="pattern") as image, pytest.raises(ValueError, match="in host memory"):
            content_hash(image)


def test_a_notification_key_comes_back() -> None:
    assert notification_key(_descriptor()) == TEXT
    assert parse_notification_key(TEXT) == parse_notification_key(TEXT.encode()) == (7, 42, TOKEN)


@given(st.integers(0, 65_535), st.integers(1, (1 << 63) - 1), st.binary(min_size=16, max_size=16))
def test_every_notification_key_comes_back(slot: int, generation: int, token: bytes) -> None:
    key = notification_key(_descriptor(slot=slot, generation=generation, token=token))
    assert parse_notification_key(key) == parse_notification_key(key.encode()) == (slot, generation, token)


@pytest.mark.parametrize(
    "text",
    [
        "", "gf1", TEXT[:-1], TEXT + "0", TEXT + "\n", " " + TEXT, TEXT.upper(), TEXT.replace("gf1", "gf2"),
        TEXT.replace(":7:", ":07:"), TEXT.replace(":7:", ":+7:"), TEXT.replace(":7:", ":-7:"), TEXT.replace(":7:", "::"),
        TEXT.replace(":7:", ":65536:"), TEXT.replace(":42:", ":0:"), TEXT.replace(":42:", f":{1 << 63}:"),
        TEXT.replace(":42:", ":4_2:"), TEXT.replace(":7:", ":\u0667:"), TEXT.replace("0f", "0F"), "x" * 10_000,
    ],
)  # fmt: skip
def test_a_key_that_is_written_otherwise_is_none(text: str) -> None:
    assert parse_notification_key(text) is None
    assert parse_notification_key(text.encode()) is None


@given(st.one_of(st.text(), st.binary(), st.from_regex(r"gf1:[0-9]+:[0-9]+:[0-9a-f]{32}")))
def test_what_parses_is_written_exactly_so(text: str | bytes) -> None:
    parsed = parse_notification_key(text)
    if parsed is not None:
        slot, generation, token = parsed
        assert notification_key(_descriptor(slot=slot, generation=generation, token=token)) == (
            text if isinstance(text, str) else text.decode()
        )


def test_a_block_that_dynamo_cannot_reach_has_no_form() -> None:
    for peer in (Peer("gpuflow/host/1/abc"), b"reference"[:8]):
        for form in (Descriptor.to_dynamo_rdma, Descriptor.to_dynamo_media, Descriptor.to_transfer_request):
            with pytest.raises(ValueError, match="NIXL"):
                form(_descriptor(peer=peer))
