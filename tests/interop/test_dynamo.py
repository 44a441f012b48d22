"""Dynamo's own readers, in another process, read blocks of our slab through the forms that our descriptors give."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuflow.media import FeatureMetadata, Features, Image, ImageMetadata, Media, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Publisher
from gpuflow.transfer.dynamo import content_hash

Ask = Callable[[str, Any, int], dict[str, Any]]

METADATA = ImageMetadata("raw", 700, 500)
DEADLINE_SECONDS = 90.0
MEDIA_TTL_SECONDS = 3.0


def _absent() -> str | None:
    for name in ("ai-dynamo-runtime", "ai-dynamo", "nixl"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return f"{name} is not installed: uv run --group dynamo pytest -m dynamo"
    return None


pytestmark = [pytest.mark.dynamo, pytest.mark.skipif(_absent() is not None, reason=_absent() or "")]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """Over a slab whose first block is taken, so that no address is the slab's own."""
    with Slab("16MiB") as slab, slab.allocate(1000), Publisher(slab) as publisher:
        yield publisher


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Gives one form to the reading process and takes its answer."""
    command = [sys.executable, str(Path(__file__).with_name("dynamo_process.py"))]
    environment = {**os.environ, "NIXL_LOG_LEVEL": "WARN", "DYN_LOG": "error"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            assert _line(process) == b"ready\n"
            yield lambda how, form, nbytes: _ask(process, {"how": how, "form": form, "nbytes": nbytes})
        finally:
            process.kill()


def test_begin_read_reads_every_byte_and_frees_the_block_at_once(publisher: Publisher, ask: Ask) -> None:
    image = _image(publisher.slab)
    wanted = _sha256(image)
    descriptor = publisher.publish(image, ttl_seconds=300.0)
    image.release()
    got = ask("rdma", descriptor.to_dynamo_rdma(), 500 * 700 * 3)
    assert got["sha256"] == wanted
    _assert_freed_early(publisher)


def test_begin_read_reads_one_tensor_of_several(publisher: Publisher, ask: Ask) -> None:
    features = _features(publisher.slab)
    descriptor = publisher.publish(features, ttl_seconds=300.0)
    features.release()
    got = ask("rdma", descriptor.to_dynamo_rdma("image_grid_thw"), 24)
    assert got["sha256"] == hashlib.sha256(np.array([1, 24, 24], "<i8").tobytes()).hexdigest()
    _assert_freed_early(publisher)


def test_the_embedding_receiver_reads_bfloat16_and_frees_the_block_at_once(publisher: Publisher, ask: Ask) -> None:
    features = _features(publisher.slab)
    wanted = _sha256(features)
    descriptor = publisher.publish(features, ttl_seconds=300.0)
    features.release()
    got = ask("embeddings", descriptor.to_transfer_request(), 0)
    assert got == {"shape": [576, 1024], "dtype": "bfloat16", "sha256": wanted}
    _assert_freed_early(publisher)


def test_a_backends_media_reader_reads_pixels_and_the_block_is_freed_when_its_time_is_over(
    publisher: Publisher, ask: Ask
) -> None:
    image = _image(publisher.slab)
    wanted, key = _sha256(image), content_hash(image)
    descriptor = publisher.publish(image, ttl_seconds=MEDIA_TTL_SECONDS)
    image.release()
    got = ask("media", descriptor.to_dynamo_media(key), 0)
    assert got == {"shape": [500, 700, 3], "dtype": "uint8", "sha256": wanted}
    assert publisher.drain(timeout_seconds=10.0)
    statistics = publisher.statistics()
    assert (statistics.acknowledged, statistics.expired) == (0, 1)
    assert statistics.unknown_messages <= 1  # the reader's own key; 0 if it came after the expiry


def _assert_freed_early(publisher: Publisher) -> None:
    assert publisher.drain(timeout_seconds=10.0)
    statistics = publisher.statistics()
    assert (statistics.acknowledged, statistics.expired, statistics.unknown_messages) == (1, 0, 0)
    assert publisher.slab.statistics().live_leases == 1  # the block that the fixture took


def _ask(process: subprocess.Popen[bytes], request: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    answer: dict[str, Any] = json.loads(_line(process))
    return answer


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], DEADLINE_SECONDS)
    assert ready, f"Dynamo's process said nothing for {DEADLINE_SECONDS:g} s"
    return process.stdout.readline()


def _sha256(media: Media) -> str:
    spec = media.specs[0]
    start = media.lease.offset + spec.offset
    return hashlib.sha256(media.lease.slab.backing.buffer(start, spec.nbytes)).hexdigest()


def _image(slab: Slab) -> Image:
    specs = lay_out({"data": ("uint8", (500, 700, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.array(specs[0])[:] = np.random.default_rng(1).integers(0, 256, (500, 700, 3), np.uint8)
    lease.seal()
    return Image(lease, specs, METADATA, backend="pattern")


def _features(slab: Slab) -> Features:
    import torch

    specs = lay_out({"pixel_values": ("bfloat16", (576, 1024)), "image_grid_thw": ("int64", (1, 3))})
    lease = slab.allocate(block_bytes(specs))
    lease.tensor(specs[0])[:] = torch.from_numpy(np.random.default_rng(2).normal(size=(576, 1024)))
    lease.array(specs[1])[:] = (1, 24, 24)
    lease.seal()
    return Features(lease, specs, FeatureMetadata("pattern", METADATA, None, 576), backend="pattern")
