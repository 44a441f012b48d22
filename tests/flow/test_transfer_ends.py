"""How publishers, readers and agents begin and end: pickles, forks, names, threads, descriptors."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading

import pytest

from gpuflow.media import Image
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher, Reader
from tests.patterns import image_of


def test_publishers_and_readers_refuse_pickling_and_forked_children(source: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="1MiB", device="cpu", transports=("shm",)) as reader:
        for part in (publisher, reader):
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(part)
    script = """
import os, warnings
from gpuflow.errors import Closed
from gpuflow.media import Image, ImageMetadata, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher, Reader
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
with Slab("1MiB") as slab, Publisher(slab) as publisher, Reader(slab_bytes="1MiB", device="cpu") as reader:
    specs = lay_out({"data": ("uint8", (8,))})
    lease = slab.allocate(8)
    lease.array(specs[0])[:] = 5
    lease.seal()
    image = Image(lease, specs, ImageMetadata("raw", 8, 1), backend="x")
    descriptor = publisher.publish(image, reads=2, ttl_seconds=60.0)
    reader.read(descriptor).release()
    child = os.fork()
    if child == 0:
        for use in (lambda: publisher.publish(image), lambda: reader.read(descriptor)):
            try:
                use()
            except Closed as error:
                assert "fork" in str(error)
            else:
                os._exit(3)
        publisher.close()
        reader.close()
        image.release()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    reader.read(descriptor).release()
    image.release()
    assert publisher.drain(timeout_seconds=5.0)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_what_is_registered_never_changes_and_no_name_comes_twice(source: Slab, publisher: Publisher) -> None:
    before = publisher._agent.metadata()
    for seed in range(5):
        with image_of(source, seed=seed) as image:
            publisher.cancel(publisher.publish(image))
    assert publisher._agent.metadata() == before == publisher.peer.nixl
    names = set()
    for _ in range(5):
        with Publisher(source, transports=("inproc",)) as other:
            names.add(other.peer.agent)
    assert len(names) == 5


class EventThatIsWaitedFor:
    """Stands for a CUDA event: this tests only that a publisher waits for it, not that CUDA's do as said."""

    done = False

    def record(self) -> EventThatIsWaitedFor:
        return self

    def synchronize(self) -> None:
        self.done = True


def test_wiring_only_a_descriptor_is_given_out_after_the_work_on_its_block(source: Slab, publisher: Publisher) -> None:
    async def scenario(image: Image) -> None:
        image.lease.record_stream(event)
        publisher.cancel(await publisher.apublish(image))

    with image_of(source) as image:
        for run in (lambda: publisher.cancel(publisher.publish(image)), lambda: asyncio.run(scenario(image))):
            event = EventThatIsWaitedFor()
            image.lease.record_stream(event)
            run()
            assert event.done


def test_readers_and_publishers_leave_no_thread_descriptor_or_socket_behind(source: Slab) -> None:
    def once() -> None:
        with (
            Publisher(source, transports=("inproc", "shm")) as publisher,
            Reader(slab_bytes="1MiB", device="cpu", transports=("shm",)) as reader,
            image_of(source) as image,
        ):
            reader.read(publisher.publish(image)).release()

    once()
    gc.collect()  # what earlier tests left is not ours
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        once()
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= files


def test_nixl_agents_leave_no_thread_or_descriptor_behind(source: Slab) -> None:
    def once() -> None:
        with (
            Publisher(source, transports=("nixl",)) as publisher,
            Reader(slab_bytes="1MiB", device="cpu", transports=("nixl",)) as reader,
            image_of(source) as image,
        ):
            reader.read(publisher.publish(image), timeout_seconds=20.0).release()

    once()
    gc.collect()
    threads, files = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        once()
    assert len(os.listdir("/proc/self/task")) <= threads
    assert len(os.listdir("/proc/self/fd")) <= files
