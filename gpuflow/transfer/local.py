"""Media as safetensors files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gpuflow.media import Media
from gpuflow.transfer.descriptor import write_metadata


def save(media: Media, path: Path) -> None:
    """Write a medium's tensors to ``path`` under their names, with its metadata as JSON in the file's header.

    The file appears whole or not at all, readable by its owner only.

    Raises:
        OSError: the folder cannot be written to, or is full.
    """
    import safetensors

    tensors = {}
    for spec in media.specs:
        array = media.lease.array(spec)
        array = array.get() if hasattr(array, "get") else array
        tensors[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data": array.tobytes()}
    kind, values = write_metadata(media.metadata)
    header = {
        "kind": media.kind,
        "backend": media.backend,
        "metadata": json.dumps({kind: values}),
        "content_hash": media.content_hash or "",
    }
    serialize: Any = safetensors.serialize  # its stub names a class that the function does not need
    whole: bytes = serialize(tensors, header)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(whole)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
