"""BLAKE3 of every byte of a medium."""

from __future__ import annotations

import blake3

from gpuflow.media import Media


def digests(media: Media) -> dict[str, str]:
    """Hex digest of each tensor's bytes, by name."""
    found = {}
    for spec in media.specs:
        array = media.lease.array(spec)
        array = array.get() if hasattr(array, "get") else array
        found[spec.name] = blake3.blake3(array.reshape(-1).view("uint8")).hexdigest()
    return found
