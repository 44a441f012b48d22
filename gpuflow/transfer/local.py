"""Media as safetensors files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gpuflow.errors import InvalidDescriptor
from gpuflow.media import Media
from gpuflow.transfer.descriptor import write_metadata


def save(media: Media, path: Path) -> None:
    """Write a medium's tensors to ``path`` under their names, with its metadata as JSON in the file's header.

    The file appears whole or not at all, readable by its owner only.

    Raises:
        OSError: the folder cannot be written to, or is full.
    """
    whole = serialize(media)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(whole)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def serialize(media: Media) -> bytes:
    """A medium as the bytes of a safetensors file."""
    from safetensors.torch import save as write

    tensors = {spec.name: media.lease.tensor(spec).cpu() for spec in media.specs}
    kind, values = write_metadata(media.metadata)
    header = {
        "kind": media.kind,
        "backend": media.backend,
        "metadata": json.dumps({kind: values}),
        "content_hash": media.content_hash or "",
    }
    whole: bytes = write(tensors, header)
    return whole


def deserialize(whole: bytes) -> dict[str, Any]:
    """The tensors of a safetensors file, by name, on the host.

    Raises:
        InvalidDescriptor: it is not such a file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Any] = load(whole)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InvalidDescriptor("the published file is not a safetensors file") from error
    return tensors
