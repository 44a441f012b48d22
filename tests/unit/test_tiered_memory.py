"""Media that are kept, spilled, restored and dropped, against a dictionary of their bytes; what is spilled and when."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gpuflow.errors import Closed, LeaseExpired, SlabExhausted
from gpuflow.media import Image, ImageMetadata, Media, lay_out
from gpuflow.memory import Entry, FileTier, HostTier, Slab, TieredMemory
from gpuflow.memory.tiered import LOOK_SECONDS
from gpuflow.memory.tiers import Tier
from tests.patterns import image_of_bytes, kept
from tests.waiting import wait_until

MIB = 1 << 20


class TieredMemoryAgainstADictionary(RuleBasedStateMachine):
    """A slab of 16 granules over a host tier of 8 and a file of 16."""

    entries = Bundle("entries")
    pinned = Bundle("pinned")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.slab = Slab("1MiB")
        tiers: list[Tier] = [HostTier("512KiB"), FileTier(self.folder, "1MiB")]
        self.memory = TieredMemory(
            self.slab, tiers, high_watermark=1.0, low_watermark=1.0
        )  # spills when asked to, no sooner
        self.wanted: dict[Entry, bytes] = {}
        self.pins: dict[Media, Entry] = {}
        self.published: list[Media] = []
        self.number = 0

    @rule(target=entries, nbytes=st.integers(1, 200_000))
    def keep(self, nbytes: int) -> Entry | None:
        self.number += 1
        try:
            media = image_of_bytes(self.slab, nbytes, seed=self.number)
        except SlabExhausted:
            assert self._unspillable_bytes() > 0
            return None
        entry = self.memory.keep(media)
        self.wanted[entry] = media.numpy().tobytes()
        media.release()
        return entry

    @rule(target=pinned, entry=entries)
    def pin(self, entry: Entry | None) -> Media | None:
        if entry is None:
            return None
        try:
            media = entry.pin(timeout_seconds=0.05)
        except LeaseExpired:
            assert entry.where == "dropped"
            return None
        except SlabExhausted:
            assert self._unspillable_bytes() > 0
            return None
        assert media.numpy().tobytes() == self.wanted[entry]
        assert media.metadata == ImageMetadata("raw", entry.nbytes, 1)
        self.pins[media] = entry
        return media

    @rule(media=consumes(pinned), publish=st.booleans())
    def unpin(self, media: Media | None, publish: bool) -> None:
        if media is None:
            return
        if publish:
            media.lease.publish()
            self.published.append(media)
        media.release()
        del self.pins[media]

    @rule()
    def withdraw(self) -> None:
        while self.published:
            self.published.pop().lease.unpublish(revoke=False)

    @rule(entry=entries)
    def drop(self, entry: Entry | None) -> None:
        if entry is not None:
            entry.drop()
            assert entry.where == "dropped"

    @rule(granules=st.integers(1, 12))
    def somebody_needs_room(self, granules: int) -> None:
        try:
            self.slab.allocate(granules << 16, timeout_seconds=0.02).release()
        except SlabExhausted:
            assert self._unspillable_bytes() > 0

    @invariant()
    def what_is_pinned_or_published_lies_in_the_slab_with_its_bytes(self) -> None:
        for media, entry in self.pins.items():
            assert entry.where in ("slab", "dropped")
            assert media.numpy().tobytes() == self.wanted[entry]
        for media in self.published:
            assert media.lease.state == "published"

    @invariant()
    def places_add_up(self) -> None:
        found = self.memory.statistics()
        alive = [entry for entry in self.wanted if entry.where != "dropped"]
        assert sum(found.entries.values()) == len(alive)
        assert sum(found.bytes.values()) == sum(entry.nbytes for entry in alive)
        assert found.restore_failures == found.spill_failures == 0

    def _unspillable_bytes(self) -> int:
        found = self.slab.statistics()
        return found.leased_bytes - self.memory.statistics().evictable_bytes

    def teardown(self) -> None:
        self.withdraw()
        for media in self.pins:
            media.release()
        for entry, wanted in self.wanted.items():
            if entry.where == "dropped":
                with pytest.raises(LeaseExpired):
                    entry.pin()
            else:
                with entry.pin() as media:
                    assert media.numpy().tobytes() == wanted
        self.memory.close()
        assert self.slab.statistics().live_leases == 0
        self.slab.close()
        shutil.rmtree(self.folder)


TestTieredMemory = TieredMemoryAgainstADictionary.TestCase
TestTieredMemory.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_more_is_kept_than_the_slab_holds_and_all_of_it_comes_back(small: Slab, tmp_path: Path) -> None:
    with TieredMemory(small, [HostTier("8MiB"), FileTier(tmp_path, "64MiB")]) as memory:
        wanted = {}
        for seed in range(40):
            with image_of_bytes(small, MIB, seed=seed, wait=30.0) as media:
                wanted[memory.keep(media)] = media.numpy().tobytes()
        found = memory.statistics()
        assert sum(found.entries.values()) == 40
        assert found.entries["host"] > 0
        assert found.entries["file"] > 0
        for entry, data in wanted.items():
            with entry.pin() as media:
                assert media.numpy().tobytes() == data
        found = memory.statistics()
        assert found.drops == found.restore_failures == 0
        assert found.restores > 20
        assert found.metrics()["gpuflow_restores_total"] == found.restores


def test_what_was_used_longest_ago_is_spilled_first(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        entries = [kept(memory, MIB, seed) for seed in range(8)]
        entries[0].pin().release()
        small.allocate(2 * MIB).release()
        assert [entry.where for entry in entries[:4]] == ["slab", "host", "host", "slab"]


def test_what_was_in_use_when_room_was_needed_counts_as_used_then(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        entries = [kept(memory, MIB, seed) for seed in range(8)]
        with entries[0].pin():
            for entry in entries[1:]:
                entry.pin().release()
            small.allocate(MIB).release()
        small.allocate(2 * MIB).release()
        assert [entry.where for entry in entries[:4]] == ["slab", "host", "host", "slab"]


def test_a_full_file_hands_its_oldest_on_to_the_tier_below_it(small: Slab, tmp_path: Path) -> None:
    tiers: list[Tier] = [FileTier(tmp_path, "2MiB"), HostTier("16MiB")]
    with TieredMemory(small, tiers, high_watermark=1.0, low_watermark=1.0) as memory:
        entries = [kept(memory, MIB, seed) for seed in range(12)]
        assert [entry.where for entry in entries[:4]] == ["host", "host", "file", "file"]
        for seed, entry in enumerate(entries):
            with entry.pin() as media:
                assert media.numpy().tobytes() == np.random.default_rng(seed).bytes(MIB)
        assert memory.statistics().drops == 0


def test_without_a_tier_what_was_used_longest_ago_is_dropped(small: Slab) -> None:
    with TieredMemory(small, high_watermark=1.0, low_watermark=1.0) as memory:
        entries = [kept(memory, MIB, seed) for seed in range(8)]
        small.allocate(MIB).release()
        assert entries[0].where == "dropped"
        with pytest.raises(LeaseExpired, match="dropped"):
            entries[0].pin()
        assert memory.statistics().drops == 1


def test_a_full_last_tier_drops_its_oldest_and_keeps_the_newer(small: Slab) -> None:
    with TieredMemory(small, [HostTier("4MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        entries = [kept(memory, MIB, seed) for seed in range(14)]
        assert [entry.where for entry in entries].count("dropped") == 2
        assert [entry.where for entry in entries[:2]] == ["dropped", "dropped"]
        assert {entry.where for entry in entries[2:6]} == {"host"}


def test_spilling_starts_by_itself_above_the_high_watermark_and_ends_at_the_low_one(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")], high_watermark=0.8, low_watermark=0.5) as memory:
        for seed in range(6):
            kept(memory, MIB, seed)
        assert memory.statistics().entries["host"] == 0
        kept(memory, MIB, 7)
        wait_until(lambda: memory.statistics().entries["slab"] == 4)
        assert memory.statistics().entries["host"] == 3


def test_small_media_count_with_the_whole_granules_that_they_take(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")], high_watermark=0.8, low_watermark=0.5) as memory:
        for seed in range(103):  # 80.5 % of the 128 granules, and 12 % of the bytes
            kept(memory, 10_000, seed)
        wait_until(lambda: memory.statistics().entries["slab"] == 64)
        assert memory.statistics().evictable_bytes == 4 * MIB


def test_leases_that_cannot_be_spilled_never_start_spilling(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")], high_watermark=0.8, low_watermark=0.5) as memory:
        with small.allocate(6 * MIB):
            entry = kept(memory, MIB, 1)
            looked = threading.Event()
            looked.wait(2 * LOOK_SECONDS)
            assert entry.where == "slab"
        entry.drop()


def test_an_allocation_that_finds_no_room_does_not_spill_past_its_time(small: Slab) -> None:
    with TieredMemory(small, [HostTier("8MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        entry = kept(memory, MIB, 1)
        memory._relieve(8 * MIB, time.monotonic())
        assert entry.where == "slab"
        memory._relieve(8 * MIB, time.monotonic() + 10.0)
        assert entry.where == "host"


def test_media_of_another_slab_or_unsealed_are_not_kept(small: Slab, slab: Slab) -> None:
    with TieredMemory(small) as memory, image_of_bytes(slab, 10, seed=0) as foreign:
        with pytest.raises(ValueError, match="this slab"):
            memory.keep(foreign)
        specs = lay_out({"data": ("uint8", (4,))})
        with (
            Image(small.allocate(4), specs, ImageMetadata("raw", 4, 1), backend="x") as raw,
            pytest.raises(ValueError, match="sealed"),
        ):
            memory.keep(raw)
    with pytest.raises(ValueError, match="low_watermark"):
        TieredMemory(small, high_watermark=0.5, low_watermark=0.6)


def test_a_closed_memory_drops_all_and_refuses_more(small: Slab) -> None:
    before = threading.active_count()
    memory = TieredMemory(small, [HostTier("8MiB")])
    entry = kept(memory, MIB, 1)
    held = entry.pin()
    memory.close()
    memory.close()
    assert threading.active_count() == before
    with pytest.raises(Closed):
        entry.pin()
    with pytest.raises(Closed):
        memory.keep(held)
    assert held.numpy().tobytes() == np.random.default_rng(1).bytes(MIB)
    held.release()
