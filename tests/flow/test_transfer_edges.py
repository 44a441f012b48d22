"""What readers and publishers owe each other at the edges: cancelled reads, late starts, forged answers, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from gpuflow.demo.digest import digests
from gpuflow.errors import LeaseExpired, PeerUnavailable, SlabExhausted, StaleDescriptor, TransferTimeout
from gpuflow.memory import Lease, Slab, TieredMemory
from gpuflow.memory.copying import copy_in
from gpuflow.transfer import FilePublisher, Peer, Publisher, Reader
from gpuflow.transfer.board import acknowledgement
from gpuflow.transfer.files import LEFT_SECONDS, Directory
from gpuflow.transfer.shm import MAX_STRANGERS, ShmConnection
from tests.patterns import image_of
from tests.waiting import wait_until


@pytest.fixture
def publisher(slab: Slab) -> Iterator[Publisher]:
    with Publisher(slab, transports=("inproc", "shm")) as publisher:
        yield publisher
        assert publisher.drain(timeout_seconds=10.0)


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader(slab_bytes="1MiB", device="cpu", transports=("shm",), threads=1) as reader:
        yield reader
        assert reader.slab.statistics().live_leases == 0


def test_a_cancelled_read_leaves_the_given_block_to_its_owner(slab: Slab, publisher: Publisher, reader: Reader) -> None:
    async def scenario() -> None:
        full, target = reader.slab.allocate(15 << 16), reader.slab.allocate(20_000)
        with image_of(slab) as image:
            descriptor = publisher.publish(image, reads=2, ttl_seconds=60.0)
            busy = asyncio.create_task(reader.aread(descriptor, timeout_seconds=60.0))
            await asyncio.to_thread(wait_until, lambda: reader.slab.statistics().waiting == 1)
            reading = asyncio.create_task(reader.aread(descriptor, into=target))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert (target.references, target.state) == (1, "quarantined")
            full.release()
            (await busy).release()
            await asyncio.to_thread(wait_until, lambda: target.state == "writing")
            with await reader.aread(descriptor, into=target) as got:
                assert digests(got) == digests(image)

    asyncio.run(scenario())


def test_a_block_that_was_released_or_is_quarantined_is_not_read_into(
    slab: Slab, publisher: Publisher, reader: Reader
) -> None:
    with image_of(slab) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        released, quarantined = reader.slab.allocate(20_000), reader.slab.allocate(20_000)
        released.release()
        quarantined.quarantine()
        for target in (released, quarantined):
            with pytest.raises(LeaseExpired):
                reader.read(descriptor, into=target)
        quarantined.release()
        publisher.cancel(descriptor)


def test_the_time_of_an_async_read_begins_when_it_is_asked_for(
    slab: Slab, publisher: Publisher, reader: Reader
) -> None:
    """One thread reads, and two reads find no room: the second does not begin to wait when the first has ended."""

    async def scenario() -> None:
        with reader.slab.allocate(1 << 20), image_of(slab) as image:
            descriptor = publisher.publish(image, ttl_seconds=60.0)
            started = time.monotonic()
            reads = [asyncio.create_task(reader.aread(descriptor, timeout_seconds=0.5)) for _ in range(4)]
            ended = await asyncio.gather(*reads, return_exceptions=True)
            assert {type(error) for error in ended} == {SlabExhausted}
            assert time.monotonic() - started < 1.5
            publisher.cancel(descriptor)

    asyncio.run(scenario())


def test_a_reader_asks_for_more_time_while_it_looks(slab: Slab, publisher: Publisher, reader: Reader) -> None:
    with image_of(slab) as image:
        descriptor = publisher.publish(image, ttl_seconds=1.0)
        started = time.monotonic()
        with reader.map(descriptor) as got:
            renewals = 0
            while (seconds := time.monotonic() - started) < 2.0:
                if seconds >= 0.2 * renewals:
                    assert reader.renew(descriptor)
                    renewals += 1
                assert digests(got) == digests(image)
    assert publisher.statistics().renewed > 0


def test_nobody_is_asked_for_more_time_of_a_file(slab: Slab, tmp_path: Path) -> None:
    with (
        FilePublisher(tmp_path) as publisher,
        Reader(slab_bytes="1MiB", device="cpu", transports=("shm",), directory=tmp_path) as reader,
        image_of(slab) as image,
        pytest.raises(PeerUnavailable, match="file"),
    ):
        reader.renew(publisher.publish(image))


def test_a_medium_that_is_only_looked_at_is_neither_published_nor_kept(
    slab: Slab, publisher: Publisher, reader: Reader
) -> None:
    with image_of(slab) as image, reader.map(publisher.publish(image, ttl_seconds=60.0)) as got:
        with pytest.raises(ValueError, match=r"read\(\) it"):
            publisher.publish(got)
        with TieredMemory(slab) as memory, pytest.raises(ValueError, match="sealed medium of this slab"):
            memory.keep(got)


def test_a_reader_that_was_not_set_up_for_a_publisher_does_not_blame_it(
    slab: Slab, tmp_path: Path, publisher: Publisher
) -> None:
    with FilePublisher(tmp_path) as files, image_of(slab) as image:
        unmapped = msgspec.structs.replace(publisher.peer, shm=b"", secret=b"")
        elsewhere = msgspec.structs.replace(publisher.publish(image), peer=unmapped)
        with Reader(slab_bytes="1MiB", device="cpu", transports=("shm",)) as reader:
            for descriptor, says in ((files.publish(image), "no directory"), (elsewhere, "may use")):
                for _ in range(5):
                    with pytest.raises(PeerUnavailable, match=says):
                        reader.read(descriptor)
            assert (reader.statistics().failures, reader.statistics().refused) == (0, 0)
        publisher.cancel(elsewhere)


def test_an_acknowledgement_that_comes_twice_frees_nothing_for_the_other_reader(
    slab: Slab, publisher: Publisher, reader: Reader
) -> None:
    with image_of(slab) as image:
        descriptor = publisher.publish(image, reads=2, ttl_seconds=60.0)
        message = acknowledgement(descriptor.token)
        for _ in range(3):
            publisher.acknowledge(message)
        assert publisher.statistics().duplicate_acknowledgements == 2
    with reader.read(descriptor) as got:
        assert got.shape == (70, 70, 3)


def test_when_nothing_is_on_offer_any_more_every_block_has_been_given_back(slab: Slab, publisher: Publisher) -> None:
    for _ in range(200):
        with image_of(slab, side=10) as image:
            descriptor = publisher.publish(image, ttl_seconds=60.0)
        ending = threading.Thread(target=publisher.acknowledge, args=(descriptor.token,))
        ending.start()
        assert publisher.drain(timeout_seconds=10.0)
        assert slab.statistics().live_leases == 0
        ending.join()


def test_a_reader_that_began_in_time_may_end_a_little_late(slab: Slab, publisher: Publisher) -> None:
    with image_of(slab) as image:
        started = time.monotonic()
        publisher.publish(image, ttl_seconds=0.01)
        wait_until(lambda: publisher.statistics().open == 0)
        assert 0.25 <= time.monotonic() - started < 5.0


def test_a_block_that_is_recycled_while_it_is_copied_is_stale(
    slab: Slab, publisher: Publisher, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of(slab, seed=1)
    descriptor = publisher.publish(image, ttl_seconds=60.0)

    def copy_while_it_is_recycled(source: int, target: Lease, nbytes: int) -> None:
        publisher.cancel(descriptor)
        image.release()
        with image_of(slab, seed=2) as other:
            assert other.lease.address == image.lease.address
            copy_in(source, target, nbytes)

    monkeypatch.setattr("gpuflow.transfer.shm_reads.copy_in", copy_while_it_is_recycled)
    with pytest.raises(StaleDescriptor):
        reader.read(descriptor)
    assert reader.statistics().stale == 1


def test_silent_strangers_do_not_keep_readers_out(slab: Slab, publisher: Publisher, reader: Reader) -> None:
    strangers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2 * MAX_STRANGERS)]
    try:
        for stranger in strangers:
            stranger.connect(b"\0" + publisher.peer.shm)
        with image_of(slab) as image, reader.read(publisher.publish(image), timeout_seconds=30.0) as got:
            assert digests(got) == digests(image)
    finally:
        for stranger in strangers:
            stranger.close()


@pytest.mark.parametrize("served", [False, True])
def test_a_queue_that_is_full_is_waited_for(served: bool) -> None:
    name = b"gpuflow-00000000000000fe"
    listener, first = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
    with listener, first:
        listener.bind(b"\0" + name)
        listener.listen(0)  # which has room for one
        first.connect(b"\0" + name)

        def serve() -> None:
            listener.accept()[0].close()
            connection = listener.accept()[0]  # who waited
            with connection:
                assert connection.recv(64) == b"secret"

        with ThreadPoolExecutor(1) as pool:
            serving = pool.submit(serve) if served else None
            with pytest.raises(PeerUnavailable if served else TransferTimeout):  # who serves it hangs up
                ShmConnection(name, b"secret", timeout_seconds=10.0 if served else 0.1)
            if serving is not None:
                serving.result()


FORGED_REGIONS = {
    "no list": 5,
    "a region of three": [[1, 2, 3]],
    "no bytes": [[4096, 0, 8192, 64]],
    "fewer than no bytes": [[4096, -1, 8192, 64]],
    "a table of odd size": [[4096, 4096, 8192, 63]],
    "a table below zero": [[4096, 4096, 8192, -8]],
    "more than an address space": [[4096, 1 << 62, 8192, 64]],
    "an address below zero": [[-4096, 4096, 8192, 64]],
    "a number beyond 64 bits": [[4096, (1 << 64) - 1, 8192, 64]],
    "more than was sent": [[4096, 1 << 40, 8192, 64]],
    "text for numbers": [["a", "b", "c", "d"]],
}


@pytest.mark.parametrize("regions", FORGED_REGIONS.values(), ids=FORGED_REGIONS)
def test_a_publisher_that_lies_about_its_memory_is_unavailable(
    slab: Slab, publisher: Publisher, reader: Reader, regions: object
) -> None:
    name, files = b"gpuflow-00000000000000ff", [os.memfd_create("lie"), os.memfd_create("lie")]
    for file in files:
        os.ftruncate(file, 1 << 20)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, image_of(slab) as image:
        listener.bind(b"\0" + name)
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(256)
                socket.send_fds(connection, [msgspec.msgpack.encode(regions)], files)

        lying = threading.Thread(target=answer)
        lying.start()
        forged = Peer("gpuflow/forged", shm=name, secret=b"s" * 16)
        descriptor = msgspec.structs.replace(publisher.publish(image), peer=forged)
        with pytest.raises(PeerUnavailable):
            reader.read(descriptor)
        lying.join()
        publisher.acknowledge(descriptor.token)
    for file in files:
        os.close(file)


def test_a_publisher_closes_although_a_child_holds_its_sockets(slab: Slab) -> None:
    publisher = Publisher(slab, transports=("shm",))
    assert publisher._shm is not None
    held = os.dup(publisher._shm._waker.fileno())  # as a child holds it that was forked by a library in C
    try:
        started = time.monotonic()
        publisher.close()
        assert time.monotonic() - started < 5.0
    finally:
        os.close(held)


def test_a_child_forked_while_the_publisher_is_busy_is_told_so() -> None:
    script = """
import os, signal, threading, warnings
from gpuflow.errors import Closed
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher
from tests.patterns import image_of
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
slab = Slab("1MiB")
publisher = Publisher(slab, transports=("inproc", "shm"))
image = image_of(slab)
descriptor = publisher.publish(image, ttl_seconds=60.0)
held, forked = threading.Event(), threading.Event()

def hold():
    with publisher._board._lock:
        held.set()
        forked.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    for use in (
        lambda: publisher.renew(descriptor),
        lambda: publisher.cancel(descriptor),
        lambda: publisher.drain(timeout_seconds=1.0),
    ):
        try:
            use()
        except Closed as error:
            assert "fork" in str(error)
        else:
            os._exit(3)
    publisher.close()
    os._exit(0)
forked.set()
thread.join()
print(os.waitpid(child, 0)[1], publisher.statistics().open)
publisher.close()
image.release()
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=root
    )
    assert done.stdout == "0 1\n", done.stderr


def test_two_readers_of_a_file_at_once_are_both_heard(slab: Slab, tmp_path: Path) -> None:
    with FilePublisher(tmp_path) as publisher, image_of(slab) as image:
        descriptor = publisher.publish(image, reads=2, ttl_seconds=60.0)
        directories = [Directory(tmp_path), Directory(tmp_path)]
        for directory in directories:  # both have read the first name before either takes it away
            directory._take(descriptor, 0)
            directory.close()
        wait_until(lambda: publisher.statistics().open == 0)
        assert publisher.statistics().acknowledged == 1
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_publisher_left_is_removed_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    ours = [f"{'0a' * 16}.safetensors", f"3.{'0b' * 16}.safetensors", f".{'0c' * 16}.safetensors.partial"]
    foreign = ["model.safetensors", f"{'0d' * 16}.bin", f"{'0E' * 16}.safetensors"]
    for name in [*ours, *foreign]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, time.time() - LEFT_SECONDS - 1))
    fresh = tmp_path / f"{'0f' * 16}.safetensors"
    fresh.touch()
    with FilePublisher(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {*foreign, fresh.name}


def test_what_was_never_closed_is_collected_with_a_warning_and_gives_its_blocks_back(slab: Slab) -> None:
    threads = threading.active_count()
    publisher = Publisher(slab, transports=("inproc", "shm"))
    with image_of(slab) as image:
        publisher.publish(image)
    with pytest.warns(ResourceWarning, match="a Publisher was never closed"):
        del publisher
        gc.collect()
    reader = Reader(slab_bytes="1MiB", device="cpu", transports=("shm",))
    with pytest.warns(ResourceWarning, match="a Reader was never closed"):
        del reader
        gc.collect()
    wait_until(lambda: threading.active_count() == threads)
    assert slab.statistics().live_leases == 0
