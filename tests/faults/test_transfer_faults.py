"""Two real processes, and everything that can happen to one of them: killed, stopped, silent, restarted, closed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from gpuflow.errors import (
    GpuflowError,
    PeerUnavailable,
    StaleDescriptor,
    TransferTimeout,
)
from gpuflow.media import Image, ImageMetadata, TensorSpec, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher, Reader
from tests.faults.peers import decoded, encoded, expect, peer_process, transport
from tests.waiting import wait_until

MIB = 1 << 20


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Slab("640MiB") as slab, Publisher(slab) as publisher:
        yield publisher
        assert slab.statistics().live_leases == 0


def test_bytes_of_every_size_arrive_and_each_block_is_freed(way: str, reader: Reader) -> None:
    with peer_process(way) as peer:
        for value, nbytes in enumerate((1, 255, 4097, MIB, 20 * MIB + 13)):
            with reader.read(peer.publish(nbytes, value), timeout_seconds=20.0) as got:
                expect(got, nbytes, value)
        wait_until(lambda: peer.ask("statistics")["live"] == 0)
        assert peer.ask("statistics")["acknowledged"] == 5


def test_a_publisher_killed_before_a_read_is_noticed_within_a_second(way: str, reader: Reader) -> None:
    with peer_process(way) as peer:
        reader.read(peer.publish(1000, 1), timeout_seconds=20.0).release()
        descriptor = peer.publish(1000, 2)
        peer.kill()
        started = time.monotonic()
        with pytest.raises(PeerUnavailable):
            reader.read(descriptor, timeout_seconds=20.0)
        assert time.monotonic() - started < 1.0


def test_a_publisher_killed_during_a_read_shows_no_partial_bytes(way: str, reader: Reader) -> None:
    with peer_process(way, slab_bytes="600MiB") as peer:
        reader.read(peer.publish(1000, 1), timeout_seconds=20.0).release()
        descriptor = peer.publish(500 * MIB, 7)
        killing = threading.Thread(target=peer.kill)
        killing.start()
        try:
            with reader.read(descriptor, timeout_seconds=20.0) as got:
                expect(got, 500 * MIB, 7)
        except (PeerUnavailable, TransferTimeout):
            pass
        killing.join()
        wait_until(lambda: reader.statistics().quarantined == 0)


def test_a_publisher_killed_after_a_read_leaves_the_reader_its_bytes(way: str, reader: Reader) -> None:
    with peer_process(way) as peer, reader.read(peer.publish(MIB, 9), timeout_seconds=20.0) as got:
        peer.kill()
        expect(got, MIB, 9)


def test_a_reader_killed_during_a_read_costs_the_publisher_one_lifetime(way: str, publisher: Publisher) -> None:
    with peer_process(way) as peer:
        assert peer.ask("read", descriptor=_publish(publisher, 1000, 1))["values"] == [1]
        text = _publish(publisher, 500 * MIB, 3, ttl=1.0)
        started = time.monotonic()
        peer.send("read", descriptor=text)
        peer.kill()
        assert publisher.drain(timeout_seconds=10.0)
        assert time.monotonic() - started < 1.0 + 0.25 + 1.0
        wait_until(lambda: publisher.slab.statistics().live_leases == 0)


def test_a_stopped_publisher_is_read_or_given_up_in_time_and_never_half_read(way: str, reader: Reader) -> None:
    """Mapped memory needs nothing of the publisher, TCP needs its thread; NIXL's one-host copy sometimes does."""
    with peer_process(way) as peer:
        reader.read(peer.publish(1000, 1), timeout_seconds=20.0).release()
        descriptor = peer.publish(MIB, 5)
        peer.stop()
        started = time.monotonic()
        try:
            with reader.read(descriptor, timeout_seconds=0.5) as got:
                expect(got, MIB, 5)
                assert way != "tcp"
        except TransferTimeout:
            assert way != "shm"
            assert 0.5 <= time.monotonic() - started < 1.5
        peer.go_on()
        wait_until(lambda: reader.statistics().quarantined == 0)
        with reader.read(peer.publish(MIB, 6), timeout_seconds=20.0) as got:
            expect(got, MIB, 6)


def test_a_stopped_publisher_that_was_never_met_times_out(way: str, reader: Reader) -> None:
    with peer_process(way) as peer:
        descriptor = peer.publish(1000, 1)
        peer.stop()
        started = time.monotonic()
        with pytest.raises((TransferTimeout, PeerUnavailable)):
            reader.read(descriptor, timeout_seconds=1.0)
        assert time.monotonic() - started < 4.0
        peer.go_on()
        wait_until(lambda: reader.statistics().quarantined == 0)


def test_bytes_of_a_timed_out_read_that_come_later_hit_nobody_elses_block() -> None:
    nbytes = 64 * MIB
    with (
        peer_process("tcp", slab_bytes="128MiB") as peer,
        Reader(slab_bytes="192MiB", device="cpu", transports=("nixl",)) as reader,
    ):
        reader.read(peer.publish(1000, 1), timeout_seconds=20.0).release()
        descriptor = peer.publish(nbytes, 0xAB)
        peer.stop()
        with pytest.raises(TransferTimeout):
            reader.read(descriptor, timeout_seconds=0.3)
        found = reader.statistics()
        assert (found.quarantined, found.quarantined_bytes) == (1, nbytes)
        assert reader.slab.statistics().quarantined_bytes == nbytes
        rest = reader.slab.allocate(128 * MIB)
        poison = rest.array(TensorSpec("all", "uint8", (128 * MIB,)))
        poison[:] = 0x55
        peer.go_on()
        wait_until(lambda: reader.statistics().quarantined == 0)
        assert (poison == 0x55).all()
        rest.release()
        assert reader.slab.statistics().live_leases == 0


def test_a_timed_out_read_into_a_given_block_keeps_it_from_its_owner_until_it_ended() -> None:
    with (
        peer_process("tcp") as peer,
        Reader(slab_bytes="64MiB", device="cpu", transports=("nixl",)) as reader,
    ):
        reader.read(peer.publish(1000, 1), timeout_seconds=20.0).release()
        descriptor = peer.publish(20 * MIB, 3)
        target = reader.slab.allocate(20 * MIB)
        peer.stop()
        with pytest.raises(TransferTimeout):
            reader.read(descriptor, into=target, timeout_seconds=0.3)
        with pytest.raises(GpuflowError, match="timed out"):
            target.memory()
        assert target.state == "quarantined"
        peer.go_on()
        wait_until(lambda: reader.statistics().quarantined == 0)
        assert target.state == "writing"
        assert target.memory().nbytes == 20 * MIB
        target.release()


def test_readers_that_never_come_cost_one_lifetime_and_no_memory() -> None:
    with peer_process("shm", slab_bytes="256MiB") as peer:
        first = peer.ask("publish_unread", count=50, nbytes=20_000_000, ttl=0.02)
        last = peer.ask("publish_unread", count=450, nbytes=20_000_000, ttl=0.02)
        assert last["rss"] - first["rss"] < 16 * MIB
        wait_until(lambda: peer.ask("statistics")["live"] == 0)
        assert peer.ask("statistics")["expired"] == 500


def test_a_restarted_publisher_is_another_one(way: str, reader: Reader) -> None:
    with peer_process(way) as first:
        reader.read(first.publish(1000, 1), timeout_seconds=20.0).release()
        old = first.publish(1000, 2)
        first.kill()
        with peer_process(way) as second:
            with reader.read(second.publish(1000, 3), timeout_seconds=20.0) as got:
                expect(got, 1000, 3)
            with pytest.raises(PeerUnavailable):
                reader.read(old)
            with reader.read(second.publish(1000, 4)) as got:
                expect(got, 1000, 4)


@pytest.mark.parametrize("flags", [["--pid"], ["--ipc"], ["--pid", "--ipc"], ["--user"]], ids=" ".join)
@pytest.mark.parametrize("over", ["shm", "nixl"])
def test_a_reader_in_other_namespaces_reads_the_same_bytes(over: str, flags: list[str], publisher: Publisher) -> None:
    prefix = ["unshare", *flags, "--fork"]
    _require(prefix)
    with peer_process(over, prefix=prefix) as peer:
        for value in (1, 2):
            answer = peer.ask("read", descriptor=_publish(publisher, 4 * MIB, value), timeout=30.0)
            assert answer == {"values": [value], "nbytes": 4 * MIB}
    assert publisher.drain(timeout_seconds=5.0)
    assert publisher.statistics().acknowledged == 2


def test_a_reader_in_another_network_namespace_is_told_in_time(publisher: Publisher) -> None:
    prefix = ["unshare", "--net"]
    _require(prefix)
    with peer_process("shm", prefix=prefix, read_over="shm,nixl") as peer:
        text, started = _publish(publisher, 1000, 1, ttl=1.0), time.monotonic()
        answer = peer.ask("read", descriptor=text, timeout=10.0)
        assert answer["error"] in ("BackendUnavailable", "PeerUnavailable", "TransferTimeout")
        assert time.monotonic() - started < 12.0
    assert publisher.drain(timeout_seconds=5.0)


def test_a_killed_publisher_is_noticed_although_a_forked_child_of_it_lives_on() -> None:
    command = [sys.executable, "-c", _FORKING_PUBLISHER]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        Reader(slab_bytes="1MiB", device="cpu", transports=("shm",)) as reader,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        descriptor = decoded(process.stdout.readline().strip())
        reader.read(descriptor).release()
        process.stdin.write("fork\n")
        process.stdin.flush()
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        started = time.monotonic()
        try:
            with pytest.raises(PeerUnavailable):
                reader.read(descriptor)
            assert time.monotonic() - started < 1.0
        finally:
            os.kill(child, signal.SIGKILL)


def test_closing_either_side_under_load_breaks_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CLOSE_UNDER_LOAD], capture_output=True, timeout=120, check=False, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "ended"


def test_eight_threads_publish_read_and_withdraw_and_every_byte_is_right(way: str) -> None:
    wrong: list[object] = []
    if way == "tcp":
        pytest.skip("one process: the same code over TCP as over the one-host copy")
    with (
        Slab("64MiB") as slab,
        Publisher(slab) as publisher,
        Reader(slab_bytes="64MiB", device="cpu", transports=(transport(way),)) as reader,
    ):

        def work(mark: int) -> None:
            rng = random.Random(mark)
            for _ in range(40):
                nbytes = rng.randrange(1, 2 * MIB)
                descriptor = decoded(_publish(publisher, nbytes, mark))
                if rng.random() < 0.2:
                    publisher.cancel(descriptor)
                try:
                    with reader.read(descriptor, timeout_seconds=30.0) as got:
                        if not (got.numpy() == mark).all():
                            wrong.append(mark)
                except StaleDescriptor:
                    pass
                except Exception as error:  # noqa: BLE001 - shown by the assertion below
                    wrong.append(error)

        threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert publisher.drain(timeout_seconds=10.0)
        assert slab.statistics().live_leases == reader.slab.statistics().live_leases == 0


_FORKING_PUBLISHER = """
import base64, os, signal, warnings
from gpuflow.media import Image, ImageMetadata, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
slab = Slab("1MiB")
publisher = Publisher(slab)
lease = slab.allocate(8)
lease.seal()
image = Image(lease, lay_out({"data": ("uint8", (8,))}), ImageMetadata("raw", 8, 1), backend="x")
text = base64.b64encode(publisher.publish(image, reads=None, ttl_seconds=60.0).to_bytes()).decode()
print(text, flush=True)
input()
if os.fork() == 0:
    print(os.getpid(), flush=True)  # once it has given up what it inherited
signal.pause()
"""


_CLOSE_UNDER_LOAD = """
import threading
from gpuflow.errors import GpuflowError
from gpuflow.media import Image, ImageMetadata, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher, Reader

def round(way, closes_first):
    slab = Slab("64MiB")
    publisher = Publisher(slab)
    reader = Reader(slab_bytes="64MiB", device="cpu", transports=(way,))
    specs = lay_out({"data": ("uint8", (1 << 20,))})
    started = threading.Barrier(5)
    unexpected = []

    def work():
        started.wait()
        try:
            while True:
                lease = slab.allocate(1 << 20, timeout_seconds=5.0)
                lease.array(specs[0])[:] = 7
                lease.seal()
                with Image(lease, specs, ImageMetadata("raw", 1, 1), backend="x") as image:
                    descriptor = publisher.publish(image, ttl_seconds=5.0)
                with reader.read(descriptor, timeout_seconds=5.0) as got:
                    if not (got.numpy() == 7).all():
                        unexpected.append("wrong bytes")
        except GpuflowError:
            pass
        except BaseException as error:
            unexpected.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    threading.Event().wait(0.2)
    parts = {"slab": lambda: slab.close(force=True), "publisher": publisher.close, "reader": reader.close}
    for name in [closes_first, *(other for other in parts if other != closes_first)]:
        parts[name]()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not unexpected, unexpected

for way in ("inproc", "shm", "nixl"):
    for first in ("slab", "publisher", "reader"):
        round(way, first)
print("ended")
"""


def _publish(publisher: Publisher, nbytes: int, value: int, *, ttl: float = 60.0) -> str:
    specs = lay_out({"data": ("uint8", (nbytes,))})
    lease = publisher.slab.allocate(block_bytes(specs), timeout_seconds=30.0)
    lease.array(specs[0])[:] = np.uint8(value)
    lease.seal()
    with Image(lease, specs, ImageMetadata("raw", nbytes, 1), backend="pattern") as image:
        return encoded(publisher.publish(image, ttl_seconds=ttl))


def _require(prefix: list[str]) -> None:
    if shutil.which(prefix[0]) is None:
        pytest.skip("unshare is not installed")
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False, text=True)
    if tried.returncode:
        pytest.skip(f"namespaces cannot be made here: {tried.stderr.strip()}")
