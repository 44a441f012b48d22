"""The other process of the transfer tests: publishes or reads what it is told to, one JSON line each way.

Arguments: slab size, transports of the publisher, transports of the reader (comma-separated).
"""

from __future__ import annotations

import base64
import json
import resource
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpuflow.errors import GpuflowError
from gpuflow.media import Image, ImageMetadata, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Descriptor, Publisher, Reader


class Peer:
    """One slab, one publisher and, when it is first asked to read, one reader."""

    def __init__(self, slab_bytes: str, publish_over: str, read_over: str) -> None:
        self.slab = Slab(slab_bytes)
        self.publisher = Publisher(self.slab, transports=publish_over.split(","))  # type: ignore[arg-type]
        self.read_over = read_over.split(",")
        self.reader: Reader | None = None
        self.churn: threading.Thread | None = None

    def publish(self, nbytes: int, value: int, reads: int | None = 1, ttl: float = 60.0, wait: float = 0.0) -> Any:
        with self._image(nbytes, value, wait) as image:
            return {"descriptor": _text(self.publisher.publish(image, reads=reads, ttl_seconds=ttl))}

    def publish_unread(self, count: int, nbytes: int, ttl: float) -> Any:
        """Publish again and again, as soon as there is room."""
        for value in range(count):
            with self._image(nbytes, value % 256, 30.0) as image:
                self.publisher.publish(image, ttl_seconds=ttl)
        return {
            "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            "live": self.slab.statistics().live_leases,
        }

    def churn_batch(self, count: int, nbytes: int, first_value: int) -> Any:
        """Publish a batch, and while the reader reads it, withdraw one after another and overwrite its block."""
        if self.churn is not None:
            self.churn.join()
        descriptors = []
        for position in range(count):
            with self._image(nbytes, (first_value + position) % 255, 5.0) as image:
                descriptors.append(self.publisher.publish(image, reads=2, ttl_seconds=60.0))
        self.churn = threading.Thread(target=self._overwrite, args=(descriptors, nbytes))
        self.churn.start()
        return {"descriptors": [_text(descriptor) for descriptor in descriptors]}

    def read(self, descriptor: str, timeout: float = 10.0) -> Any:
        if self.reader is None:
            self.reader = Reader(slab_bytes="640MiB", device="cpu", transports=self.read_over)  # type: ignore[arg-type]
        try:
            with self.reader.read(Descriptor.from_bytes(base64.b64decode(descriptor)), timeout_seconds=timeout) as got:
                values = np.unique(got.numpy())
                return {"values": values[:3].tolist(), "nbytes": int(got.numpy().nbytes)}
        except GpuflowError as error:
            return {"error": type(error).__name__}

    def cancel(self, descriptor: str) -> Any:
        return {"cancelled": self.publisher.cancel(Descriptor.from_bytes(base64.b64decode(descriptor)))}

    def statistics(self) -> Any:
        found, slab = self.publisher.statistics(), self.slab.statistics()
        return {
            "open": found.open, "acknowledged": found.acknowledged, "expired": found.expired,
            "unknown": found.unknown_messages, "live": slab.live_leases,
        }  # fmt: skip

    def close(self) -> None:
        if self.churn is not None:
            self.churn.join()
        if self.reader is not None:
            self.reader.close()
        self.publisher.close()
        self.slab.close(force=True)

    def _image(self, nbytes: int, value: int, wait: float) -> Image:
        specs = lay_out({"data": ("uint8", (nbytes,))})
        lease = self.slab.allocate(block_bytes(specs), timeout_seconds=wait)
        lease.array(specs[0])[:] = value
        lease.seal()
        return Image(lease, specs, ImageMetadata("raw", nbytes, 1), backend="pattern")

    def _overwrite(self, descriptors: list[Descriptor], nbytes: int) -> None:
        for descriptor in descriptors:
            self.publisher.cancel(descriptor)
            with self._image(nbytes, 255, 5.0):  # best fit gives the block that just became free
                pass


def _text(descriptor: Descriptor) -> str:
    return base64.b64encode(descriptor.to_bytes()).decode()


def _commands() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


if __name__ == "__main__":
    peer = Peer(*sys.argv[1:4])
    print(json.dumps({"ready": True}), flush=True)
    for command in _commands():
        print(json.dumps(getattr(peer, command.pop("do"))(**command)), flush=True)
    peer.close()
