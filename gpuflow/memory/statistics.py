"""What the memory layer reports about itself."""

from __future__ import annotations

from dataclasses import dataclass

from gpuflow.observe import Values, labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class SlabStatistics:
    """Bytes by state, and counts since the slab was made.

    ``leased_bytes`` is the sum of the five states: ``writing``, ``sealed``, ``published`` (a reader may come),
    ``draining`` (released, a GPU still works on it), ``quarantined`` (a timed-out read may still write to it).
    """

    device: str
    pinned: bool
    capacity_bytes: int
    leased_bytes: int
    free_bytes: int
    largest_free_bytes: int
    writing_bytes: int
    sealed_bytes: int
    published_bytes: int
    draining_bytes: int
    quarantined_bytes: int
    live_leases: int
    allocations: int
    failed_allocations: int
    waiting: int
    waits: int
    waited_seconds: float
    leaked_leases: int
    peak_leased_bytes: int

    def metrics(self) -> Values:
        """The same under Prometheus names."""
        states = ("free", "writing", "sealed", "published", "draining", "quarantined")
        values: Values = {
            labelled("gpuflow_slab_bytes", device=self.device, state=state): getattr(self, f"{state}_bytes")
            for state in states
        }
        for name, value in {
            "largest_free_bytes": self.largest_free_bytes,
            "peak_leased_bytes": self.peak_leased_bytes,
            "leases": self.live_leases,
            "waiting": self.waiting,
            "allocations_total": self.allocations,
            "allocations_failed_total": self.failed_allocations,
            "waits_total": self.waits,
            "wait_seconds_total": self.waited_seconds,
            "leases_leaked_total": self.leaked_leases,
        }.items():
            values[labelled(f"gpuflow_slab_{name}", device=self.device)] = value
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class TieredStatistics:
    """Entries and bytes by place (``"slab"`` and the tiers' names), and counts since the memory was made.
    ``evictable_bytes``: of the slab, in whole granules."""

    entries: dict[str, int]
    bytes: dict[str, int]
    evictable_bytes: int
    spills: int
    spilled_bytes: int
    spill_seconds: float
    restores: int
    restored_bytes: int
    restore_seconds: float
    drops: int
    spill_failures: int
    restore_failures: int

    def metrics(self) -> Values:
        """The same under Prometheus names."""
        values: Values = {labelled("gpuflow_tier_bytes", tier=tier): size for tier, size in self.bytes.items()}
        values |= {labelled("gpuflow_tier_entries", tier=tier): count for tier, count in self.entries.items()}
        return values | {
            "gpuflow_tier_evictable_bytes": self.evictable_bytes,
            "gpuflow_spills_total": self.spills,
            "gpuflow_spilled_bytes_total": self.spilled_bytes,
            "gpuflow_spill_seconds_total": self.spill_seconds,
            "gpuflow_restores_total": self.restores,
            "gpuflow_restored_bytes_total": self.restored_bytes,
            "gpuflow_restore_seconds_total": self.restore_seconds,
            "gpuflow_tier_drops_total": self.drops,
            "gpuflow_spill_failures_total": self.spill_failures,
            "gpuflow_restore_failures_total": self.restore_failures,
        }
