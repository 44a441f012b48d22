"""What a reader or a publisher is handed need not be true: what is forged, damaged or stale reads and frees nothing."""

from __future__ import annotations

import random
import zlib

import msgspec
import pytest

from gpuflow.errors import (
    InvalidDescriptor,
    PeerUnavailable,
    StaleDescriptor,
    TransferTimeout,
)
from gpuflow.transfer import Descriptor, Peer, Reader
from tests.faults.peers import decoded, expect, peer_process
from tests.waiting import wait_until

MIB = 1 << 20


def test_forged_and_repeated_acknowledgements_free_nothing(way: str, reader: Reader) -> None:
    with peer_process(way) as peer:
        standing = peer.publish(1000, 1, reads=2)
        for _ in range(3):
            forged = msgspec.structs.replace(standing, token=b"\0" * 16)
            reader.read(forged, timeout_seconds=20.0).release()
        wait_until(lambda: peer.ask("statistics")["unknown"] == 3)
        assert peer.ask("statistics")["live"] == 1
        for _ in range(2):
            reader.read(standing).release()
        wait_until(lambda: peer.ask("statistics")["live"] == 0)


def test_a_recycled_block_is_never_taken_for_the_one_that_was_published(way: str, reader: Reader) -> None:
    nbytes, batches, each = (4 * MIB, 12, 8) if way != "tcp" else (MIB, 4, 8)
    fresh = stale = 0
    with peer_process(way, slab_bytes="48MiB") as peer:
        for batch in range(batches):
            texts = peer.ask("churn_batch", count=each, nbytes=nbytes, first_value=batch * each)["descriptors"]
            for position, text in enumerate(texts):
                try:
                    with reader.read(decoded(text), timeout_seconds=20.0) as got:
                        expect(got, nbytes, (batch * each + position) % 255)
                        fresh += 1
                except StaleDescriptor:
                    stale += 1
    assert fresh + stale == batches * each
    assert stale > 0
    assert reader.statistics().stale == stale


def test_none_of_a_thousand_damaged_descriptors_reaches_a_transport(way: str, reader: Reader) -> None:
    rng = random.Random(5)
    with peer_process(way) as peer:
        descriptor = peer.publish(1000, 1)
        raw = descriptor.to_bytes()
        for _ in range(1000):
            damaged = bytearray(raw)
            kind = rng.randrange(3)
            if kind == 0:
                damaged[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del damaged[rng.randrange(len(raw)) :]
            else:
                damaged += rng.randbytes(rng.randrange(1, 70_000))
            with pytest.raises(InvalidDescriptor):
                Descriptor.from_bytes(bytes(damaged))
        assert reader.statistics().peers == 0
        with reader.read(descriptor, timeout_seconds=20.0) as got:
            expect(got, 1000, 1)
        assert reader.statistics().rebuilt_agents == 0


def test_forged_publishers_are_refused_and_the_true_one_is_still_read(way: str, reader: Reader) -> None:
    rng = random.Random(6)
    with peer_process(way) as peer:
        good = peer.publish(1000, 1, reads=2)
        reader.read(good, timeout_seconds=20.0).release()
        metadata = zlib.decompress(good.agent_metadata) if good.agent_metadata else b"x" * 300
        for number in range(12):
            damaged = bytearray(metadata)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            blob = zlib.compress(bytes(damaged if number % 2 else damaged[: rng.randrange(len(damaged))]))
            stranger = Peer(f"gpuflow/stranger/{number}", blob, b"gpuflow-%016x" % number, b"s" * 16)
            with pytest.raises((InvalidDescriptor, PeerUnavailable, TransferTimeout)):
                reader.read(msgspec.structs.replace(good, peer=stranger), timeout_seconds=2.0)
        with reader.read(good, timeout_seconds=20.0) as got:
            expect(got, 1000, 1)
