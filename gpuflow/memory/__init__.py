"""Memory that is allocated and registered once: slabs, the leases of their blocks, and where blocks go when it is short."""

from gpuflow.memory.entry import Entry as Entry
from gpuflow.memory.file_tier import FileTier as FileTier
from gpuflow.memory.lease import Lease as Lease
from gpuflow.memory.slab import Slab as Slab
from gpuflow.memory.statistics import SlabStatistics as SlabStatistics
from gpuflow.memory.statistics import TieredStatistics as TieredStatistics
from gpuflow.memory.tiered import TieredMemory as TieredMemory
from gpuflow.memory.tiers import HostTier as HostTier

__all__ = ["Entry", "FileTier", "HostTier", "Lease", "Slab", "SlabStatistics", "TieredMemory", "TieredStatistics"]
