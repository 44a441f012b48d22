"""Copies of whole blocks, between host and device."""

from __future__ import annotations

from typing import Any

from gpuflow.media import TensorSpec
from gpuflow.memory.lease import Lease


def copy_in(source: Any, target: Lease) -> None:
    """Copy a numpy vector of uint8, which lies on the host, to the start of a block."""
    if target.device == "cpu":
        target.array(TensorSpec("bytes", "uint8", (source.size,)))[:] = source
        return
    import cupy

    with cupy.cuda.Device(int(target.device.partition(":")[2])):
        cupy.cuda.runtime.memcpy(
            target.address, source.ctypes.data, source.nbytes, cupy.cuda.runtime.memcpyHostToDevice
        )


def copy_block(source: Lease, target: Lease, nbytes: int) -> None:
    """Copy the first ``nbytes`` of one block to another, on any devices."""
    if source.device == "cpu":
        copy_in(source.array(TensorSpec("bytes", "uint8", (nbytes,))), target)
        return
    import cupy

    with cupy.cuda.Device(int(source.device.partition(":")[2])):
        cupy.cuda.runtime.memcpy(target.address, source.address, nbytes, cupy.cuda.runtime.memcpyDefault)
