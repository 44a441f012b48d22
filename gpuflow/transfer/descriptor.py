"""The serialisable claim on a published block.

Wire form: ``b"GFD2"``, a 16-byte BLAKE2b of the rest, then MessagePack. It is strict and capped in size, and nothing of
it reaches NIXL unless the digest is right and every field makes sense: one damaged metadata blob makes NIXL forget the
peer for good, and an address that wraps kills the publisher. Without a key the digest finds damage, not forgery.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Literal, get_type_hints

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
from gpuflow.memory.generations import MAX_SLOTS
from gpuflow.transfer import dynamo

MAGIC = b"GFD2"
PEER_MAGIC = b"GFP2"
DIGEST_BYTES = 16
REFERENCE_BYTES = 8
MAX_DESCRIPTOR_BYTES = 64 << 10
MAX_TENSORS = 64
MAX_DIMENSIONS = 8
MAX_LINKS = 64
MAX_KEY_BYTES = 64
_ADDRESS_END = 1 << 63
_SOCKET = re.compile(rb"gpuflow-[0-9a-f]{16}")
_FILE_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
_METADATA: dict[str, type[Any]] = {
    "image": ImageMetadata,
    "video": VideoMetadata,
    "audio": AudioMetadata,
    "features": FeatureMetadata,
}
_OF_FEATURES = {name: of for name, of in get_type_hints(FeatureMetadata).items() if name != "source"}
_METADATA_OF_KIND = {"image": "image", "frames": "video", "waveform": "audio", "features": "features"}


class Peer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A publishing process and the ways to it: a capability, for trusted peers only.

    ``agent``: its name, never used for a second incarnation. ``nixl``: its NIXL metadata, compressed, or empty.
    ``shm``: the socket where its memory can be had for mapping, or empty; ``secret`` is what that socket asks for.
    """

    agent: str
    nixl: bytes = b""
    shm: bytes = b""
    secret: bytes = b""

    @property
    def reference(self) -> bytes:
        """Eight bytes that stand for this peer in a compact descriptor."""
        return _digest(msgspec.msgpack.encode(self), b"", size=REFERENCE_BYTES)

    def to_bytes(self, *, key: bytes = b"") -> bytes:
        """The wire form, for ``Reader.add_peer``; framed like a descriptor."""
        return _frame(PEER_MAGIC, msgspec.msgpack.encode(self), key)

    @classmethod
    def from_bytes(cls, raw: bytes, *, key: bytes = b"") -> Peer:
        """Read the wire form.

        Raises:
            InvalidDescriptor: truncated, damaged, of another key or version, or with fields that make no sense.
        """
        peer: Peer = _decode(_unframe(PEER_MAGIC, raw, key), cls)
        peer.check()
        return peer

    def check(self) -> None:
        """Raise ``InvalidDescriptor`` unless every field lies in its range."""
        _require(0 < len(self.agent) <= 256 and self.agent.isprintable(), "agent name")
        _require(len(self.nixl) <= 16 << 10, "agent metadata")
        _require(not self.shm or (_SOCKET.fullmatch(self.shm) is not None and len(self.secret) == 16), "socket")


class Descriptor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who holds the block, where it lies, which generation it is, and what the tensors in it are.

    ``peer`` is an eight-byte reference in a compact descriptor. ``token`` is what the reader sends back when it is
    done; ``ttl_ms`` the time left when the descriptor was made. ``file``: the medium lies in a file of that name in the
    directory that publisher and reader share, under ``links`` names of which each reader takes one away, with this
    ``checksum`` (BLAKE3, 16 bytes); there is no block then.
    """

    peer: Peer | bytes
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
    file: str = ""
    links: int = 0
    checksum: bytes = b""

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of the block."""
        return tuple(TensorSpec(*tensor) for tensor in self.tensors)

    @property
    def agent(self) -> str:
        """The publisher's name; empty in a compact descriptor."""
        return self.peer.agent if isinstance(self.peer, Peer) else ""

    @property
    def agent_metadata(self) -> bytes:
        """The publisher's NIXL metadata, compressed by zlib; empty where there is none."""
        return self.peer.nixl if isinstance(self.peer, Peer) else b""

    def to_bytes(self, *, compact: bool = False, key: bytes = b"") -> bytes:
        """The wire form: about 600 bytes beside the medium's own metadata.

        Args:
            compact: 8 bytes instead of the publisher's record, for readers that know it: those that have read a whole
                descriptor of this publisher, or were given ``publisher.peer`` (``Reader.add_peer``).
            key: at most 64 secret bytes; ``from_bytes`` with the same key then takes no descriptor of anybody else.

        Raises:
            ValueError: the key is longer, or it would take more than 64 KiB, which no reader takes: a video of several
                thousand frames does.
        """
        whole = self
        if compact and isinstance(self.peer, Peer):
            whole = msgspec.structs.replace(self, peer=self.peer.reference)
        return _frame(MAGIC, msgspec.msgpack.encode(whole), key)

    @classmethod
    def from_bytes(cls, raw: bytes, *, key: bytes = b"") -> Descriptor:
        """Read the wire form.

        Raises:
            InvalidDescriptor: truncated, damaged, too large, of another key or version, or with fields that make no
                sense.
        """
        descriptor: Descriptor = _decode(_unframe(MAGIC, raw, key), cls)
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

    def check(self) -> tuple[tuple[TensorSpec, ...], Any]:
        """The tensors and the metadata; raises ``InvalidDescriptor`` unless every field lies in its range and every
        tensor inside the block."""
        try:
            return self._check_fields()
        except (TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, InvalidDescriptor):
                raise
            raise InvalidDescriptor("the descriptor has a field of a wrong type") from error

    def _check_fields(self) -> tuple[tuple[TensorSpec, ...], Any]:
        if isinstance(self.peer, Peer):
            self.peer.check()
        else:
            _require(len(self.peer) == REFERENCE_BYTES, "publisher's reference")
        self._check_file() if self.file else self._check_block()
        _require(len(self.token) == 16 and 0 <= self.ttl_ms < 1 << 40, "token or time")
        _require(self.kind in MEDIA_KINDS and 0 < len(self.tensors) <= MAX_TENSORS, "kind or number of tensors")
        specs, names = self.specs, set()
        for spec in specs:
            names.add(spec.name)
            _require(spec.dtype in ITEM_BYTES and len(spec.shape) <= MAX_DIMENSIONS, "type or shape of a tensor")
            _require(spec.offset >= 0 and all(0 <= side <= self.nbytes for side in spec.shape), "shape of a tensor")
            _require(spec.offset + spec.nbytes <= self.nbytes, "size of a tensor")
            _require(spec.offset % ITEM_BYTES[spec.dtype] == 0, "alignment of a tensor")
        _require(len(names) == len(specs), "names of tensors")
        _require(self.metadata[0] == _METADATA_OF_KIND[self.kind], "kind of metadata")
        return specs, read_metadata(self.metadata)

    def _check_block(self) -> None:
        _require(0 <= self.device_id < 1024, "device number")
        _require(self.nbytes > 0 and 0 < self.address < _ADDRESS_END - self.nbytes, "address range")
        _require(0 < self.table_address < _ADDRESS_END - 8 and self.table_address % 8 == 0, "table address")
        _require(0 <= self.slot < MAX_SLOTS, "slot")
        _require(0 < self.generation < 1 << 63 and self.generation % 2 == 0, "generation")

    def _check_file(self) -> None:
        _require(_FILE_NAME.fullmatch(self.file) is not None, "name of a file")
        _require(0 < self.nbytes < 1 << 40 and 0 <= self.links <= MAX_LINKS and len(self.checksum) == 16, "file")
        _require(self.address == self.table_address == 0, "file with an address")


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
        told = {name: of for name, of in _OF_FEATURES.items() if name in values}
        return FeatureMetadata(
            source=source, **{name: msgspec.convert(values[name], of, strict=True) for name, of in told.items()}
        )
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InvalidDescriptor("the descriptor's metadata is not valid") from error


def _frame(magic: bytes, payload: bytes, key: bytes) -> bytes:
    if len(key) > MAX_KEY_BYTES:
        raise ValueError(f"a key has at most {MAX_KEY_BYTES} bytes; got {len(key)}")
    framed = magic + _digest(payload, key, magic) + payload
    if len(framed) > MAX_DESCRIPTOR_BYTES:
        raise ValueError(f"a descriptor of {len(framed)} bytes is read by nobody: publish fewer frames at once")
    return framed


def _unframe(magic: bytes, raw: object, key: bytes) -> bytes:
    head = len(magic) + DIGEST_BYTES
    if not isinstance(raw, (bytes, bytearray, memoryview)) or not head < len(raw) <= MAX_DESCRIPTOR_BYTES:
        raise InvalidDescriptor("a descriptor is bytes, more than its head and at most 64 KiB")
    if len(key) > MAX_KEY_BYTES:
        raise ValueError(f"a key has at most {MAX_KEY_BYTES} bytes; got {len(key)}")
    raw = bytes(raw)
    if raw[: len(magic)] != magic:
        raise InvalidDescriptor("not a gpuflow descriptor of this kind and version")
    if not hmac.compare_digest(_digest(raw[head:], key, magic), raw[len(magic) : head]):
        raise InvalidDescriptor("the descriptor is damaged, or was signed with another key: its digest does not match")
    return raw[head:]


def _decode(payload: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.msgpack.decode(payload, type=kind, strict=True)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidDescriptor(f"the descriptor has a wrong field: {error}") from error


def _digest(payload: bytes, key: bytes, person: bytes = b"", *, size: int = DIGEST_BYTES) -> bytes:
    return hashlib.blake2b(payload, digest_size=size, key=key, person=person).digest()


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise InvalidDescriptor(f"the descriptor's {what} is out of range")
