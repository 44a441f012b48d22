"""Publish a medium from one process, read it in another: shared block, mapped memory, NIXL, or a file."""

from gpuflow.transfer.descriptor import Descriptor as Descriptor
from gpuflow.transfer.descriptor import Peer as Peer
from gpuflow.transfer.file_publisher import FilePublisher as FilePublisher
from gpuflow.transfer.publisher import Publisher as Publisher
from gpuflow.transfer.reader import Reader as Reader

__all__ = ["Descriptor", "FilePublisher", "Peer", "Publisher", "Reader"]
