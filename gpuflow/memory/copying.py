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
    import cupy

    with cupy.cuda.Device(device_id(target.device)):
        cupy.cuda.runtime.memcpy(target.address, source, nbytes, cupy.cuda.runtime.memcpyHostToDevice)


def copy_block(source: Lease, target: Lease, nbytes: int) -> None:
    """Copy the first ``nbytes`` of one block to another, on any devices; raises as ``copy_in``."""
    source.require(nbytes)
    if source.device == "cpu":
        copy_in(source.address, target, nbytes)
        return
    target.require(nbytes)
    import cupy

    with cupy.cuda.Device(device_id(source.device)):
        cupy.cuda.runtime.memcpy(target.address, source.address, nbytes, cupy.cuda.runtime.memcpyDefault)
