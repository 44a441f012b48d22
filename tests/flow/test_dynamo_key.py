"""The text key that Dynamo's readers send back frees exactly the block that it names."""

from __future__ import annotations

import pytest

from gpuflow.media import Image, ImageMetadata, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Descriptor, Publisher
from gpuflow.transfer.dynamo import notification_key
from gpuflow.transfer.nixl import Agent


def test_only_the_key_of_the_very_slot_and_generation_frees_a_block() -> None:
    with Slab("1MiB") as slab, Publisher(slab) as publisher:
        descriptor = _publish(publisher)
        key = notification_key(descriptor)
        head, slot, generation, token = key.split(":")
        peer = Agent("reader")
        told = ((int(slot) + 1, int(generation)), (int(slot), int(generation) + 2))
        _tell(
            peer,
            publisher,
            descriptor,
            *(f"{head}:{slot}:{count}:{token}".encode() for slot, count in told),
            key.encode(),
        )
        statistics = publisher.statistics()
        assert (statistics.acknowledged, statistics.unknown_messages) == (1, 2)
        assert slab.statistics().live_leases == 0
        peer.close()


@pytest.mark.parametrize("message", [b"", b"gf1:0:2:", b"\xff" * 16, b"3b1c5c1e-8f3e-4a5e-9d0a-0c3c1f8b7a6d"])
def test_other_messages_are_counted_and_free_nothing(message: bytes) -> None:
    with Slab("1MiB") as slab, Publisher(slab) as publisher:
        descriptor = _publish(publisher, reads=2)
        peer = Agent("reader")
        _tell(peer, publisher, descriptor, message, descriptor.token, notification_key(descriptor).encode())
        assert publisher.statistics().unknown_messages == 1
        peer.close()


def _tell(peer: Agent, publisher: Publisher, descriptor: Descriptor, *messages: bytes) -> None:
    """Until they arrive: of several hundred first contacts over NIXL one brings nothing, for which ``Reader`` connects
    anew too."""
    for _ in range(3):
        peer.connect(descriptor.agent, descriptor.agent_metadata)
        for message in messages:
            peer.notify(descriptor.agent, message)
        if publisher.drain(timeout_seconds=5.0):
            return
        peer.forget(descriptor.agent)
    pytest.fail("no message arrived")


def _publish(publisher: Publisher, *, reads: int = 1) -> Descriptor:
    specs = lay_out({"data": ("uint8", (4, 5, 3))})
    lease = publisher.slab.allocate(block_bytes(specs))
    lease.array(specs[0])[:] = 9
    lease.seal()
    with Image(lease, specs, ImageMetadata("raw", 5, 4), backend="pattern") as image:
        return publisher.publish(image, reads=reads, ttl_seconds=60.0)
