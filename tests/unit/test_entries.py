"""Entries of a tiered memory: pinned, dropped and moved at once, and always with their bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpuflow.errors import SlabExhausted
from gpuflow.media import Media
from gpuflow.memory import Entry, FileTier, HostTier, Lease, Slab, TieredMemory
from gpuflow.memory.tiers import Ticket
from tests.patterns import image_of_bytes, kept
from tests.waiting import wait_until

MIB = 1 << 20


def test_pins_of_a_spilled_entry_in_eight_threads_restore_it_once(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        entry, media = kept(memory, 4 * MIB, 1), []
        small.allocate(8 * MIB).release()
        assert entry.where == "host"
        together = threading.Barrier(8)

        def pin() -> None:
            together.wait()
            media.append(entry.pin(timeout_seconds=30.0))

        threads = [threading.Thread(target=pin) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({one.lease.address for one in media}) == 1
        assert memory.statistics().restores == 1
        for one in media:
            one.release()


def test_a_pin_that_finds_no_room_leaves_the_entry_where_it_was(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        entry = kept(memory, 4 * MIB, 1)
        with small.allocate(8 * MIB), pytest.raises(SlabExhausted):
            entry.pin(timeout_seconds=0.02)
        assert entry.where == "host"
        entry.pin().release()


def test_a_cancelled_pin_holds_nothing(small: Slab) -> None:
    async def scenario(entry: Entry) -> None:
        pinning = asyncio.ensure_future(entry.apin(timeout_seconds=30.0))
        await asyncio.sleep(0)
        pinning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pinning
        with await entry.apin() as media:
            assert media.numpy().tobytes() == np.random.default_rng(1).bytes(4 * MIB)

    with TieredMemory(small, [HostTier("8MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        entry = kept(memory, 4 * MIB, 1)
        small.allocate(8 * MIB).release()
        asyncio.run(scenario(entry))
        wait_until(lambda: entry.evictable)


def test_a_dropped_entry_stays_with_those_who_pinned_it(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")]) as memory:
        entry = kept(memory, MIB, 1)
        with entry.pin() as media:
            entry.drop()
            entry.drop()
            assert media.numpy().tobytes() == np.random.default_rng(1).bytes(MIB)
            assert small.statistics().live_leases == 1


def test_a_medium_that_is_released_twice_takes_nothing_from_others(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")]) as memory:
        entry = kept(memory, MIB, 1)
        with entry.pin() as other:
            with entry.pin() as media:
                media.release()
            assert other.lease.references == 2
        with entry.pin() as media:
            assert media.numpy().tobytes() == np.random.default_rng(1).bytes(MIB)


class Meddled(HostTier):
    """A host tier that lets something happen in the middle of each copy."""

    def __init__(self, nbytes: str) -> None:
        super().__init__(nbytes)
        self.in_put: Callable[[], object] = lambda: None
        self.in_get: Callable[[], object] = lambda: None

    def put(self, lease: Lease) -> Ticket:
        ticket = super().put(lease)
        self.in_put()
        return ticket

    def get(self, ticket: Ticket, into: Lease) -> None:
        super().get(ticket, into)
        self.in_get()


def test_what_is_pinned_while_it_is_spilled_stays_in_the_slab(small: Slab) -> None:
    tier = Meddled("8MiB")
    with TieredMemory(small, [tier], high_watermark=1.0, low_watermark=1.0) as memory:
        entry = kept(memory, MIB, 1)
        pinned: list[Media] = []
        tier.in_put = lambda: pinned.append(entry.pin()) if not pinned else None
        with pytest.raises(SlabExhausted):
            small.allocate(8 * MIB)
        assert entry.where == "slab"
        assert tier.free_bytes == tier.capacity_bytes, "the copy is dropped"
        small.allocate(7 * MIB).release()
        assert pinned[0].numpy().tobytes() == np.random.default_rng(1).bytes(MIB)
        pinned[0].release()


def test_what_is_dropped_while_it_is_restored_is_read_whole_and_dropped_then(small: Slab) -> None:
    tier = Meddled("8MiB")
    with TieredMemory(small, [tier], high_watermark=1.0, low_watermark=1.0) as memory:
        entry = kept(memory, MIB, 1)
        small.allocate(8 * MIB).release()
        assert entry.where == "host"
        tier.in_get = entry.drop
        with entry.pin() as media:
            assert media.numpy().tobytes() == np.random.default_rng(1).bytes(MIB)
            assert tier.free_bytes == tier.capacity_bytes
        assert entry.where == "dropped"
        assert small.statistics().live_leases == 0


def test_a_block_that_is_being_restored_is_not_moved_down_meanwhile(small: Slab, tmp_path: Path) -> None:
    tier = Meddled("1MiB")
    with TieredMemory(small, [tier, FileTier(tmp_path, "8MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        first, second = kept(memory, MIB, 1), kept(memory, MIB, 2)
        with small.allocate(6 * MIB):
            small.allocate(MIB).release()
            assert (first.where, second.where) == ("host", "slab")

            where: list[str] = []

            def need_room() -> None:
                small.allocate(MIB).release()
                where.extend((first.where, second.where))

            tier.in_get = need_room
            with first.pin() as media:
                assert media.numpy().tobytes() == np.random.default_rng(1).bytes(MIB)
            assert where == ["host", "file"], "what needs room passes by"


def test_threads_that_keep_pin_and_drop_see_only_right_bytes(small: Slab, tmp_path: Path) -> None:
    wrong: list[object] = []
    with TieredMemory(small, [HostTier("2MiB"), FileTier(tmp_path, "64MiB")]) as memory:

        def work(mark: int) -> None:
            rng = np.random.default_rng(mark)
            mine: list[tuple[Entry, int]] = []
            try:
                for number in range(60):
                    seed = 1000 * mark + number
                    with image_of_bytes(small, int(rng.integers(1, MIB)), seed=seed, wait=30.0) as media:
                        mine.append((memory.keep(media), seed))
                    entry, seed = mine[int(rng.integers(len(mine)))]
                    with entry.pin(timeout_seconds=30.0) as media:
                        if media.numpy().tobytes() != np.random.default_rng(seed).bytes(entry.nbytes):
                            wrong.append(seed)
                    if len(mine) > 8:
                        mine.pop(0)[0].drop()
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(mark,)) for mark in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert memory.statistics().spills > 0
