"""Other readers of sampled frames on a GPU: encoded bytes in memory and frame numbers to RGB in device memory.

Each keeps what it can between calls, one a thread, as a server would: decoders, pipelines.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks._video_peers import Peer, pyav_all

_kept = threading.local()


def torchcodec_cuda(data: bytes, indices: Sequence[int]) -> Any:
    """``VideoDecoder(device="cuda")``, which caches its NVDEC decoders itself."""
    import torch
    from torchcodec.decoders import VideoDecoder

    frames = VideoDecoder(data, dimension_order="NHWC", device="cuda").get_frames_at(list(indices)).data
    torch.cuda.current_stream().synchronize()
    return frames


def dali_mixed(data: bytes, indices: Sequence[int]) -> Any:
    """``fn.decoders.video(device="mixed")`` in a pipeline a thread."""
    import torch

    if not hasattr(_kept, "pipeline"):
        _kept.pipeline = dali_pipeline()
    _kept.pipeline.feed_input("clip", [np.frombuffer(data, np.uint8)])
    _kept.pipeline.feed_input("frames", [np.array(indices, np.int32)])
    (out,) = _kept.pipeline.run()
    frames = torch.utils.dlpack.from_dlpack(out[0]).clone()
    torch.cuda.current_stream().synchronize()
    return frames


def dali_pipeline() -> Any:
    """Bytes and frame numbers to frames, on GPU 0."""
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(batch_size=1, num_threads=2, device_id=0, prefetch_queue_depth=1, exec_dynamic=True)
    with pipeline:
        clip = fn.external_source(name="clip", dtype=types.UINT8, ndim=1)
        numbers = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
        pipeline.set_outputs(fn.decoders.video(clip, device="mixed", frames=numbers, pad_mode="none"))
    pipeline.build()
    return pipeline


def simple_decoder(data: bytes, indices: Sequence[int]) -> Any:
    """PyNvVideoCodec's ``SimpleDecoder`` with RGB output: one a thread, given the next clip by a path in memory."""
    import PyNvVideoCodec
    import torch

    descriptor = os.memfd_create("clip")
    try:
        os.write(descriptor, data)
        path = f"/proc/self/fd/{descriptor}"
        if hasattr(_kept, "simple"):
            _kept.simple.reconfigure_decoder(path)
        else:
            _kept.simple = PyNvVideoCodec.SimpleDecoder(
                path, gpu_id=0, output_color_type=PyNvVideoCodec.OutputColorType.RGB
            )
        frames = [torch.utils.dlpack.from_dlpack(frame) for frame in _kept.simple.get_batch_frames_by_index(indices)]
        placed = torch.stack(frames)
        torch.cuda.current_stream().synchronize()
        return placed
    finally:
        os.close(descriptor)


def on_host(frames: Any) -> Any:
    """Frames of any peer as numpy."""
    return frames.cpu().numpy() if hasattr(frames, "cpu") else np.asarray(frames)


GPU_PEERS: dict[str, Peer] = {
    "torchcodec cuda": torchcodec_cuda,
    "DALI mixed": dali_mixed,
    "PyNvVideoCodec SimpleDecoder": simple_decoder,
}
CPU_PEERS: dict[str, Peer] = {"PyAV decode-all, frame threads": pyav_all}
