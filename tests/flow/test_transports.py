"""What readers and publishers can do beyond a plain read: targets, compact descriptors, views, files, time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
from blockbuster import blockbuster_ctx

from gpuflow.demo.digest import digests
from gpuflow.errors import (
    Closed,
    InvalidDescriptor,
    LeaseExpired,
    PeerUnavailable,
    SlabExhausted,
    StaleDescriptor,
)
from gpuflow.media import FeatureMetadata, Features, ImageMetadata, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.observe import exposition
from gpuflow.transfer import Descriptor, Peer, Publisher, Reader
from gpuflow.transfer.transports import TRANSPORTS
from tests.patterns import image_of
from tests.waiting import wait_until

METADATA = ImageMetadata("raw", 70, 50)


@pytest.fixture(scope="module", params=TRANSPORTS)
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    with Reader(slab_bytes="64MiB", device="cpu", transports=(request.param,)) as reader:
        yield reader
        assert reader.slab.statistics().live_leases == 0


@pytest.fixture(autouse=True)
def nothing_stays_published(publisher: Publisher) -> Iterator[None]:
    yield
    assert publisher.drain(timeout_seconds=10.0)


def test_a_medium_is_read_into_a_block_that_the_caller_gives(
    source: Slab, publisher: Publisher, reader: Reader
) -> None:
    with image_of(source) as image:
        target = reader.slab.allocate(image.lease.nbytes + 1000)
        with reader.read(publisher.publish(image), into=target) as got:
            assert got.lease is target
            assert digests(got) == digests(image)
        assert target.released


def test_a_failed_read_leaves_the_given_block_to_its_owner(source: Slab, publisher: Publisher, reader: Reader) -> None:
    with image_of(source) as image:
        descriptor = publisher.publish(image)
        publisher.cancel(descriptor)
        with reader.slab.allocate(image.lease.nbytes) as target:
            with pytest.raises(StaleDescriptor):
                reader.read(descriptor, into=target)
            assert target.references == 1
            assert not target.sealed


def test_a_block_that_is_too_small_sealed_or_of_another_slab_is_refused(
    source: Slab, publisher: Publisher, reader: Reader, slab: Slab
) -> None:
    with image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        small, sealed, foreign = reader.slab.allocate(5), reader.slab.allocate(20_000), slab.allocate(20_000)
        sealed.seal()
        for target in (small, sealed, foreign):
            with pytest.raises(ValueError, match="unsealed block of this reader's slab"):
                reader.read(descriptor, into=target)
            target.release()
        assert publisher.cancel(descriptor)


def test_a_publisher_in_the_same_process_shares_its_block_without_a_copy(source: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="1MiB", device="cpu") as reader, image_of(source) as image:
        with reader.read(publisher.publish(image)) as got:
            assert got.lease.address == image.lease.address
            assert reader.slab.statistics().leased_bytes == 0
        assert publisher.drain(timeout_seconds=5.0)
        assert reader.statistics().reads_by_transport["inproc"] == 1


def test_the_shortest_way_is_taken_and_counted(source: Slab, publisher: Publisher, reader: Reader) -> None:
    (way,) = reader.transports
    before = reader.statistics()
    with image_of(source) as image, reader.read(publisher.publish(image)) as got:
        assert digests(got) == digests(image)
    after = reader.statistics()
    assert after.reads_by_transport[way] == before.reads_by_transport[way] + 1
    assert after.reads == before.reads + 1
    assert after.read_bytes == before.read_bytes + image.lease.nbytes
    assert f'gpuflow_reads_total{{transport="{way}"}} {after.reads_by_transport[way]}' in exposition(after.metrics())


def test_a_compact_descriptor_is_read_by_who_knows_the_publisher(source: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="16MiB", device="cpu", transports=("shm",)) as reader, image_of(source) as image:
        descriptor = publisher.publish(image, reads=2, ttl_seconds=60.0)
        raw = descriptor.to_bytes(compact=True)
        assert len(raw) < len(descriptor.to_bytes()) - 200
        with pytest.raises(InvalidDescriptor, match="add_peer"):
            reader.read(Descriptor.from_bytes(raw))
        reader.add_peer(Peer.from_bytes(publisher.peer.to_bytes()))
        with reader.read(Descriptor.from_bytes(raw)) as got:
            assert digests(got) == digests(image)
        with reader.read(descriptor):
            pass
        assert publisher.drain(timeout_seconds=5.0)


def test_any_number_of_readers_may_come_until_the_time_is_over(
    source: Slab, publisher: Publisher, reader: Reader
) -> None:
    with image_of(source) as image:
        descriptor = publisher.publish(image, reads=None, ttl_seconds=60.0)
        for _ in range(5):
            reader.read(descriptor).release()
        assert publisher.statistics().open == 1
        assert publisher.cancel(descriptor)
        with pytest.raises(StaleDescriptor):
            reader.read(descriptor)


def test_a_withdrawn_medium_is_stale_although_its_owner_still_holds_it(
    source: Slab, publisher: Publisher, reader: Reader
) -> None:
    with image_of(source) as image:
        withdrawn = publisher.publish(image, ttl_seconds=60.0)
        publisher.cancel(withdrawn)
        with pytest.raises(StaleDescriptor):
            reader.read(withdrawn)
        with reader.read(publisher.publish(image)) as got:
            assert digests(got) == digests(image)


def test_a_renewed_publication_lives_on(source: Slab, publisher: Publisher, reader: Reader) -> None:
    with image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=0.05)
        assert publisher.renew(descriptor, ttl_seconds=60.0)
        other = publisher.publish(image, ttl_seconds=0.05)
        wait_until(lambda: publisher.statistics().open == 1)
        assert not publisher.renew(other)
        reader.read(descriptor).release()
        assert publisher.drain(timeout_seconds=5.0)


def test_late_duplicate_and_unknown_acknowledgements_are_told_apart_and_free_nothing(source: Slab) -> None:
    with Publisher(source, transports=("inproc",)) as publisher, image_of(source) as image, image_of(source) as other:
        read, expired = publisher.publish(image), publisher.publish(image, ttl_seconds=0.01)
        publisher.acknowledge(read.token)
        wait_until(lambda: publisher.statistics().open == 0)
        standing = publisher.publish(other, ttl_seconds=60.0)
        for token in (read.token, expired.token, b"x" * 16, b"", b"x" * 500):
            publisher.acknowledge(token)
        found = publisher.statistics()
        assert (found.acknowledged, found.expired, found.open) == (1, 1, 1)
        odd = (found.duplicate_acknowledgements, found.late_acknowledgements, found.unknown_messages)
        assert odd == (1, 1, 3)
        publisher.cancel(standing)


def test_a_reader_asks_for_more_time_with_a_plus_before_its_token(source: Slab) -> None:
    with Publisher(source, transports=("inproc",)) as publisher, image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        publisher.acknowledge(b"+" + descriptor.token)
        assert publisher.statistics().renewed == 1
        assert publisher.statistics().open == 1
        publisher.cancel(descriptor)


def test_a_mapped_view_is_read_only_the_same_bytes_and_acknowledged_at_the_end(
    source: Slab, publisher: Publisher
) -> None:
    with Reader(slab_bytes="1MiB", device="cpu") as reader, _features(source) as features:
        descriptor = publisher.publish(features, ttl_seconds=60.0)
        with reader.map(descriptor) as seen:
            assert digests(seen) == digests(features)
            assert isinstance(seen, Features)
            assert not seen.numpy().flags.writeable
            assert publisher.statistics().open == 1
        with pytest.raises(LeaseExpired):
            seen.numpy()
        assert publisher.drain(timeout_seconds=5.0)
        assert reader.slab.statistics().allocations == 0


def test_a_block_that_is_recycled_while_it_is_looked_at_is_noticed(source: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="1MiB", device="cpu") as reader, image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        with pytest.raises(StaleDescriptor), reader.map(descriptor):
            publisher.cancel(descriptor)
        with pytest.raises(StaleDescriptor), reader.map(descriptor):
            raise AssertionError("it must not be entered")
        assert reader.statistics().stale == 2


def test_nothing_is_mapped_that_may_only_go_over_nixl(source: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="1MiB", device="cpu", transports=("nixl",)) as reader, image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        with pytest.raises(PeerUnavailable, match="mapped"), reader.map(descriptor):
            raise AssertionError("it must not be entered")
        publisher.cancel(descriptor)


def test_a_forged_block_outside_the_publishers_memory_is_not_read(
    source: Slab, publisher: Publisher, reader: Reader
) -> None:
    with image_of(source) as image:
        good = publisher.publish(image, ttl_seconds=60.0)
        forged = {
            "address": (4096, 1 << 62),
            "table_address": (4096, 1 << 62),
        }
        for field, values in forged.items():
            for value in values if "inproc" not in reader.transports else ():
                with pytest.raises(InvalidDescriptor):
                    reader.read(msgspec.structs.replace(good, **{field: value}))
        assert reader.statistics().reconnects == reader.statistics().refused == 0, "the publisher is not to blame"
        with Reader(slab_bytes="1MiB", device="cpu", transports=tuple(reader.transports)) as fresh:
            fresh.read(good).release()
        assert publisher.drain(timeout_seconds=5.0)


def test_where_memory_cannot_be_mapped_nixl_is_taken(source: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="1MiB", device="cpu", transports=("shm", "nixl")) as reader, image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        elsewhere = msgspec.structs.replace(publisher.peer, shm=b"gpuflow-0000000000000000")
        with reader.read(msgspec.structs.replace(descriptor, peer=elsewhere), timeout_seconds=20.0) as got:
            assert digests(got) == digests(image)
        assert reader.statistics().reads_by_transport["nixl"] == 1


def test_a_forged_way_to_a_publisher_does_not_replace_the_true_one(source: Slab, publisher: Publisher) -> None:
    with (
        Publisher(source, transports=("shm",)) as attacker,
        Reader(slab_bytes="1MiB", device="cpu", transports=("shm",)) as reader,
        image_of(source, seed=1) as image,
        image_of(source, seed=2) as other,
    ):
        good, bad = publisher.publish(image, ttl_seconds=60.0), attacker.publish(other, ttl_seconds=60.0)
        lies = msgspec.structs.replace(attacker.peer, agent=publisher.peer.agent)
        reader.read(msgspec.structs.replace(bad, peer=lies)).release()
        nowhere = msgspec.structs.replace(publisher.peer, shm=b"gpuflow-0000000000000000")
        for _ in range(5):
            with pytest.raises(PeerUnavailable):
                reader.read(msgspec.structs.replace(good, peer=nowhere))
        with reader.read(good) as got:
            assert digests(got) == digests(image)
        assert attacker.statistics().acknowledged == 1


def test_a_wrong_secret_opens_nothing(source: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="1MiB", device="cpu", transports=("shm",)) as reader, image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        stranger = msgspec.structs.replace(publisher.peer, secret=b"\0" * 16)
        with pytest.raises(PeerUnavailable):
            reader.read(msgspec.structs.replace(descriptor, peer=stranger))
        publisher.cancel(descriptor)


def test_several_slabs_have_one_publisher(slab: Slab) -> None:
    with Slab("16MiB") as second, Publisher(slab, second) as publisher:
        for way in ("shm", "nixl"):
            with Reader(slab_bytes="16MiB", device="cpu", transports=(way,)) as reader:
                for home in (slab, second):
                    with image_of(home, seed=3) as image, reader.read(publisher.publish(image)) as got:
                        assert digests(got) == digests(image)


def test_publishing_and_reading_never_block_the_event_loop(source: Slab, publisher: Publisher) -> None:
    async def scenario(reader: Reader) -> None:
        image = image_of(source, side=2000)
        for _ in range(3):
            with await reader.aread(await publisher.apublish(image)) as got:
                assert got.shape == image.shape
        image.release()
        assert await publisher.adrain(timeout_seconds=5.0)
        await reader.aclose()

    reader = Reader(slab_bytes="64MiB", device="cpu", transports=("shm",))
    with blockbuster_ctx():
        asyncio.run(scenario(reader))


def test_a_reader_whose_slab_is_full_says_so_and_the_block_can_be_read_later(
    source: Slab, publisher: Publisher
) -> None:
    with Reader(slab_bytes="64KiB", device="cpu", transports=("shm",)) as reader, image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        with reader.slab.allocate(1), pytest.raises(SlabExhausted):
            reader.read(descriptor, timeout_seconds=0.05)
        reader.read(descriptor).release()


def test_closing_a_reader_ends_the_reads_that_wait(source: Slab, publisher: Publisher) -> None:
    reader, image, failed = Reader(slab_bytes="64KiB", device="cpu", transports=("shm",)), image_of(source), []
    descriptor = publisher.publish(image, ttl_seconds=60.0)
    held = reader.slab.allocate(1)

    def read() -> None:
        try:
            reader.read(descriptor, timeout_seconds=60.0)
        except Closed as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: reader.slab.statistics().waiting == 1)
    started = time.monotonic()
    reader.close()
    thread.join()
    assert time.monotonic() - started < 5.0
    assert len(failed) == 1
    held.release()
    image.release()
    publisher.cancel(descriptor)


def test_after_three_failures_a_dead_publisher_is_refused_at_once(source: Slab) -> None:
    with Publisher(source, transports=("shm",)) as publisher, image_of(source) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
    with Reader(slab_bytes="1MiB", device="cpu") as reader:
        for _ in range(5):
            started = time.monotonic()
            with pytest.raises(PeerUnavailable):
                reader.read(descriptor)
            assert time.monotonic() - started < 1.0
        assert reader.statistics().refused == 2


def test_a_peer_that_nixl_forgot_for_good_is_reached_with_a_new_agent(source: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="16MiB", device="cpu", transports=("nixl",)) as reader, image_of(source) as image:
        reader.read(publisher.publish(image)).release()
        nixl = reader._routes._nixl
        assert nixl is not None
        import zlib

        agent, raw = nixl._agent._agent, zlib.decompress(publisher.peer.nixl)
        with pytest.raises(Exception, match="NIXL"):
            agent.add_remote_agent(raw[:-20])
        with reader.read(publisher.publish(image)) as got:
            assert digests(got) == digests(image)
        assert reader.statistics().rebuilt_agents == 1
        reader.read(publisher.publish(image)).release()
        assert reader.statistics().rebuilt_agents == 1


def test_transports_that_do_not_exist_are_refused(source: Slab) -> None:
    for wanted in ((), ("tcp",), ("shm", "pigeon")):
        with pytest.raises(ValueError, match="transports are some of inproc, shm, nixl"):
            Publisher(source, transports=wanted)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="transports"):
            Reader(transports=wanted)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 to 8 slabs"):
        Publisher()


def test_without_nixl_transfer_on_one_host_still_works() -> None:
    script = """
import sys
sys.modules["nixl_cu13"] = None
from gpuflow.errors import BackendUnavailable
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher, Reader
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "nixl_cu13" else real(name, *rest)
with Slab("1MiB") as slab, Publisher(slab) as publisher:
    assert publisher.transports == {"inproc", "shm"}, publisher.transports
    try:
        Publisher(slab, transports=("nixl",))
    except BackendUnavailable as error:
        assert "pip install" in str(error)
    else:
        sys.exit(3)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def _features(slab: Slab) -> Features:
    specs = lay_out({"pixel_values": ("bfloat16", (64, 1176)), "image_grid_thw": ("int64", (1, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.tensor(specs[0])[:] = 0.5
    lease.array(specs[1])[:] = (1, 8, 8)
    lease.seal()
    return Features(lease, specs, FeatureMetadata("pattern", METADATA, None, 16), backend="pattern")
