"""Leases: what is seen of a block, how long it lives, and when its generation changes."""

from __future__ import annotations

import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from gpuflow.errors import LeaseExpired, SlabExhausted
from gpuflow.media import TensorSpec, block_bytes, lay_out
from gpuflow.memory import Lease, Slab

FLOATS = lay_out({"floats": ("float32", (10, 5)), "halves": ("bfloat16", (7,))})


def test_numpy_and_torch_views_share_the_memory_of_the_block(slab: Slab) -> None:
    with slab.allocate(block_bytes(FLOATS)) as lease:
        array = lease.array(FLOATS[0])
        array[:] = np.arange(50, dtype=np.float32).reshape(10, 5)
        assert lease.tensor(FLOATS[0]).tolist() == array.tolist()
        lease.tensor(FLOATS[0])[3, 4] = -1
        assert array[3, 4] == -1
        assert array.ctypes.data == lease.address


def test_bfloat16_is_a_torch_tensor_and_raw_words_in_numpy(slab: Slab) -> None:
    with slab.allocate(block_bytes(FLOATS)) as lease:
        lease.tensor(FLOATS[1]).fill_(1.0)
        assert lease.array(FLOATS[1]).tolist() == [0x3F80] * 7


def test_tensors_of_one_block_are_aligned_and_do_not_overlap() -> None:
    first, second = FLOATS
    assert second.offset % 256 == 0
    assert second.offset >= first.offset + first.nbytes


def test_a_view_outside_the_block_is_refused(slab: Slab) -> None:
    with slab.allocate(100) as lease, pytest.raises(ValueError, match="does not lie in a block of 100 bytes"):
        lease.array(TensorSpec("x", "uint8", (101,)))


def test_a_released_block_cannot_be_viewed_sealed_or_retained(slab: Slab) -> None:
    lease = slab.allocate(100)
    lease.release()
    for use in (lambda: lease.array(TensorSpec("x", "uint8", (1,))), lease.seal, lease.retain):
        with pytest.raises(LeaseExpired):
            use()


def test_release_is_harmless_when_repeated(slab: Slab) -> None:
    first = slab.allocate(100)
    first.release()
    second = slab.allocate(100)
    first.release()
    assert slab.statistics().live_leases == 1
    second.release()


def test_a_block_lives_until_it_was_released_as_often_as_retained(slab: Slab) -> None:
    lease = slab.allocate(100)
    lease.retain()
    lease.release()
    assert slab.statistics().live_leases == 1
    lease.release()
    assert slab.statistics().live_leases == 0


def test_the_generation_is_odd_while_written_even_while_sealed_and_never_comes_back(slab: Slab) -> None:
    seen = set()
    for _ in range(5):
        lease = slab.allocate(100)
        assert slab.generation(lease.slot) % 2 == 1
        lease.seal()
        assert slab.generation(lease.slot) == lease.generation
        assert lease.generation % 2 == 0
        assert lease.generation not in seen
        seen.add(lease.generation)
        lease.release()
        assert slab.generation(lease.slot) % 2 == 1


def test_a_block_is_quarantined_until_every_read_into_it_has_ended(slab: Slab) -> None:
    with slab.allocate(10) as lease:
        lease.quarantine()
        lease.quarantine()
        lease.readmit()
        assert lease.state == "quarantined"
        lease.readmit()
        assert lease.state == "writing"


def test_a_lease_refuses_pickling_and_says_what_to_send(slab: Slab) -> None:
    with slab.allocate(100) as lease, pytest.raises(TypeError, match="descriptor"):
        pickle.dumps(lease)


def test_dlpack_of_a_view_is_the_same_memory(slab: Slab) -> None:
    spec = TensorSpec("x", "float32", (8,))
    with slab.allocate(32) as lease:
        array = lease.array(spec)
        array[:] = 2
        assert torch.utils.dlpack.from_dlpack(array).data_ptr() == lease.address
        assert np.from_dlpack(lease.tensor(spec)).ctypes.data == lease.address


def test_a_block_as_a_whole_is_a_memoryview_and_a_dlpack_vector(slab: Slab) -> None:
    with slab.allocate(1000) as lease:
        lease.memory()[:5] = b"hello"
        assert bytes(torch.utils.dlpack.from_dlpack(lease)[:5].tolist()) == b"hello"
        assert torch.utils.dlpack.from_dlpack(lease).data_ptr() == lease.address
        assert lease.memory().nbytes == 1000


def test_a_quarantined_block_can_be_neither_viewed_nor_sealed(slab: Slab) -> None:
    with slab.allocate(100) as lease:
        lease.quarantine()
        for use in (lambda: lease.array(TensorSpec("x", "uint8", (1,))), lease.seal, lease.memory):
            with pytest.raises(LeaseExpired, match="timed out"):
                use()
        lease.readmit()
        lease.seal()


def test_a_revoked_publication_changes_the_generation_although_the_block_is_held(slab: Slab) -> None:
    with slab.allocate(100) as lease:
        lease.seal()
        first, second = lease.publish(), lease.publish()
        assert first == second
        lease.unpublish(revoke=True)
        assert slab.generation(lease.slot) == first, "another publication of the block is open"
        lease.unpublish(revoke=True)
        assert slab.generation(lease.slot) > first
        assert lease.publish() == slab.generation(lease.slot) == lease.generation
        lease.unpublish(revoke=False)


class LeaseAgainstCounts(RuleBasedStateMachine):
    """Leases of a small slab, retained, sealed, published, revoked and quarantined in any order, against counts."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.slab = Slab("1MiB")
        self.references: dict[Lease, int] = {}
        self.publications: dict[Lease, int] = {}
        self.highest: dict[int, int] = {}

    @rule(target=leases, granules=st.integers(1, 4))
    def allocate(self, granules: int) -> Lease | None:
        try:
            lease = self.slab.allocate(granules << 16)
        except SlabExhausted:
            return None
        assert lease.generation > self.highest.get(lease.slot, 0), "a generation came back"
        self.references[lease], self.publications[lease] = 1, 0
        return lease

    @rule(lease=leases)
    def retain(self, lease: Lease | None) -> None:
        if lease is not None and self.references[lease]:
            lease.retain()
            self.references[lease] += 1

    @rule(lease=leases)
    def release(self, lease: Lease | None) -> None:
        if lease is not None and self.references[lease] > self.publications[lease]:
            lease.release()
            self.references[lease] -= 1

    @rule(lease=leases)
    def seal(self, lease: Lease | None) -> None:
        if lease is not None and self.references[lease]:
            lease.seal()

    @rule(lease=leases)
    def publish(self, lease: Lease | None) -> None:
        if lease is None or not self.references[lease]:
            return
        if not lease.sealed:
            with pytest.raises(ValueError, match="sealed"):
                lease.publish()
            return
        assert lease.publish() % 2 == 0
        self.references[lease] += 1
        self.publications[lease] += 1

    @rule(lease=leases, revoke=st.booleans())
    def unpublish(self, lease: Lease | None, revoke: bool) -> None:
        if lease is None or not self.publications[lease]:
            return
        before = self.slab.generation(lease.slot)
        lease.unpublish(revoke=revoke)
        self.references[lease] -= 1
        self.publications[lease] -= 1
        ended = self.publications[lease] == 0
        changed = self.slab.generation(lease.slot) > before
        assert changed == (self.references[lease] == 0 or (ended and revoke))

    @invariant()
    def blocks_live_exactly_as_long_as_they_are_referred_to(self) -> None:
        live = [lease for lease, count in self.references.items() if count]
        found = self.slab.statistics()
        assert found.live_leases == len(live)
        assert found.leased_bytes == sum(lease.nbytes for lease in live)
        assert found.published_bytes == sum(lease.nbytes for lease in live if self.publications[lease])
        ends = 0
        for lease in sorted(live, key=lambda lease: lease.offset):
            assert lease.offset >= ends
            ends = lease.offset + lease.nbytes
            assert lease.references == self.references[lease]
            assert self.slab.generation(lease.slot) == lease.generation
            self.highest[lease.slot] = max(self.highest.get(lease.slot, 0), lease.generation)

    def teardown(self) -> None:
        for lease, count in self.references.items():
            for _ in range(count):
                lease.release()
        self.slab.close()


TestLease = LeaseAgainstCounts.TestCase
