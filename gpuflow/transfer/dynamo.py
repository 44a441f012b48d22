"""Dynamo's wire forms of a publication, as plain dicts; Dynamo itself is not imported.

``dynamo.nixl_connect`` sends its ``notification_key`` back when its read ends, and that frees the block early. The
media reader of Dynamo's backends makes up a key of its own, so a block offered with ``to_media`` is freed only when
its time is over. No reader of Dynamo compares generations: a block must outlive every reader's own timeout.
"""

from __future__ import annotations

import base64
import re
import struct
from typing import TYPE_CHECKING, Any

from gpuflow.media import Media, TensorSpec
from gpuflow.memory.generations import MAX_SLOTS

if TYPE_CHECKING:
    from gpuflow.transfer.descriptor import Descriptor

READ = 1
MAX_KEY_CHARACTERS = 62  # "gf1:", a slot of 5 digits, a generation of 19, a token of 32, two colons
_KEY = re.compile(r"gf1:(0|[1-9][0-9]{0,4}):([1-9][0-9]{0,18}):([0-9a-f]{32})")
_FORMATS = {"avif": "Avif", "bmp": "Bmp", "gif": "Gif", "jpeg": "Jpeg", "png": "Png", "tiff": "Tiff", "webp": "WebP"}
_COLOR_TYPES = {1: "L8", 2: "La8", 3: "Rgb8", 4: "Rgba8"}
_RANKS = {"image": 3, "frames": 4}
_DTYPE_UINT8 = b"\x00"


def to_rdma(descriptor: Descriptor, tensor: str | None = None) -> dict[str, Any]:
    """``RdmaMetadata`` of one tensor (default: the first), for ``Connector.begin_read``.

    Raises:
        ValueError: the block has no tensor of that name, or its publisher is not to be reached over NIXL.
    """
    spec = _tensor(descriptor, tensor)
    device = "cpu" if descriptor.mem_type == "DRAM" else f"cuda:{descriptor.device_id}"
    return {
        "descriptors": [{"device": device, "ptr": descriptor.address + spec.offset, "size": spec.nbytes}],
        "nixl_metadata": _agent_text(descriptor),
        "notification_key": notification_key(descriptor),
        "operation_kind": READ,
    }


def to_transfer_request(descriptor: Descriptor, tensor: str | None = None) -> dict[str, Any]:
    """``TransferRequest`` of one tensor (default: the first), for ``NixlReadEmbeddingReceiver``.

    Raises:
        ValueError: the block has no tensor of that name, or its publisher is not to be reached over NIXL.
    """
    spec = _tensor(descriptor, tensor)
    return {
        "embeddings_shape": list(spec.shape),
        "embedding_dtype_str": spec.dtype,
        "serialized_request": to_rdma(descriptor, spec.name),
    }


def to_media(descriptor: Descriptor, content_hash: str | None = None) -> dict[str, Any]:
    """The decoded-media descriptor that Dynamo's frontend gives its backends; ``content_hash`` as the function makes it.

    Raises:
        ValueError: not one uint8 tensor of an image ``(H, W, C)`` or of frames ``(T, H, W, C)``, or its publisher is
            not to be reached over NIXL.
    """
    spec = _pixels(descriptor)
    form = {
        "nixl_metadata": _agent_text(descriptor),
        "nixl_descriptor": {
            "addr": descriptor.address + spec.offset,
            "size": spec.nbytes,
            "mem_type": "Dram" if descriptor.mem_type == "DRAM" else "Vram",
            "device_id": descriptor.device_id,
        },
        "shape": list(spec.shape),
        "dtype": "UINT8",
        "metadata": _media_metadata(descriptor, channels=spec.shape[-1]),
    }
    return form if content_hash is None else {**form, "content_hash": content_hash}


def notification_key(descriptor: Descriptor) -> str:
    """What a reader of Dynamo sends back when its read ends: ``gf1:<slot>:<generation>:<token in hex>``."""
    return f"gf1:{descriptor.slot}:{descriptor.generation}:{descriptor.token.hex()}"


def parse_notification_key(text: str | bytes) -> tuple[int, int, bytes] | None:
    """``(slot, generation, token)`` of a notification key; ``None`` unless it is written exactly as we write it."""
    if len(text) > MAX_KEY_CHARACTERS:
        return None
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    slot, generation = int(match[1]), int(match[2])
    if slot >= MAX_SLOTS or generation >= 1 << 63:
        return None
    return slot, generation, bytes.fromhex(match[3])


def content_hash(media: Media) -> str:
    """Dynamo's hash of decoded pixels: xxh3-64 of rank, sides, type and bytes, as 16 hex digits.

    Raises:
        ValueError: not one uint8 tensor in host memory.
    """
    if len(media.specs) != 1 or media.dtype != "uint8" or media.device != "cpu":
        raise ValueError(f"Dynamo hashes one uint8 tensor in host memory; got {media!r}")
    import xxhash

    digest = xxhash.xxh3_64(struct.pack(f"<Q{len(media.shape)}Q", len(media.shape), *media.shape) + _DTYPE_UINT8)
    digest.update(media.numpy())
    return digest.hexdigest()


def _tensor(descriptor: Descriptor, name: str | None) -> TensorSpec:
    specs = {spec.name: spec for spec in descriptor.specs}
    if name is None:
        return descriptor.specs[0]
    if name not in specs:
        raise ValueError(f"the block has no tensor {name!r}; it has {', '.join(specs)}")
    return specs[name]


def _pixels(descriptor: Descriptor) -> TensorSpec:
    """The only tensor; channels last, because Dynamo's reader keeps the first three entries of the last axis."""
    spec, rank = descriptor.specs[0], _RANKS.get(descriptor.kind)
    wanted = len(descriptor.tensors) == 1 and spec.dtype == "uint8" and len(spec.shape) == rank
    if not wanted or spec.shape[-1] not in _COLOR_TYPES:
        tensors = ", ".join(f"{spec.dtype}{list(spec.shape)}" for spec in descriptor.specs)
        raise ValueError(
            "Dynamo takes decoded media as one uint8 tensor: an image (H, W, C) or frames (T, H, W, C) of 1 to 4 "
            f"channels; got {descriptor.kind} {tensors}"
        )
    return spec


def _media_metadata(descriptor: Descriptor, *, channels: int) -> dict[str, Any]:
    _, facts = descriptor.metadata
    if descriptor.kind == "image":
        form = _FORMATS.get(facts["format"])
        return {"Image": {"format": form, "color_type": _COLOR_TYPES[channels], "layout": "HWC"}}
    return {
        "Video": {
            "source_fps": facts["source_fps"],
            "source_duration": facts["duration_seconds"],
            "sampled_timestamps": list(facts["timestamps_seconds"]),
        }
    }


def _agent_text(descriptor: Descriptor) -> str:
    if not descriptor.agent_metadata:
        raise ValueError("Dynamo reads over NIXL: a whole descriptor of a publisher with that transport is needed")
    return "b64:" + base64.b64encode(descriptor.agent_metadata).decode()
