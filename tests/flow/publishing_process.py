"""A process of its own that publishes one patterned image and lives until its standard input ends.

Argument: the number of reads. Output: the descriptor in base64.
"""

import base64
import sys

import numpy as np

from gpuflow.media import Image, ImageMetadata, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher

if __name__ == "__main__":
    specs = lay_out({"data": ("uint8", (500, 700, 3))})
    with Slab("16MiB") as slab, Publisher(slab) as publisher:
        lease = slab.allocate(block_bytes(specs))
        lease.array(specs[0])[:] = np.random.default_rng(5).integers(0, 256, (500, 700, 3), np.uint8)
        lease.seal()
        image = Image(lease, specs, ImageMetadata("raw", 700, 500), backend="pattern")
        descriptor = publisher.publish(image, reads=int(sys.argv[1]), ttl_seconds=60.0)
        print(base64.b64encode(descriptor.to_bytes()).decode(), flush=True)
        sys.stdin.read()
        image.release()
