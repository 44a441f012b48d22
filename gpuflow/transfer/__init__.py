"""Publish a medium from one process, read it in another with one-sided NIXL reads."""

from gpuflow.transfer.descriptor import Descriptor as Descriptor
from gpuflow.transfer.publisher import Publisher as Publisher
from gpuflow.transfer.reader import Reader as Reader

__all__ = ["Descriptor", "Publisher", "Reader"]
