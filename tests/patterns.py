"""Media of random bytes, for tests of what carries them."""

from __future__ import annotations

import numpy as np

from gpuflow.media import Image, ImageMetadata, block_bytes, lay_out
from gpuflow.memory import Slab


def image_of(slab: Slab, *, seed: int = 0, side: int = 70) -> Image:
    """A sealed image of ``side`` x ``side`` random pixels."""
    specs = lay_out({"data": ("uint8", (side, side, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.array(specs[0])[:] = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    lease.seal()
    return Image(lease, specs, ImageMetadata("pattern", side, side), backend="pattern")
