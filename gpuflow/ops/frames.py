"""One RGB frame into its place of the result: type, layout and the copy. The same code for numpy and CuPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuflow.memory import Lease


def finish(rgb: Any, *, planar: bool, dtype: str) -> Any:
    """``(H, W, 3)`` uint8 as ``dtype``, in 0..1 where that is a float, and as ``(3, H, W)`` where ``planar``.

    bfloat16 comes as its bits in uint16, as a lease shows it.
    """
    frame = rgb.transpose(2, 0, 1) if planar else rgb
    if dtype == "uint8":
        return frame
    scaled = frame.astype("float32") / np.float32(255)
    return bfloat16_bits(scaled) if dtype == "bfloat16" else scaled.astype(dtype, copy=False)


def store(frame: Any, target: Any, lease: Lease) -> None:
    """Copy a finished frame into its view of the result: on the host, on the GPU, or up to it."""
    if lease.device == "cpu" or not isinstance(frame, np.ndarray):
        target[...] = frame
        return
    import cupy

    with target.device, cupy.cuda.Stream.ptds as stream:
        target.set(np.ascontiguousarray(frame), stream=stream)
        lease.record_stream(stream)


def settle(lease: Lease) -> None:
    """Wait for what this thread has queued on its current stream, where the lease lies on a GPU."""
    if lease.device != "cpu":
        import cupy

        cupy.cuda.get_current_stream().synchronize()


def close_gaps(frames: Any, kept: list[int], lease: Lease) -> None:
    """Move the frames at the ascending places ``kept`` to the front, one after another, where they lie."""
    lease.synchronize()  # decoders write on streams of their own
    if lease.device == "cpu":
        for place, source in enumerate(kept):
            frames[place] = frames[source]
        return
    import cupy

    with frames.device, cupy.cuda.Stream.ptds as stream:
        for place, source in enumerate(kept):
            if place != source:
                frames[place] = frames[source]
        lease.record_stream(stream)


def scratch(shape: tuple[int, ...], like: Any) -> Any:
    """An uninitialised uint8 array beside ``like``: numpy for numpy, CuPy for CuPy."""
    if isinstance(like, np.ndarray):
        return np.empty(shape, np.uint8)
    import cupy

    return cupy.empty(shape, cupy.uint8)


def bfloat16_bits(values: Any) -> Any:
    """float32 rounded to nearest, ties to even, as its bits in uint16; the values are finite."""
    bits = values.view("uint32")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("uint16")
