"""The wire form of a descriptor: strict, capped, and never a way into NIXL for damaged bytes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gpuflow.errors import InvalidDescriptor
from gpuflow.media import AudioMetadata, FeatureMetadata, ImageMetadata, VideoMetadata
from gpuflow.ops.audio_parts import MAX_PARTS
from gpuflow.transfer.descriptor import (
    MAGIC,
    MAX_DESCRIPTOR_BYTES,
    Descriptor,
    Peer,
    _frame,
    read_metadata,
    write_metadata,
)

IMAGE = ImageMetadata("jpeg", 640, 480)
VIDEO = VideoMetadata("h264", 640, 360, 600, 30.0, 20.0, (0, 299, 599), (0.0, 9.967, 19.967), origin_seconds=1.4)
AUDIO = AudioMetadata(
    "aac", 2, 44100, 16000, 80000, 5.0, stream=1, num_streams=3, begins_seconds=-0.25, filled_seconds=0.64
)
PEER = Peer("gpuflow/host/1/0123456789abcdef", b"m" * 300, b"gpuflow-0123456789abcdef", b"s" * 16)


def _descriptor(**changes: Any) -> Descriptor:
    fields: dict[str, Any] = {
        "peer": PEER, "mem_type": "DRAM", "device_id": 0,
        "address": 1 << 46, "nbytes": 921_600, "table_address": 1 << 45, "slot": 7, "generation": 2, "token": b"t" * 16,
        "ttl_ms": 5000, "kind": "image", "tensors": (("data", "uint8", (480, 640, 3), 0),),
        "metadata": write_metadata(IMAGE), "backend": "torchvision", "fallback": None, "content_hash": "ab" * 32,
    }  # fmt: skip
    return Descriptor(**(fields | changes))


def test_the_wire_form_comes_back_equal_and_small() -> None:
    raw = _descriptor().to_bytes()
    assert Descriptor.from_bytes(raw) == _descriptor()
    assert len(raw) <= 700


@pytest.mark.parametrize(
    "metadata",
    [
        IMAGE,
        VIDEO,
        AUDIO,
        pytest.param(replace(AUDIO, parts=((0, 40_000), (40_000, 80_000))), id="AudioMetadata of parts"),
        FeatureMetadata("clip-224", IMAGE, None, 256),
        FeatureMetadata("w", AUDIO, 300, None),
        FeatureMetadata("parted", AUDIO, None, 125, ((0, 40_000), (40_000, 80_000)), (250, 250)),
    ],
    ids=lambda metadata: type(metadata).__name__ + str(getattr(metadata, "preset", "")),
)
def test_metadata_of_every_kind_comes_back_equal(metadata: Any) -> None:
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(write_metadata(metadata)))
    assert read_metadata(wire) == metadata


def test_metadata_without_a_clock_are_those_of_an_older_publisher() -> None:
    name, values = write_metadata(replace(AUDIO, begins_seconds=0.0, filled_seconds=0.0))
    for added in ("begins_seconds", "filled_seconds"):
        del values[added]
    assert read_metadata((name, values)) == replace(AUDIO, begins_seconds=0.0, filled_seconds=0.0)


def test_metadata_without_parts_are_those_of_an_older_publisher() -> None:
    name, values = write_metadata(FeatureMetadata("w", AUDIO, 300))
    for added in ("parts", "valid_lengths"):
        del values[added]
    assert read_metadata((name, values)) == FeatureMetadata("w", AUDIO, 300)


@pytest.mark.parametrize(
    "changes",
    [{"parts": 1}, {"parts": [[0]]}, {"parts": [[0, "1"]]}, {"valid_lengths": [1.5]}, {"preset": None}, {"preset": 3}],
)
def test_metadata_of_parts_that_are_none_are_refused(changes: dict[str, Any]) -> None:
    name, values = write_metadata(FeatureMetadata("w", AUDIO, 300))
    with pytest.raises(InvalidDescriptor):
        read_metadata((name, values | changes))


def test_the_most_parts_of_a_clip_fit_in_a_descriptor() -> None:
    last = 1 << 30
    metadata = FeatureMetadata("w", AUDIO, None, 1 << 20, ((last, last),) * MAX_PARTS, (1 << 15,) * MAX_PARTS)
    peer = Peer(PEER.agent, b"m" * (16 << 10), PEER.shm, PEER.secret)
    sent = _descriptor(kind="features", metadata=write_metadata(metadata), peer=peer).to_bytes()
    assert read_metadata(Descriptor.from_bytes(sent).metadata) == metadata


def test_no_truncation_is_taken() -> None:
    raw = _descriptor().to_bytes()
    for length in range(len(raw)):
        with pytest.raises(InvalidDescriptor):
            Descriptor.from_bytes(raw[:length])


def test_none_of_a_thousand_damaged_descriptors_is_taken() -> None:
    raw, rng = _descriptor().to_bytes(), random.Random(11)
    for _ in range(1000):
        damaged = bytearray(raw)
        damaged[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        with pytest.raises(InvalidDescriptor):
            Descriptor.from_bytes(bytes(damaged))


def test_what_a_signed_descriptor_of_random_damage_leads_to_lies_within_its_bounds() -> None:
    """An attacker who can sign: bits are flipped below the digest, so that only the checks of fields are left."""
    payload, rng, taken = msgspec.msgpack.encode(_descriptor()), random.Random(12), 0
    for _ in range(5000):
        damaged = bytearray(payload)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        try:
            read = Descriptor.from_bytes(_frame(MAGIC, bytes(damaged), b""))
        except InvalidDescriptor:
            continue
        taken += 1
        assert all(0 <= spec.offset <= spec.offset + spec.nbytes <= read.nbytes for spec in read.specs)
        assert 0 < read.address < read.address + read.nbytes < 1 << 63
        assert read.generation % 2 == 0
        assert len(read.token) == 16
    assert 100 < taken < 4900, "both were tried"


@pytest.mark.parametrize(
    "changes",
    [
        {"nbytes": 1 << 63}, {"address": (1 << 63) - 5}, {"address": 0}, {"address": -1}, {"table_address": 3},
        {"slot": -1}, {"slot": 65_536},
        {"generation": 3}, {"generation": 0}, {"token": b"short"}, {"kind": "text"}, {"tensors": ()},
        {"mem_type": "FILE"}, {"device_id": -1}, {"peer": Peer("")}, {"peer": b"short"}, {"peer": Peer("a", b"m", b"../socket", b"s" * 16)}, {"ttl_ms": -1},
        {"peer": Peer("a", b"", b"gpuflow-0123456789abcdef", b"short")},
        {"file": "../x.safetensors"}, {"file": "a" * 32 + ".safetensors"}, {"file": "a" * 32},
        {"tensors": (("data", "uint8", (480, 640, 4), 0),)}, {"tensors": (("data", "object", (1,), 0),)},
        {"tensors": (("data", "uint8", (1,), -1),)}, {"tensors": (("data", "uint8", (-1, -1), 0),)},
        {"tensors": (("data", "uint8", (1 << 40,) * 8, 0),)}, {"metadata": ("image", {"format": 3})},
        {"metadata": ("nothing", {})}, {"metadata": write_metadata(AUDIO)}, {"tensors": (("data", "float32", (4,), 2),)},
        {"tensors": (("a", "uint8", (1,), 0), ("a", "uint8", (1,), 0))}, {"metadata": ("features", {"preset": "p", "source": ["features", {}]})},
    ],
    ids=str,
)  # fmt: skip
def test_well_formed_descriptors_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidDescriptor):
        Descriptor.from_bytes(_descriptor(**changes).to_bytes())


@pytest.mark.parametrize("raw", [b"", b"GFD2", b"GFD1" + b"x" * 100, b"x" * (MAX_DESCRIPTOR_BYTES + 1), "text", None])
def test_other_bytes_are_refused(raw: Any) -> None:
    with pytest.raises(InvalidDescriptor):
        Descriptor.from_bytes(raw)


def test_a_compact_descriptor_is_small_and_names_its_publisher() -> None:
    raw = _descriptor(content_hash=None).to_bytes(compact=True)
    assert len(raw) <= 250
    assert Descriptor.from_bytes(raw).peer == PEER.reference
    assert Peer("other").reference != PEER.reference


def test_a_peer_record_comes_back_equal_and_is_no_descriptor() -> None:
    raw = PEER.to_bytes()
    assert Peer.from_bytes(raw) == PEER
    with pytest.raises(InvalidDescriptor):
        Descriptor.from_bytes(raw)
    for length in range(len(raw)):
        with pytest.raises(InvalidDescriptor):
            Peer.from_bytes(raw[:length])


def test_with_a_key_nobody_else_can_write_a_descriptor() -> None:
    raw = _descriptor().to_bytes(key=b"ours")
    assert Descriptor.from_bytes(raw, key=b"ours") == _descriptor()
    for forged in (raw, _descriptor().to_bytes(), _descriptor().to_bytes(key=b"theirs")):
        with pytest.raises(InvalidDescriptor, match="another key"):
            Descriptor.from_bytes(forged, key=b"mine")
    assert Peer.from_bytes(PEER.to_bytes(key=b"k"), key=b"k") == PEER


def test_a_descriptor_that_nobody_would_read_is_not_written() -> None:
    long = VideoMetadata("h264", 640, 360, 9000, 30.0, 300.0, tuple(range(9000)), tuple(n / 30 for n in range(9000)))
    descriptor = _descriptor(kind="frames", metadata=write_metadata(long))
    with pytest.raises(ValueError, match="read by nobody"):
        descriptor.to_bytes()
    with pytest.raises(ValueError, match="at most 64 bytes"):
        _descriptor().to_bytes(key=b"k" * 65)
