"""Blocks that NIXL moves to a file and back; POSIX here, GPUDirect Storage on a GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpuflow.errors import BackendUnavailable, SpillError
from gpuflow.memory import HostTier, Lease, Slab, TieredMemory
from gpuflow.memory.checksum import word_checksum
from gpuflow.memory.copying import copy_block
from gpuflow.memory.tiers import TierFull
from gpuflow.transfer.nixl_tier import NixlFileTier


@pytest.fixture
def tier(slab: Slab, tmp_path: Path) -> Iterator[NixlFileTier]:
    tier = NixlFileTier(slab, tmp_path, "32MiB", backend="POSIX")
    yield tier
    tier.close()
    tier.close()


@pytest.mark.parametrize("nbytes", [1, 4095, 4097, 65_537, 1_000_003, 20 << 20])
def test_a_block_comes_back_byte_for_byte(slab: Slab, tier: NixlFileTier, nbytes: int) -> None:
    with _block(slab, nbytes) as block, slab.allocate(nbytes) as back:
        ticket = tier.put(block)
        tier.get(ticket, back)
        assert bytes(back.memory()) == bytes(block.memory())
        assert os.pread(tier.file, nbytes, ticket.place) == bytes(block.memory())
        tier.drop(ticket)
        assert tier.free_bytes == tier.capacity_bytes


def test_a_full_file_a_short_file_and_a_flipped_bit_are_errors(slab: Slab, tier: NixlFileTier) -> None:
    with _block(slab, 20 << 20) as block, slab.allocate(20 << 20) as back:
        ticket = tier.put(block)
        with pytest.raises(TierFull):
            tier.put(block)
        byte = os.pread(tier.file, 1, 777)[0]
        os.pwrite(tier.file, bytes([byte ^ 1]), 777)
        with pytest.raises(SpillError, match="checksum"):
            tier.get(ticket, back)
        os.ftruncate(tier.file, 1 << 20)
        with pytest.raises(SpillError):
            tier.get(ticket, back)
        tier.drop(ticket)


@pytest.mark.parametrize("direction", ["put", "get"])
def test_a_move_that_takes_too_long_keeps_its_block_until_it_has_ended(
    slab: Slab, tier: NixlFileTier, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _block(slab, 20 << 20) as block, slab.allocate(20 << 20) as back:
        ticket = tier.put(block) if direction == "get" else None
        with monkeypatch.context() as changed:
            changed.setattr("gpuflow.transfer.nixl_tier.MOVE_SECONDS", 0.0)
            with pytest.raises(SpillError, match="did not move a block in 0 s"):
                tier.get(ticket, back) if ticket is not None else tier.put(block)
        held = back if direction == "get" else block
        assert held.references == 2
        deadline = time.monotonic() + 10.0
        while not tier._all_ended():
            assert time.monotonic() < deadline
        assert held.references == 1
        ticket = ticket or tier.put(block)
        tier.get(ticket, back)
        assert bytes(back.memory()) == bytes(block.memory())
        tier.drop(ticket)


def test_a_block_of_another_slab_is_refused(slab: Slab, tier: NixlFileTier) -> None:
    with Slab("1MiB") as other, _block(other, 100) as block:
        assert not tier.takes(block)
        with pytest.raises(SpillError, match="made for"):
            tier.put(block)


def test_it_is_a_tier_like_any_other(slab: Slab, tier: NixlFileTier) -> None:
    with TieredMemory(slab, [tier, HostTier("1MiB")]) as memory:
        assert memory.statistics().bytes == {"slab": 0, "nixl-file": 0, "host": 0}


def test_a_backend_that_does_not_start_says_which(slab: Slab, tmp_path: Path) -> None:
    try:
        NixlFileTier(slab, tmp_path, "1MiB", backend="GDS_MT").close()
    except BackendUnavailable as error:
        assert "GDS_MT" in str(error)  # noqa: PT017 - where there is a GPU it may start
    assert list(tmp_path.iterdir()) == []
    assert slab.statistics().live_leases == 0
    assert slab._holds == 0, "a tier that was not made keeps the slab mapped"


@pytest.mark.parametrize("nbytes", [0, 1, 7, 8, 9, 4096, 17_000_001])
def test_the_checksum_on_a_device_is_the_sum_that_it_says(nbytes: int) -> None:
    data = np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8)
    words = [int.from_bytes(data[at : at + 8].tobytes(), "little") for at in range(0, nbytes // 8 * 8 + 1, 8)]
    wanted = sum((word + i) * (i * 0x9E3779B97F4A7C15 | 1) for i, word in enumerate(words)) % 2**64
    assert word_checksum(data, np) == wanted
    for at in range(0, nbytes, max(1, nbytes // 5)):
        data[at] ^= 4
        assert word_checksum(data, np) != wanted
        data[at] ^= 4


@pytest.mark.gpu
def test_a_block_on_a_gpu_goes_to_the_file_and_comes_back(tmp_path: Path) -> None:
    with Slab("128MiB", device="cuda") as slab, Slab("64MiB") as host:
        try:
            tier = NixlFileTier(slab, tmp_path, "64MiB", backend="GDS_MT")
        except BackendUnavailable as error:
            pytest.skip(str(error))
        with _block(host, 20_000_003) as block, slab.allocate(block.nbytes) as up, slab.allocate(block.nbytes) as back:
            copy_block(block, up, block.nbytes)
            up.seal()
            tier.get(tier.put(up), back)
            with host.allocate(block.nbytes) as down:
                copy_block(back, down, block.nbytes)
                assert bytes(down.memory()) == bytes(block.memory())
        tier.close()


def _block(slab: Slab, nbytes: int) -> Lease:
    lease = slab.allocate(nbytes)
    lease.memory()[:] = np.random.default_rng(nbytes).bytes(nbytes)
    lease.seal()
    return lease
