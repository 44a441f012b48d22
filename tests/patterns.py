"""Media of random bytes, for tests of what carries them."""

from __future__ import annotations

import numpy as np

from gpuflow.media import Image, ImageMetadata, block_bytes, lay_out
from gpuflow.memory import Entry, Slab, TieredMemory


def image_of(slab: Slab, *, seed: int = 0, side: int = 70) -> Image:
    """A sealed image of ``side`` x ``side`` random pixels."""
    specs = lay_out({"data": ("uint8", (side, side, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.array(specs[0])[:] = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    lease.seal()
    return Image(lease, specs, ImageMetadata("pattern", side, side), backend="pattern")


def image_of_bytes(slab: Slab, nbytes: int, *, seed: int, wait: float = 0.0) -> Image:
    """A sealed image of so many random bytes; ``wait`` seconds at most for room."""
    specs = lay_out({"data": ("uint8", (nbytes,))})
    lease = slab.allocate(block_bytes(specs), timeout_seconds=wait)
    lease.memory()[:] = np.random.default_rng(seed).bytes(nbytes)
    lease.seal()
    return Image(lease, specs, ImageMetadata("raw", nbytes, 1), backend="pattern")


def kept(memory: TieredMemory, nbytes: int, seed: int) -> Entry:
    """An entry of so many random bytes, in the slab."""
    with image_of_bytes(memory.slab, nbytes, seed=seed, wait=30.0) as media:
        return memory.keep(media)
