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
