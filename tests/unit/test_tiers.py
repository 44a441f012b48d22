"""Tiers hold blocks byte for byte, in memory and in a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpuflow.errors import SpillError
from gpuflow.memory import FileTier, HostTier, Lease, Slab
from gpuflow.memory.tiers import Tier, TierFull

SIZES = [1, 255, 4095, 4096, 4097, 65_536, 65_537, 1_000_003, 3 << 20]


@pytest.fixture(params=["host", "file", "file, direct"])
def tier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tier]:
    made = HostTier("32MiB") if request.param == "host" else _file_tier(tmp_path, direct="direct" in request.param)
    yield made
    made.close()
    made.close()


@pytest.mark.parametrize("nbytes", SIZES)
def test_a_block_comes_back_byte_for_byte(slab: Slab, tier: Tier, nbytes: int) -> None:
    with _block(slab, nbytes, seed=nbytes) as block, slab.allocate(nbytes) as back:
        ticket = tier.put(block)
        tier.get(ticket, back)
        assert bytes(back.memory()) == bytes(block.memory())
        tier.drop(ticket)
        assert tier.free_bytes == tier.capacity_bytes


def test_many_blocks_do_not_touch_each_other(slab: Slab, tier: Tier) -> None:
    rng = np.random.default_rng(0)
    held = []
    for number in range(60):
        block = _block(slab, int(rng.integers(1, 600_000)), seed=number)
        held.append((block, tier.put(block)))
        if rng.random() < 0.4:
            dropped, ticket = held.pop(int(rng.integers(len(held))))
            tier.drop(ticket)
            dropped.release()
    for block, ticket in held:
        with slab.allocate(block.nbytes) as back:
            tier.get(ticket, back)
            assert bytes(back.memory()) == bytes(block.memory())
        block.release()
        tier.drop(ticket)


def test_a_full_tier_says_so_and_takes_blocks_again_when_one_is_dropped(slab: Slab, tier: Tier) -> None:
    with _block(slab, 20 << 20) as large:
        ticket = tier.put(large)
        with pytest.raises(TierFull):
            tier.put(large)
        tier.drop(ticket)
        tier.drop(tier.put(large))


def test_a_block_that_is_dropped_twice_frees_nothing_of_others(slab: Slab, tier: Tier) -> None:
    with _block(slab, 1000, seed=1) as first, _block(slab, 1000, seed=2) as second, slab.allocate(1000) as back:
        gone = tier.put(first)
        tier.drop(gone)
        held = tier.put(second)
        tier.drop(gone)
        again = tier.put(first)
        tier.get(held, back)
        assert bytes(back.memory()) == bytes(second.memory())
        with pytest.raises(SpillError, match="dropped"):
            tier.get(gone, back)
        tier.drop(held)
        tier.drop(again)
        assert tier.free_bytes == tier.capacity_bytes


def test_a_tier_says_which_blocks_it_would_take(slab: Slab, tier: Tier) -> None:
    with _block(slab, 32 << 20) as fits, _block(slab, (32 << 20) + 1) as too_large:
        assert tier.takes(fits)
        assert not tier.takes(too_large)


def test_a_block_that_is_too_small_is_not_restored_to(slab: Slab, tier: Tier) -> None:
    with _block(slab, 1000) as block, slab.allocate(999) as small:
        ticket = tier.put(block)
        with pytest.raises(ValueError, match="1000 bytes do not lie in a block of 999"):
            tier.get(ticket, small)
        tier.drop(ticket)


def test_the_file_has_no_name_and_is_its_owners_alone(tmp_path: Path) -> None:
    tier = FileTier(tmp_path, "1MiB")
    assert list(tmp_path.iterdir()) == []
    facts = os.fstat(tier.file)
    assert stat.S_IMODE(facts.st_mode) == 0o600
    assert facts.st_nlink == 0
    assert facts.st_blocks * 512 >= 1 << 20, "its room is not taken in advance"
    tier.close()


def test_direct_io_and_the_page_cache_hold_the_same_bytes(slab: Slab, tmp_path: Path) -> None:
    for direct in (False, True):
        tier = _file_tier(tmp_path, direct=direct)
        with _block(slab, 100_001) as block, slab.allocate(100_001) as back:
            ticket = tier.put(block)
            tier.get(ticket, back)
            assert bytes(back.memory()) == bytes(block.memory())
        tier.close()


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpillError, match="directory"):
        FileTier(tmp_path / "nowhere", "1MiB")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["host", "file"])
def test_a_block_on_a_gpu_goes_down_and_comes_back(kind: str, tmp_path: Path) -> None:
    tier = HostTier("64MiB") if kind == "host" else FileTier(tmp_path, "64MiB")
    with Slab("128MiB", device="cuda") as slab, Slab("64MiB") as host:
        from gpuflow.memory.copying import copy_block

        with _block(host, 20_000_003) as block, slab.allocate(block.nbytes) as up, slab.allocate(block.nbytes) as back:
            copy_block(block, up, block.nbytes)
            up.seal()
            tier.get(tier.put(up), back)
            with host.allocate(block.nbytes) as down:
                copy_block(back, down, block.nbytes)
                assert bytes(down.memory()) == bytes(block.memory())
    tier.close()


def _file_tier(folder: Path, *, direct: bool) -> FileTier:
    try:
        return FileTier(folder, "32MiB", direct=direct)
    except SpillError as error:
        if direct:
            pytest.skip(f"no O_DIRECT on this filesystem: {error}")
        raise


def _block(slab: Slab, nbytes: int, *, seed: int = 0) -> Lease:
    lease = slab.allocate(nbytes)
    lease.memory()[:] = np.random.default_rng(seed).bytes(nbytes)
    lease.seal()
    return lease
