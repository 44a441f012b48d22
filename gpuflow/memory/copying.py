"""Copies of whole blocks, between host and device."""

from __future__ import annotations

import ctypes

from gpuflow.memory.backing import device_id
from gpuflow.memory.lease import Lease


def copy_in(source: int, target: Lease, nbytes: int) -> None:
    """Copy ``nbytes`` at an address of the host to the start of a block, without the GIL.

    Raises:
        LeaseExpired: the block was released, or a timed-out read may still write to it.
        ValueError: it is smaller.
    """
    target.require(nbytes)
    if target.device == "cpu":
        ctypes.memmove(target.address, source, nbytes)
        return
    copy_on_gpu(target.address, source, nbytes, device=target.device)


def copy_block(source: Lease, target: Lease, nbytes: int) -> None:
    """Copy the first ``nbytes`` of one block to another, on any devices; raises as ``copy_in``."""
    source.require(nbytes)
    if source.device == "cpu":
        copy_in(source.address, target, nbytes)
        return
    target.require(nbytes)
    copy_on_gpu(target.address, source.address, nbytes, device=source.device)


def copy_on_gpu(target: int, source: int, nbytes: int, *, device: str) -> None:
    """Copy between addresses of which at least one lies on a GPU, and wait until the bytes are there.

    On a stream of its own, after the work of the default stream. Plain ``cudaMemcpy`` returns early from copies within
    a device, and from small ones to it; the waiting does not hold the GIL.
    """
    import cupy

    with cupy.cuda.Device(device_id(device)):
        stream = cupy.cuda.Stream()
        cupy.cuda.runtime.memcpyAsync(target, source, nbytes, cupy.cuda.runtime.memcpyDefault, stream.ptr)
        stream.synchronize()
