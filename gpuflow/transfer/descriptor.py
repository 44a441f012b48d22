"""The serialisable claim on a published block.

Wire form: ``b"GFD1"``, an 8-byte BLAKE2b of the rest, then MessagePack. It is strict and capped in size, and nothing of
it reaches NIXL unless the digest is right and every field makes sense: one damaged metadata blob makes NIXL forget the
peer for good, and an address that wraps kills the publisher. The digest finds damage, not forgery: descriptors are for
peers that trust each other.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from gpuflow.errors import InvalidDescriptor
from gpuflow.media import (
    ITEM_BYTES,
    MEDIA_KINDS,
    AudioMetadata,
    FeatureMetadata,
    ImageMetadata,
    Metadata,
    TensorSpec,
    VideoMetadata,
)
from gpuflow.transfer import dynamo

MAGIC = b"GFD1"
DIGEST_BYTES = 8
MAX_DESCRIPTOR_BYTES = 64 << 10
MAX_TENSORS = 64
MAX_DIMENSIONS = 8
_ADDRESS_END = 1 << 63
_METADATA: dict[str, type[Any]] = {
    "image": ImageMetadata,
    "video": VideoMetadata,
    "audio": AudioMetadata,
    "features": FeatureMetadata,
}

_METADATA_OF_KIND = {"image": "image", "frames": "video", "waveform": "audio", "features": "features"}


class Descriptor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who holds the block, where it lies, which generation it is, and what the tensors in it are.

    ``token`` is what the reader sends back when it is done; ``ttl_ms`` the time left when the descriptor was made.
    """

    agent: str
    agent_metadata: bytes
    mem_type: Literal["DRAM", "VRAM"]
    device_id: int
    address: int
    nbytes: int
    table_address: int
    slot: int
    generation: int
    token: bytes
    ttl_ms: int
    kind: str
    tensors: tuple[tuple[str, str, tuple[int, ...], int], ...]
    metadata: tuple[str, dict[str, Any]]
    backend: str
    fallback: str | None = None
    content_hash: str | None = None

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of the block."""
        return tuple(TensorSpec(*tensor) for tensor in self.tensors)

    def to_bytes(self) -> bytes:
        """The wire form; about 600 bytes beside the medium's own metadata."""
        payload = msgspec.msgpack.encode(self)
        return MAGIC + _digest(payload) + payload

    @classmethod
    def from_bytes(cls, raw: bytes) -> Descriptor:
        """Read the wire form.

        Raises:
            InvalidDescriptor: truncated, damaged, too large, of another version, or with fields that make no sense.
        """
        head = len(MAGIC) + DIGEST_BYTES
        if not isinstance(raw, (bytes, bytearray, memoryview)) or not head < len(raw) <= MAX_DESCRIPTOR_BYTES:
            raise InvalidDescriptor("a descriptor is bytes, more than its head and at most 64 KiB")
        raw = bytes(raw)
        if raw[: len(MAGIC)] != MAGIC:
            raise InvalidDescriptor("not a gpuflow descriptor of this version")
        if _digest(raw[head:]) != raw[len(MAGIC) : head]:
            raise InvalidDescriptor("the descriptor is damaged: its digest does not match")
        try:
            descriptor = msgspec.msgpack.decode(raw[head:], type=cls, strict=True)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidDescriptor(f"the descriptor has a wrong field: {error}") from error
        descriptor.check()
        return descriptor

    def to_dynamo_rdma(self, tensor: str | None = None) -> dict[str, Any]:
        """Dynamo's ``RdmaMetadata`` of one tensor; see ``gpuflow.transfer.dynamo``."""
        return dynamo.to_rdma(self, tensor)

    def to_dynamo_media(self, content_hash: str | None = None) -> dict[str, Any]:
        """Dynamo's decoded-media descriptor; see ``gpuflow.transfer.dynamo``."""
        return dynamo.to_media(self, content_hash)

    def to_transfer_request(self, tensor: str | None = None) -> dict[str, Any]:
        """Dynamo's ``TransferRequest`` of one tensor; see ``gpuflow.transfer.dynamo``."""
        return dynamo.to_transfer_request(self, tensor)

    def check(self) -> None:
        """Raise ``InvalidDescriptor`` unless every field lies in its range and every tensor inside the block."""
        try:
            self._check_fields()
        except (TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, InvalidDescriptor):
                raise
            raise InvalidDescriptor("the descriptor has a field of a wrong type") from error

    def _check_fields(self) -> None:
        _require(0 < len(self.agent) <= 256 and self.agent.isprintable(), "agent name")
        _require(0 < len(self.agent_metadata) <= 16 << 10, "agent metadata")
        _require(0 <= self.device_id < 1024, "device number")
        _require(self.nbytes > 0 and 0 < self.address < _ADDRESS_END - self.nbytes, "address range")
        _require(0 < self.table_address < _ADDRESS_END - 8 and self.table_address % 8 == 0, "table address")
        _require(0 <= self.slot < dynamo.MAX_SLOTS, "slot")
        _require(0 < self.generation < 1 << 63 and self.generation % 2 == 0, "generation")
        _require(len(self.token) == 16 and 0 <= self.ttl_ms < 1 << 40, "token or time")
        _require(self.kind in MEDIA_KINDS and 0 < len(self.tensors) <= MAX_TENSORS, "kind or number of tensors")
        for spec in self.specs:
            _require(spec.dtype in ITEM_BYTES and len(spec.shape) <= MAX_DIMENSIONS, "type or shape of a tensor")
            _require(spec.offset >= 0 and all(0 <= side <= self.nbytes for side in spec.shape), "shape of a tensor")
            _require(spec.offset + spec.nbytes <= self.nbytes, "size of a tensor")
            _require(spec.offset % ITEM_BYTES[spec.dtype] == 0, "alignment of a tensor")
        _require(len({spec.name for spec in self.specs}) == len(self.specs), "names of tensors")
        _require(self.metadata[0] == _METADATA_OF_KIND[self.kind], "kind of metadata")
        read_metadata(self.metadata)


def write_metadata(metadata: Metadata) -> tuple[str, dict[str, Any]]:
    """Metadata as (name of its kind, builtin values)."""
    values = msgspec.to_builtins(metadata)
    if isinstance(metadata, FeatureMetadata):
        values["source"] = write_metadata(metadata.source)
    name = next(name for name, kind in _METADATA.items() if kind is type(metadata))
    return name, values


def read_metadata(wire: tuple[str, dict[str, Any]] | Any) -> Any:
    """The inverse of ``write_metadata``.

    Raises:
        InvalidDescriptor: not such a pair.
    """
    try:
        name, values = wire
        kind = _METADATA[name]
        if kind is not FeatureMetadata:
            return msgspec.convert(values, kind, strict=True)
        source = read_metadata(values["source"])
        if isinstance(source, FeatureMetadata):
            raise ValueError("features of features")
        preset, length, tokens = values["preset"], values.get("valid_length"), values.get("num_tokens")
        return FeatureMetadata(str(preset), source, _count(length), _count(tokens))
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InvalidDescriptor("the descriptor's metadata is not valid") from error


def _count(value: object) -> int | None:
    return None if value is None else msgspec.convert(value, int, strict=True)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=DIGEST_BYTES, person=MAGIC).digest()


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise InvalidDescriptor(f"the descriptor's {what} is out of range")
