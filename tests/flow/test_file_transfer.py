"""Media that go from process to process as files of a shared directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuflow.demo.digest import digests
from gpuflow.errors import Closed, InvalidDescriptor, PeerUnavailable, StaleDescriptor
from gpuflow.media import FeatureMetadata, Features, ImageMetadata, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Descriptor, FilePublisher, Reader
from tests.patterns import image_of

METADATA = ImageMetadata("raw", 70, 50)


@pytest.fixture(scope="module")
def source() -> Iterator[Slab]:
    with Slab("64MiB") as slab:
        yield slab
        assert slab.statistics().live_leases == 0


def test_a_file_is_read_by_as_many_as_were_expected_and_then_gone(tmp_path: Path, source: Slab) -> None:
    folder = tmp_path / "shared"
    with FilePublisher(folder) as publisher, Reader(slab_bytes="16MiB", device="cpu", directory=folder) as reader:
        assert folder.stat().st_mode & 0o777 == 0o700
        with _features(source) as features:
            raw = publisher.publish(features, reads=2, ttl_seconds=60.0).to_bytes()
            wanted = digests(features)
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
        descriptor = Descriptor.from_bytes(raw)
        for _ in range(2):
            with reader.read(descriptor) as got:
                assert digests(got) == wanted
        assert publisher.drain(timeout_seconds=5.0)
        assert publisher.statistics().acknowledged == 1
        assert list(folder.iterdir()) == []
        with pytest.raises(StaleDescriptor):
            reader.read(descriptor)
        assert reader.statistics().reads_by_transport["file"] == 2


def test_a_file_that_nobody_reads_is_removed_in_time_and_with_its_publisher(tmp_path: Path, source: Slab) -> None:
    with FilePublisher(tmp_path) as publisher, image_of(source) as image:
        publisher.publish(image, ttl_seconds=0.05)
        assert publisher.drain(timeout_seconds=5.0)
        assert list(tmp_path.iterdir()) == []
        kept = publisher.publish(image, reads=None, ttl_seconds=60.0)
        assert len(list(tmp_path.iterdir())) == 1
        assert publisher.renew(kept)
    assert list(tmp_path.iterdir()) == []
    with image_of(source) as image, pytest.raises(Closed):
        publisher.publish(image)


def test_a_damaged_foreign_or_linked_file_is_not_taken(tmp_path: Path, source: Slab) -> None:
    with (
        FilePublisher(tmp_path / "shared") as publisher,
        Reader(slab_bytes="16MiB", device="cpu", directory=tmp_path / "shared") as reader,
        image_of(source) as image,
    ):
        descriptor = publisher.publish(image, reads=None, ttl_seconds=60.0)
        path = tmp_path / "shared" / descriptor.file
        whole = path.read_bytes()
        secret = tmp_path / "secret"
        secret.write_bytes(whole)
        spoilt: list[Callable[[Path], object]] = [
            lambda path: path.write_bytes(whole[:-1] + b"\xff"),
            lambda path: path.write_bytes(whole[:100]),
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(whole + bytes(4 << 20)),
            lambda path: path.symlink_to(secret),
            os.mkfifo,
            os.mkdir,
        ]
        for spoil in spoilt:
            path.unlink()
            spoil(path)
            with pytest.raises((InvalidDescriptor, PeerUnavailable)):
                reader.read(descriptor)
        path.rmdir()
        assert reader.slab.statistics().live_leases == 0


def test_a_reader_without_a_directory_opens_no_file(tmp_path: Path, source: Slab) -> None:
    with (
        FilePublisher(tmp_path) as publisher,
        Reader(slab_bytes="1MiB", device="cpu", transports=("shm",)) as reader,
        image_of(source) as image,
    ):
        with pytest.raises(PeerUnavailable, match="directory"):
            reader.read(publisher.publish(image))
        with pytest.raises(ValueError, match="at most 64"):
            publisher.publish(image, reads=65)


def _features(slab: Slab) -> Features:
    specs = lay_out({"pixel_values": ("bfloat16", (64, 1176)), "image_grid_thw": ("int64", (1, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.tensor(specs[0])[:] = 0.5
    lease.array(specs[1])[:] = (1, 8, 8)
    lease.seal()
    return Features(lease, specs, FeatureMetadata("pattern", METADATA, None, 16), backend="pattern")
