"""Clips by DALI: ``decoders.video``, resize and normalisation as one pipeline on one device.

It is asked for by name and gets only clips that it decodes rightly. It takes BT.601 for every matrix, ignores rotation
and edit lists, and answers with black frames where it has none (``pad_mode="none"`` makes that an error); ``supports``
says no to those. On the CPU it decodes VP8, VP9 and MJPEG.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuflow.codecs._backends import pynv_caps
from gpuflow.codecs.base import Capability, Deadline, Support, VideoInfo
from gpuflow.codecs.video.wholefile import WholeFile, miscounted, resized
from gpuflow.config import Resample
from gpuflow.errors import CorruptMedia, GpuflowError
from gpuflow.media import TensorSpec
from gpuflow.memory import Lease

_CPU_CODECS = frozenset({"vp8", "vp9", "mjpeg"})
_GPU_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})
_FILTERS = {
    "nearest": "INTERP_NN",
    "bilinear": "INTERP_LINEAR",
    "bicubic": "INTERP_CUBIC",
    "lanczos": "INTERP_LANCZOS3",
}
_TYPES = {"uint8": "UINT8", "float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "FLOAT"}  # of the last also FLOAT
_MAX_KEPT = 8


@functools.cache
def capability() -> Capability:
    """Whether DALI is installed; it is loaded when it is used."""
    if not all(importlib.util.find_spec(module) is not None for module in ("nvidia", "nvidia.dali")):
        return Capability(False, "DALI is not installed: pip install 'gpuflow[cu13]'")
    return Capability(True, version=importlib.metadata.version("nvidia-dali-cuda130"))


@dataclass(frozen=True, slots=True)
class Form:
    """What a pipeline makes of frames. ``size``: ``(height, width)``, ``None`` as decoded; ``mean`` and ``std`` in 0..1,
    for floats; bfloat16 comes as float32."""

    size: tuple[int, int] | None
    resample: Resample
    planar: bool
    dtype: str
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class DaliVideo:
    """Pipelines on one device (``None``: the CPU), built once per form and class of sizes and kept. One call has a
    pipeline to itself, and one in which a call failed is not used again: a bad clip costs nobody else."""

    name = "dali"

    def __init__(self, device_index: int | None) -> None:
        self._index = device_index
        self._lock = threading.Lock()
        self._idle: list[tuple[tuple[Form, int], _Pipeline]] = []  # the one used last is the last
        self.num_built = 0

    def supports(self, file: WholeFile | None, info: VideoInfo) -> Support:
        """Whether DALI gives the right frames in the right colours. ``file``: ``None`` where it is not here as a whole."""
        if file is None:
            return Support(False, "DALI needs the whole file in this process, which isolation forbids")
        reason = self._unknown(info) or _wrong(info, on_gpu=self._index is not None)
        if reason is None and info.num_frames != len(file.rows):
            reason = f"the file has {len(file.rows)} packets for {info.num_frames} frames"
        if reason is None:
            reason = miscounted(file)
        if reason is None and resized(file, info.codec):
            reason = "the picture size changes within the clip"
        return Support(reason is None, f"DALI is not used: {reason}" if reason else "")

    def place(
        self,
        data: bytes,
        info: VideoInfo,
        indices: Sequence[int],
        form: Form,
        lease: Lease,
        spec: TensorSpec,
        deadline: Deadline,
    ) -> None:
        """Decode frames in this order, repeats allowed, and write them to the lease; it is done when this returns.

        Raises:
            CorruptMedia: DALI fails.
            DeadlineExceeded: the time was over before; what runs cannot be stopped.
        """
        deadline.check()
        key = (form, (info.width * info.height).bit_length())
        pipeline = self._take(key)
        try:
            pipeline.place(data, indices, lease, spec)
        except GpuflowError:
            raise
        except Exception as error:
            raise CorruptMedia(f"DALI cannot decode this {info.codec} clip") from error
        with self._lock:
            self._idle.append((key, pipeline))
            del self._idle[:-_MAX_KEPT]

    def _unknown(self, info: VideoInfo) -> str | None:
        """Why its decoder does not take a clip."""
        if self._index is None:
            return None if info.codec in _CPU_CODECS else f"its CPU decoder does not take {info.codec}"
        if info.codec not in _GPU_CODECS:
            return f"its GPU decoder does not take {info.codec}"
        return None if (support := pynv_caps.support(info, self._index)) else support.reason

    def _take(self, key: tuple[Form, int]) -> _Pipeline:
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
            self.num_built += 1
        return _Pipeline(key[0], self._index)


class _Pipeline:
    """One pipeline, for one call at a time, and the stream that it runs on."""

    def __init__(self, form: Form, device_index: int | None) -> None:
        import torch

        self._index = device_index
        self._built = _build(form, device_index)
        self._stream = None if device_index is None else torch.cuda.Stream(device_index)  # type: ignore[no-untyped-call]

    def place(self, data: bytes, indices: Sequence[int], lease: Lease, spec: TensorSpec) -> None:
        """Run it on one clip."""
        import torch

        self._built.feed_input("clip", [np.frombuffer(data, np.uint8)])
        self._built.feed_input("frames", [np.array(indices, np.int32)])
        if self._stream is None:
            (out,) = self._built.run()
            _copy(out[0], lease, spec)
            return
        with torch.cuda.stream(self._stream):
            (out,) = self._built.run(cuda_stream=self._stream)
            _copy(out[0], lease, spec)
            self._stream.synchronize()  # its memory is the pipeline's, which runs again


def _copy(found: Any, lease: Lease, spec: TensorSpec) -> None:
    import torch

    frames = torch.utils.dlpack.from_dlpack(found)
    if tuple(frames.shape) != spec.shape:
        raise CorruptMedia(f"DALI gives {tuple(frames.shape)}, where {spec.shape} are wanted")
    lease.tensor(spec).copy_(frames)


def _wrong(info: VideoInfo, *, on_gpu: bool) -> str | None:
    """What DALI would get wrong in a clip of these facts."""
    if info.rotation or info.mirrored:
        return f"it ignores {'that pictures are mirrored' if info.mirrored else f'the rotation by {info.rotation} degrees'}"
    if info.interlaced:
        return "interlaced pictures were not measured"
    if info.matrix != "bt601":
        return f"it takes BT.601 for {info.matrix}"
    if info.full_range and on_gpu:
        return "its GPU decoder was not measured with full range"
    if info.bit_depth != 8 or info.chroma != "420":
        return f"it is used for 8 bits 4:2:0, this has {info.bit_depth} bits {info.chroma}"
    return None


def _build(form: Form, device_index: int | None) -> Any:
    """One clip a run, no prefetching: what is fed is what comes out, and ``exec_dynamic`` outlives a failed run."""
    from nvidia.dali import Pipeline, fn, types

    decoder, place = ("cpu", "cpu") if device_index is None else ("mixed", "gpu")
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=device_index, prefetch_queue_depth=1, exec_dynamic=True)
    with pipeline:
        clip = fn.external_source(name="clip", dtype=types.UINT8, ndim=1)
        numbers = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
        frames = fn.decoders.video(clip, device=decoder, frames=numbers, pad_mode="none")
        pipeline.set_outputs(_normalised(_resized(frames, form, place, fn, types), form, place, fn, types))
    pipeline.build()
    return pipeline


def _resized(frames: Any, form: Form, place: str, fn: Any, types: Any) -> Any:
    if form.size is None:
        return frames
    return fn.resize(
        frames,
        device=place,
        size=list(form.size),
        interp_type=getattr(types, _FILTERS[form.resample]),
        antialias=form.resample != "nearest",
        subpixel_scale=False,
        dtype=types.UINT8,  # rounded between resize and normalisation, as Hugging Face's processors do
    )


def _normalised(frames: Any, form: Form, place: str, fn: Any, types: Any) -> Any:
    floats = form.dtype != "uint8"
    if not floats and not form.planar:
        return frames
    return fn.crop_mirror_normalize(
        frames,
        device=place,
        mean=[255.0 * value if floats else 0.0 for value in form.mean],
        std=[255.0 * value if floats else 1.0 for value in form.std],
        dtype=getattr(types, _TYPES[form.dtype]),
        output_layout="FCHW" if form.planar else "FHWC",
    )
