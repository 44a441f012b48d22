"""Video from bytes to placed ``Frames``: open, choose frames, plan, decode, resize, place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuflow.codecs.base import MediaType, Surface, VideoInfo
from gpuflow.codecs.video.decode import VideoDecoder, decode_frames
from gpuflow.codecs.video.source import PacketSource
from gpuflow.codecs.videos import cpu_decoder, gpu_decoder
from gpuflow.config import VideoOptions
from gpuflow.errors import BackendUnavailable
from gpuflow.flow.context import LoadContext, check_resize
from gpuflow.media import Blob, Frames, TensorSpec, VideoMetadata, lay_out
from gpuflow.memory import Lease
from gpuflow.ops.color import nv12_to_rgb
from gpuflow.ops.frames import finish, scratch, store
from gpuflow.ops.resize import resize_rgb
from gpuflow.sampling import choose_indices


def load_video(blob: Blob, kind: MediaType, options: VideoOptions, context: LoadContext) -> Frames:
    """Decode the wanted frames and nothing that they do not need, straight into the result.

    Raises:
        CorruptMedia, UnsupportedFormat, NoSuchStream: the clip cannot be read, or a wanted frame is damaged.
        LimitExceeded: the clip, the decoding or the result is larger than ``Limits`` allows.
        InvalidOptions: frames that the clip does not have.
        BackendUnavailable: a GPU was asked for by name and cannot decode this clip.
        DeadlineExceeded, SlabExhausted: no time, no room.
    """
    with context.stage("probe"):
        source = PacketSource.open(blob.data, kind, limits=context.limits, deadline=context.deadline)
        indices = choose_indices(
            options,
            pts_seconds=source.pts_seconds,
            duration_seconds=source.info.duration_seconds,
            max_frames=context.limits.max_video_frames,
        )
        plan = source.plan(indices, limits=context.limits)
        check_resize(displayed_size(source.info), _target_size(source.info, options), context.limits)
        decoder, fallback = _choose_decoder(source.info, context)
    specs = lay_out({"frames": (options.dtype or "uint8", _shape(source.info, options, len(indices)))})
    with context.placing(specs) as lease, context.stage("decode"):
        sink = _Placing(source.info, options, indices, lease, specs[0], on_host=decoder.device == "cpu")
        decode_frames(source, plan, sink, decoder=decoder, deadline=context.deadline, pool=context.segment_pool)
    metadata = _describe(source, indices)
    return Frames(lease, specs, metadata, backend=decoder.name, fallback=fallback, content_hash=blob.content_hash)


def displayed_size(info: VideoInfo) -> tuple[int, int]:
    """``(height, width)`` after rotation."""
    return (info.width, info.height) if info.rotation % 180 else (info.height, info.width)


class _Placing:
    """``FrameSink`` that writes each picture to all of its places in the result."""

    def __init__(
        self,
        info: VideoInfo,
        options: VideoOptions,
        indices: Sequence[int],
        lease: Lease,
        spec: TensorSpec,
        *,
        on_host: bool,
    ) -> None:
        self._shown = displayed_size(info)
        self._size = _target_size(info, options)
        self._options = options
        self._dtype = spec.dtype
        self._lease = lease
        self._frames = lease.array(spec)
        self._direct = spec.dtype == "uint8" and options.layout == "THWC" and self._size == self._shown
        self._direct = self._direct and (lease.device == "cpu" or not on_host)
        self._scratch_like: Any = np.empty(0) if on_host else self._frames
        self._places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            self._places.setdefault(index, []).append(place)

    def put(self, index: int, surface: Surface) -> None:
        """Convert, resize, lay out, copy."""
        first, *repeats = self._places[index]
        if self._direct:
            surface.rgb_into(self._frames[first])
            for place in repeats:
                self._frames[place] = self._frames[first]
            return
        rgb = scratch((*self._shown, 3), self._scratch_like)
        surface.rgb_into(rgb)
        frame = finish(
            resize_rgb(rgb, self._size, self._options.resample),
            planar=self._options.layout == "TCHW",
            dtype=self._dtype,
        )
        for place in (first, *repeats):
            store(frame, self._frames[place], self._lease)


def _choose_decoder(info: VideoInfo, context: LoadContext) -> tuple[VideoDecoder, str | None]:
    """The GPU's decoder where the device is a GPU and it takes this clip; otherwise libavcodec, and why."""
    if not (ready := cpu_decoder.capability()):
        raise BackendUnavailable(ready.reason)
    if not context.device.is_cuda:
        return cpu_decoder, None
    decoder = gpu_decoder(context.device.index, nv12_to_rgb)
    if support := decoder.supports(info):
        return decoder, None
    return cpu_decoder, context.fall_back(support.reason, modality="video")


def _target_size(info: VideoInfo, options: VideoOptions) -> tuple[int, int]:
    if options.size is None:
        return displayed_size(info)
    return (options.size, options.size) if isinstance(options.size, int) else options.size


def _shape(info: VideoInfo, options: VideoOptions, count: int) -> tuple[int, ...]:
    height, width = _target_size(info, options)
    return (count, 3, height, width) if options.layout == "TCHW" else (count, height, width, 3)


def _describe(source: PacketSource, indices: Sequence[int]) -> VideoMetadata:
    info = source.info
    height, width = displayed_size(info)
    return VideoMetadata(
        codec=info.codec,
        width=width,
        height=height,
        num_frames=info.num_frames,
        source_fps=info.fps,
        duration_seconds=info.duration_seconds,
        frame_indices=tuple(indices),
        timestamps_seconds=tuple(source.pts_seconds[index] for index in indices),
        rotation=info.rotation,
        color_matrix=info.matrix,
        color_range="full" if info.full_range else "limited",
        bit_depth=info.bit_depth,
    )
