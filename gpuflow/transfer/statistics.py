"""What publishers and readers report about themselves."""

from __future__ import annotations

from dataclasses import dataclass

from gpuflow.observe import Values, labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherStatistics:
    """Counts since the publisher was made; ``open`` is how many publications are held now.

    An acknowledgement is ``late`` when its publication had expired or was withdrawn, ``duplicate`` when all expected
    ones had come; ``unknown_messages`` name no publication of the last few thousand.
    """

    open: int
    published: int
    acknowledged: int
    expired: int
    cancelled: int
    renewed: int
    duplicate_acknowledgements: int
    late_acknowledgements: int
    unknown_messages: int
    shm_readers: int = 0

    def metrics(self) -> Values:
        """The same under Prometheus names."""
        ends = ("acknowledged", "expired", "cancelled")
        values: Values = {labelled("gpuflow_publications_ended_total", how=end): getattr(self, end) for end in ends}
        odd = {
            "duplicate": self.duplicate_acknowledgements,
            "late": self.late_acknowledgements,
            "unknown": self.unknown_messages,
        }
        values |= {labelled("gpuflow_acknowledgements_odd_total", kind=kind): count for kind, count in odd.items()}
        return values | {
            "gpuflow_publications_open": self.open,
            "gpuflow_publications_total": self.published,
            "gpuflow_publications_renewed_total": self.renewed,
            "gpuflow_shm_readers": self.shm_readers,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderStatistics:
    """Counts since the reader was made. ``stale`` reads were caught by their generation; ``quarantined`` reads timed
    out, and the memory they read into is kept until they have ended."""

    reads: int
    read_bytes: int
    reads_by_transport: dict[str, int]
    stale: int
    timeouts: int
    failures: int
    reconnects: int
    rebuilt_agents: int
    refused: int
    unacknowledged: int
    quarantined: int
    quarantined_bytes: int
    peers: int

    def metrics(self) -> Values:
        """The same under Prometheus names."""
        values: Values = {
            labelled("gpuflow_reads_total", transport=way): count for way, count in self.reads_by_transport.items()
        }
        failed = {"stale": self.stale, "timeout": self.timeouts, "peer": self.failures, "refused": self.refused}
        values |= {labelled("gpuflow_reads_failed_total", why=why): count for why, count in failed.items()}
        return values | {
            "gpuflow_read_bytes_total": self.read_bytes,
            "gpuflow_reader_reconnects_total": self.reconnects,
            "gpuflow_reader_rebuilt_agents_total": self.rebuilt_agents,
            "gpuflow_reads_unacknowledged_total": self.unacknowledged,
            "gpuflow_reads_quarantined": self.quarantined,
            "gpuflow_reads_quarantined_bytes": self.quarantined_bytes,
            "gpuflow_reader_peers": self.peers,
        }
