"""Publish here, read in another process, over NIXL and UCX: every byte, and what becomes of the block."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuflow.demo.digest import digests
from gpuflow.errors import (
    Closed,
    InvalidDescriptor,
    LeaseExpired,
    PeerUnavailable,
    SlabClosed,
    StaleDescriptor,
)
from gpuflow.media import FeatureMetadata, Features, Image, ImageMetadata, Media, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Descriptor, Publisher, Reader
from gpuflow.transfer.transports import TRANSPORTS, Transport
from tests.patterns import image_of
from tests.waiting import wait_until

METADATA = ImageMetadata("raw", 700, 500)


@pytest.fixture(scope="module")
def shared_slab() -> Iterator[Slab]:
    with Slab("64MiB") as slab:
        yield slab


@pytest.fixture(scope="module")
def publisher(shared_slab: Slab) -> Iterator[Publisher]:
    with Publisher(shared_slab) as publisher:
        yield publisher


@pytest.fixture(scope="module", params=TRANSPORTS)
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    with Reader(slab_bytes="64MiB", device="cpu", transports=(request.param,)) as reader:
        yield reader


@pytest.fixture(autouse=True)
def nothing_stays_leased(shared_slab: Slab, publisher: Publisher) -> Iterator[None]:
    yield
    assert publisher.drain(timeout_seconds=10.0)
    assert shared_slab.statistics().live_leases == 0


def test_a_second_process_reads_every_byte_and_the_block_is_freed_on_its_acknowledgement(
    shared_slab: Slab, publisher: Publisher
) -> None:
    image, features = image_of(shared_slab, seed=1, side=600), _features(shared_slab)
    wanted = [digests(image), digests(features)]
    offers = [publisher.publish(m, reads=2, ttl_seconds=60.0) for m in (image, features)]
    lines = [base64.b64encode(offer.to_bytes()) for offer in offers]
    image.release()
    features.release()
    assert shared_slab.statistics().live_leases == 2
    done = subprocess.run(
        [sys.executable, "-m", "gpuflow.demo.reader", "shm", "nixl"],
        input=b"\n".join(lines),
        capture_output=True,
        timeout=60,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    for way in range(2):
        assert [answer[way].get("digests", answer) for answer in answers] == wanted
    assert publisher.drain(timeout_seconds=5.0)
    assert shared_slab.statistics().live_leases == 0


def test_what_is_read_is_the_same_kind_of_media_with_its_metadata(
    shared_slab: Slab, publisher: Publisher, reader: Reader
) -> None:
    with _features(shared_slab) as features:
        descriptor = Descriptor.from_bytes(publisher.publish(features).to_bytes())
        with reader.read(descriptor) as got:
            assert isinstance(got, Features)
            assert got.metadata == features.metadata
            assert got.backend == "pattern"
            assert {name: got[name].tolist() for name in got} == {name: features[name].tolist() for name in features}


def test_two_reads_need_two_acknowledgements(shared_slab: Slab, publisher: Publisher, reader: Reader) -> None:
    image = image_of(shared_slab, side=600)
    descriptor = publisher.publish(image, reads=2, ttl_seconds=60.0)
    image.release()
    reader.read(descriptor).release()
    assert not publisher.drain(timeout_seconds=0.05)
    reader.read(descriptor).release()
    assert publisher.drain(timeout_seconds=5.0)


def test_a_block_that_nobody_reads_is_freed_when_its_time_is_over(shared_slab: Slab, publisher: Publisher) -> None:
    image = image_of(shared_slab, side=600)
    before = publisher.statistics().expired
    publisher.publish(image, ttl_seconds=0.05)
    image.release()
    assert publisher.drain(timeout_seconds=5.0)
    assert publisher.statistics().expired == before + 1
    assert shared_slab.statistics().live_leases == 0


def test_a_recycled_block_is_stale_and_nothing_of_it_is_kept(
    shared_slab: Slab, publisher: Publisher, reader: Reader
) -> None:
    image = image_of(shared_slab, side=600)
    descriptor = publisher.publish(image)
    image.release()
    assert publisher.cancel(descriptor)
    assert not publisher.cancel(descriptor)
    with image_of(shared_slab, seed=9, side=600), pytest.raises(StaleDescriptor):
        reader.read(descriptor)
    assert reader.slab.statistics().live_leases == 0


def test_a_foreign_token_frees_nothing(shared_slab: Slab, publisher: Publisher, reader: Reader) -> None:
    with image_of(shared_slab, side=600) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        forged = msgspec.structs.replace(descriptor, token=b"x" * 16)
        before = publisher.statistics().unknown_messages
        if "inproc" in reader.transports:
            with pytest.raises(StaleDescriptor):
                reader.read(forged)
        else:
            reader.read(forged).release()
            wait_until(lambda: publisher.statistics().unknown_messages == before + 1)
        assert publisher.statistics().open == 1
        reader.read(descriptor).release()
        assert publisher.drain(timeout_seconds=5.0)


def test_many_reads_at_once_on_an_event_loop_are_all_right(
    shared_slab: Slab, publisher: Publisher, reader: Reader
) -> None:
    images = [image_of(shared_slab, seed=seed, side=600) for seed in range(8)]

    async def read_all() -> list[Media]:
        return await asyncio.gather(*(reader.aread(publisher.publish(image)) for image in images))

    for image, got in zip(images, asyncio.run(read_all()), strict=True):
        assert digests(got) == digests(image)
        got.release()
        image.release()
    assert reader.slab.statistics().live_leases == 0


def test_a_cancelled_read_gives_its_block_back(shared_slab: Slab, publisher: Publisher) -> None:
    with Reader(slab_bytes="16MiB", device="cpu") as reader, image_of(shared_slab, side=600) as image:
        descriptor = publisher.publish(image)

        async def cancel() -> None:
            task = asyncio.ensure_future(reader.aread(descriptor))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())
        reader.close()
        assert reader.slab.statistics().live_leases == 0


@pytest.mark.parametrize("way", ["shm", "nixl"])
def test_a_publisher_that_was_killed_is_noticed_within_a_second(way: Transport) -> None:
    script = Path(__file__).with_name("publishing_process.py")
    command = [sys.executable, str(script), "2"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        Reader(slab_bytes="16MiB", device="cpu", transports=(way,)) as reader,
    ):
        assert process.stdout is not None
        descriptor = Descriptor.from_bytes(base64.b64decode(process.stdout.readline()))
        with reader.read(descriptor, timeout_seconds=20.0) as image:
            wanted = np.random.default_rng(5).integers(0, 256, (500, 700, 3), np.uint8)
            assert np.array_equal(image.numpy(), wanted)
        process.kill()
        process.wait()
        started = time.monotonic()
        with pytest.raises(PeerUnavailable):
            reader.read(descriptor, timeout_seconds=20.0)
        assert time.monotonic() - started < 1.0
        assert reader.slab.statistics().live_leases == 0


def test_idle_agents_do_not_spin() -> None:
    """NIXL's own setting takes a core an agent; a tenth of one for two is generous."""
    with Slab("1MiB") as slab, Publisher(slab), Reader(slab_bytes="1MiB", device="cpu"):
        wall, used = time.monotonic(), time.process_time()
        threading.Event().wait(1.0)
        assert time.process_time() - used < 0.1 * (time.monotonic() - wall)


def test_media_of_another_slab_cannot_be_published(publisher: Publisher, slab: Slab) -> None:
    with image_of(slab, side=600) as image, pytest.raises(ValueError, match="another slab"):
        publisher.publish(image)


def test_released_media_cannot_be_published(shared_slab: Slab, publisher: Publisher) -> None:
    image = image_of(shared_slab, side=600)
    image.release()
    with pytest.raises(LeaseExpired):
        publisher.publish(image)


def test_unsealed_media_cannot_be_published(shared_slab: Slab, publisher: Publisher) -> None:
    specs = lay_out({"data": ("uint8", (4,))})
    with (
        Image(shared_slab.allocate(4), specs, METADATA, backend="x") as image,
        pytest.raises(ValueError, match="sealed"),
    ):
        publisher.publish(image)


@pytest.mark.parametrize("arguments", [{"reads": 0}, {"ttl_seconds": 0.0}, {"ttl_seconds": 301.0}])
def test_publishing_for_no_reader_or_for_ever_is_refused(
    shared_slab: Slab, publisher: Publisher, arguments: dict[str, float]
) -> None:
    with (
        image_of(shared_slab, side=600) as image,
        pytest.raises(ValueError, match=r"reads is 1 or more|ttl_seconds lies in"),
    ):
        publisher.publish(image, **arguments)  # type: ignore[arg-type]


def test_a_closed_publisher_withdraws_everything_and_refuses_more(slab: Slab) -> None:
    publisher = Publisher(slab)
    with image_of(slab, side=600) as image:
        publisher.publish(image, ttl_seconds=60.0)
        publisher.close()
        publisher.close()
        with pytest.raises(Closed):
            publisher.publish(image)


def test_a_slab_that_is_closed_before_its_publisher_stays_readable_and_takes_no_more() -> None:
    """Unmapping memory that a peer still reads kills the publishing process over TCP."""
    slab = Slab("16MiB")
    image = image_of(slab, seed=3, side=600)
    with Publisher(slab) as publisher, Reader(slab_bytes="16MiB", device="cpu") as reader:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        wanted = digests(image)
        slab.close(force=True)
        with reader.read(descriptor) as got:
            assert digests(got) == wanted
        assert publisher.drain(timeout_seconds=5.0)
    image.release()
    for take in (Publisher, lambda slab: Reader(slab=slab)):
        with pytest.raises(SlabClosed):
            take(slab)


def test_wrong_metadata_for_a_known_agent_does_not_lose_the_agent(
    shared_slab: Slab, publisher: Publisher, reader: Reader
) -> None:
    with image_of(shared_slab, side=600) as image:
        descriptor = publisher.publish(image, reads=2, ttl_seconds=60.0)
        reader.read(descriptor).release()
        for metadata in (descriptor.agent_metadata[:-4], b"x" * 40):
            forged = msgspec.structs.replace(descriptor, peer=msgspec.structs.replace(publisher.peer, nixl=metadata))
            if reader.transports == {"nixl"}:
                with pytest.raises(InvalidDescriptor):
                    reader.read(forged)
        reader.read(descriptor).release()


@pytest.mark.parametrize("wrong", [None, b"raw"])
def test_a_reader_wants_a_descriptor_and_a_real_timeout(reader: Reader, publisher: Publisher, wrong: Any) -> None:
    with pytest.raises(InvalidDescriptor, match=r"Descriptor\.from_bytes"):
        reader.read(wrong)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_is_above_zero_and_finite(
    shared_slab: Slab, publisher: Publisher, reader: Reader, seconds: float
) -> None:
    with image_of(shared_slab, side=600) as image:
        descriptor = publisher.publish(image, ttl_seconds=60.0)
        with pytest.raises(ValueError, match="timeout_seconds"):
            reader.read(descriptor, timeout_seconds=seconds)
        reader.read(descriptor).release()


def test_a_closed_reader_says_so(shared_slab: Slab, publisher: Publisher) -> None:
    with image_of(shared_slab, side=600) as image:
        descriptor = publisher.publish(image)
        reader = Reader(slab_bytes="16MiB", device="cpu")
        reader.close()
        with pytest.raises(Closed):
            reader.read(descriptor)
        with pytest.raises(Closed):
            asyncio.run(reader.aread(descriptor))
        publisher.cancel(descriptor)


@pytest.mark.gpu
def test_a_block_in_gpu_memory_is_read_into_gpu_memory() -> None:
    with Slab("64MiB", device="cuda") as slab, Publisher(slab) as publisher, Reader(device="cuda") as reader:
        specs = lay_out({"data": ("float32", (1000, 1000))})
        lease = slab.allocate(block_bytes(specs))
        lease.array(specs[0])[:] = 3
        lease.seal()
        with Image(lease, specs, METADATA, backend="x") as image, reader.read(publisher.publish(image)) as got:
            assert got.device.startswith("cuda")
            assert float(got.tensor.sum()) == 3e6


def _features(slab: Slab) -> Features:
    specs = lay_out({"pixel_values": ("float32", (64, 1176)), "image_grid_thw": ("int64", (1, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.array(specs[0])[:] = np.random.default_rng(2).normal(size=(64, 1176))
    lease.array(specs[1])[:] = (1, 8, 8)
    lease.seal()
    return Features(lease, specs, FeatureMetadata("pattern", METADATA, None, 16), backend="pattern")
