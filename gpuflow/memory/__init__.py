"""Memory that is allocated and registered once: slabs, and the reference-counted leases of their blocks."""

from gpuflow.memory.lease import Lease as Lease
from gpuflow.memory.slab import Slab as Slab
from gpuflow.memory.statistics import SlabStatistics as SlabStatistics

__all__ = ["Lease", "Slab", "SlabStatistics"]
