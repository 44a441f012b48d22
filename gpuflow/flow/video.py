"""Video from bytes to placed ``Frames``: open, choose frames, plan, decode, resize, place."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from gpuflow.codecs.base import MediaType, Surface, VideoInfo, check_same_size
from gpuflow.codecs.videos import PacketDecoder, cpu_decoder, gpu_decoder
from gpuflow.config import VideoOptions
from gpuflow.errors import BackendUnavailable, CorruptMedia
from gpuflow.flow.context import LoadContext, check_resize
from gpuflow.isolation.decoding import Clip
from gpuflow.media import Blob, Frames, TensorSpec, VideoMetadata, lay_out
from gpuflow.memory import Lease
from gpuflow.ops.color import nv12_to_rgb
from gpuflow.ops.frames import finish, scratch, store
from gpuflow.ops.resize import resize_rgb
from gpuflow.sampling import choose_indices

_NAMED = 8  # missing frames in a message


def load_video(blob: Blob, kind: MediaType, options: VideoOptions, context: LoadContext) -> Frames:
    """Decode the wanted frames and nothing that they do not need, straight into the result.

    Raises:
        CorruptMedia, UnsupportedFormat, NoSuchStream: the clip cannot be read, or a wanted frame is damaged.
        LimitExceeded: the clip, the decoding or the result is larger than ``Limits`` allows.
        InvalidOptions: frames that the clip does not have.
        BackendUnavailable: a GPU was asked for by name and cannot decode this clip.
        DeadlineExceeded, SlabExhausted: no time, no room.
    """
    with context.decoder(blob, kind, "video") as decoder, ExitStack() as stack:
        with context.stage("probe"):
            clip = stack.enter_context(decoder.clip())
            indices = choose_indices(
                options,
                pts_seconds=clip.pts_seconds,
                duration_seconds=clip.info.duration_seconds,
                max_frames=context.limits.max_video_frames,
            )
            clip.plan(indices)
            check_resize(clip.info.displayed_size, _target_size(clip.info, options), context.limits)
            on_gpu, fallback = _choose_decoder(clip, context)
        specs = lay_out({"frames": (options.dtype or "uint8", _shape(clip.info, options, len(indices)))})
        with context.placing(specs) as lease, context.stage("decode"):
            placing = _Placing(clip.info, options, indices, lease, specs[0], on_host=on_gpu is None)
            _require_all(clip.decode(placing, on_gpu), indices)
        metadata = _describe(clip, indices)
    backend = (on_gpu or cpu_decoder).name
    return Frames(lease, specs, metadata, backend=backend, fallback=fallback, content_hash=blob.content_hash)


def _require_all(missing: Sequence[int], wanted: Sequence[int]) -> None:
    if missing:
        count = len(set(wanted))
        named = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise CorruptMedia(f"{count - len(missing)} of {count} wanted frames were decoded; damaged: {named}")


class _Placing:
    """``ArraySink`` that writes each picture to all of its places in the result."""

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
        self._info = info
        self._shown = info.displayed_size
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
        if self._direct:
            surface.rgb_into(self._frames[self._places[index][0]])
            self.repeat(index)
            return
        rgb = scratch((*surface.displayed_size, 3), self._scratch_like)
        surface.rgb_into(rgb)
        self.take(index, rgb)

    @property
    def places(self) -> dict[int, int] | None:
        """See ``ArraySink``."""
        if not self._direct or self._lease.device != "cpu":
            return None
        frame_bytes = 3 * self._shown[0] * self._shown[1]
        return {index: self._lease.offset + frame_bytes * places[0] for index, places in self._places.items()}

    def take(self, index: int, rgb: Any) -> None:
        """Resize, lay out, copy."""
        if self._options.size is None:
            check_same_size(self._info, rgb.shape[:2], self._shown)
        frame = finish(
            resize_rgb(rgb, self._size, self._options.resample),
            planar=self._options.layout == "TCHW",
            dtype=self._dtype,
        )
        for place in self._places[index]:
            store(frame, self._frames[place], self._lease)

    def repeat(self, index: int) -> None:
        """See ``ArraySink``."""
        first, *repeats = self._places[index]
        for place in repeats:
            self._frames[place] = self._frames[first]


def _choose_decoder(clip: Clip, context: LoadContext) -> tuple[PacketDecoder | None, str | None]:
    """The GPU's decoder where the device is a GPU and it takes this clip; otherwise none, and why."""
    if not (ready := cpu_decoder.capability()):
        raise BackendUnavailable(ready.reason)
    if not context.device.is_cuda:
        return None, None
    decoder = gpu_decoder(context.device.index, nv12_to_rgb)
    if support := decoder.supports(clip.info):
        return decoder, None
    return None, context.fall_back(support.reason, modality="video")


def _target_size(info: VideoInfo, options: VideoOptions) -> tuple[int, int]:
    if options.size is None:
        return info.displayed_size
    return (options.size, options.size) if isinstance(options.size, int) else options.size


def _shape(info: VideoInfo, options: VideoOptions, count: int) -> tuple[int, ...]:
    height, width = _target_size(info, options)
    return (count, 3, height, width) if options.layout == "TCHW" else (count, height, width, 3)


def _describe(clip: Clip, indices: Sequence[int]) -> VideoMetadata:
    info = clip.info
    height, width = info.displayed_size
    return VideoMetadata(
        codec=info.codec,
        width=width,
        height=height,
        num_frames=info.num_frames,
        source_fps=info.fps,
        duration_seconds=info.duration_seconds,
        frame_indices=tuple(indices),
        timestamps_seconds=tuple(clip.pts_seconds[index] for index in indices),
        rotation=info.rotation,
        color_matrix=info.matrix,
        color_range="full" if info.full_range else "limited",
        bit_depth=info.bit_depth,
    )
