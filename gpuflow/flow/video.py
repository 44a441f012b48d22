"""Video from bytes to placed ``Frames``, or to the ``Features`` of a preset: open, choose frames, plan, decode, place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpuflow.codecs._backends.dali_video import DaliVideo
from gpuflow.codecs.base import MediaType, Surface, VideoInfo, check_same_size
from gpuflow.codecs.videos import PacketDecoder, cpu_decoder, gpu_decoder, gpu_support
from gpuflow.config import VideoOptions
from gpuflow.errors import BackendUnavailable, CorruptMedia, InvalidOptions
from gpuflow.flow.context import LoadContext, check_resize
from gpuflow.flow.video_dali import choose_dali, place_by_dali
from gpuflow.flow.video_features import FeaturePlacing, finish_features, plan_features, preset_of
from gpuflow.isolation.decoding import Clip, Decoder
from gpuflow.media import Blob, FeatureMetadata, Features, Frames, TensorSpec, VideoMetadata, lay_out
from gpuflow.memory import Lease
from gpuflow.ops.clip_exact import label
from gpuflow.ops.color import nv12_to_rgb
from gpuflow.ops.form import Form, Layout
from gpuflow.ops.frames import close_gaps, finish, scratch, store
from gpuflow.ops.picture import place_picture
from gpuflow.ops.resize import resize_rgb
from gpuflow.presets.image import Preset
from gpuflow.sampling import choose_indices

_NAMED = 8  # missing frames in a message


def load_video(blob: Blob, kind: MediaType, options: VideoOptions, context: LoadContext) -> Frames:
    """Decode the wanted frames and nothing that they do not need, straight into the result. Frames that are damaged are
    left out and named by ``missing_indices``, or, where the decoder concealed the damage and says so, taken and named by
    ``corrupt_indices``; with ``strict`` neither is.

    Raises:
        CorruptMedia, UnsupportedFormat, NoSuchStream: the clip cannot be read, or no wanted frame; with ``strict``, or
            one of them.
        LimitExceeded: the clip, the decoding or the result is larger than ``Limits`` allows.
        InvalidOptions: frames that the clip does not have.
        BackendUnavailable: a GPU was asked for by name and cannot decode this clip.
        DeadlineExceeded, SlabExhausted: no time, no room.
    """
    if options.preset is not None:
        raise ValueError("what a preset makes are features: load_video_features")
    with context.decoder(blob, kind, "video") as decoder:
        return _Taking(decoder, options, context, blob.content_hash).frames()


def load_video_features(blob: Blob, kind: MediaType, options: VideoOptions, context: LoadContext) -> Features:
    """Likewise, as ``options.preset`` wants them. Features depend on how many frames there are, so that a damaged clip
    is decoded a second time, without the frames that are missing.

    Raises:
        InvalidOptions: also an unknown preset, too few frames for it, types that contradict each other.
        GpuflowError: as ``load_video``.
    """
    preset = preset_of(options)
    with context.decoder(blob, kind, "video") as decoder:
        taking = _Taking(decoder, options, context, blob.content_hash)
        try:
            return taking.features(preset)
        except _Lacking as lacking:
            try:
                return taking.features(preset, without=lacking.missing)
            except InvalidOptions as error:  # too few are left for the preset, which is not the options' fault
                raise CorruptMedia(f"{lacking}; {error}") from error


class _Lacking(CorruptMedia):
    """Some wanted frames, not all, did not come out, and the result cannot be made of the others as it lies."""

    def __init__(self, message: str, missing: Sequence[int]) -> None:
        super().__init__(message)
        self.missing = frozenset(missing)


@dataclass(frozen=True, slots=True)
class Chosen:
    """An opened clip, the frames that are wanted of it, who decodes them, and why not whoever should have."""

    clip: Clip
    indices: tuple[int, ...]
    on_gpu: PacketDecoder | None
    fallback: str | None
    without: frozenset[int] = frozenset()
    dali: DaliVideo | None = None

    @property
    def backend(self) -> str:
        return (self.dali or self.on_gpu or cpu_decoder).name

    def by_dali(self, options: VideoOptions, lease: Lease, spec: TensorSpec, context: LoadContext) -> Chosen:
        """Have DALI decode, if it is to; where it fails, without it, and with the reason."""
        if self.dali is None:
            return self
        failed = place_by_dali(self.dali, self.clip, self.indices, options, lease, spec, context)
        return self if failed is None else replace(self, dali=None, fallback=failed)

    def came_out(self, missing: Sequence[int], corrupt: Collection[int], *, strict: bool) -> tuple[int, ...]:
        """The indices without ``missing``. Raises ``CorruptMedia`` where ``strict`` wants them all, and whole."""
        if strict and (missing or corrupt):
            raise CorruptMedia(self.loss(sorted({*missing, *corrupt})))
        lost = frozenset(missing)
        return tuple(index for index in self.indices if index not in lost)

    def loss(self, missing: Sequence[int]) -> str:
        """How many frames came out, and which did not."""
        wanted = len(set(self.indices))
        named = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        return f"{wanted - len(missing)} of {wanted} wanted frames were decoded; damaged: {named}"


class _Taking:
    """One clip's way from its decoder to the result."""

    def __init__(self, decoder: Decoder, options: VideoOptions, context: LoadContext, content_hash: str | None) -> None:
        self._decoder = decoder
        self._options = options
        self._context = context
        self._hash = content_hash

    def frames(self) -> Frames:
        """The frames, as the options want them."""
        options, context = self._options, self._context
        with self._opened() as chosen:
            info = chosen.clip.info
            check_resize(info.displayed_size, target_size(info, options), context.limits)
            specs = lay_out({"frames": (options.dtype or "uint8", frames_shape(info, options, len(chosen.indices)))})
            with context.placing(specs) as lease, context.stage("decode"):
                missing: tuple[int, ...] = ()
                corrupt: Collection[int] = ()
                chosen = chosen.by_dali(options, lease, specs[0], context)
                if chosen.dali is None:
                    sink = Placing(info, options, chosen.indices, lease, specs[0], on_host=chosen.on_gpu is None)
                    missing, corrupt = chosen.clip.decode(sink, chosen.on_gpu), sink.corrupt
                came_out = chosen.came_out(missing, corrupt, strict=options.strict)
                if missing:
                    specs = (sink.close_gaps(came_out),)
            metadata = describe_frames(chosen, came_out, missing, options, corrupt)
        return Frames(lease, specs, metadata, backend=chosen.backend, fallback=chosen.fallback, content_hash=self._hash)

    def features(self, preset: Preset, *, without: frozenset[int] = frozenset()) -> Features:
        """What the preset makes of the frames."""
        context = self._context
        with self._opened(without) as chosen:
            info = chosen.clip.info
            plan = plan_features(preset, self._options, info, len(chosen.indices))
            for size in (*plan.views[0].via, plan.views[0].resized):
                check_resize(info.displayed_size, size, context.limits)
            specs = lay_out({name: (dtype, shape) for name, dtype, shape in plan.outputs})
            metadata = describe_frames(chosen, chosen.indices, (), self._options)
            with context.placing(specs) as lease:
                with context.stage("decode"):
                    sink = FeaturePlacing(info, plan, chosen.indices, lease, specs[0], on_host=chosen.on_gpu is None)
                    missing = chosen.clip.decode(sink, chosen.on_gpu)
                    chosen.came_out(missing, sink.corrupt, strict=self._options.strict)
                    if missing:
                        raise _Lacking(chosen.loss(missing), missing)
                metadata = replace(metadata, corrupt_indices=tuple(sorted(sink.corrupt)))
                finish_features(plan, preset, metadata, lease, specs)
        described = FeatureMetadata(preset.name, metadata, num_tokens=plan.num_tokens)
        backend = f"{chosen.backend}+{label('cpu' if sink.exact else context.device.name)}"
        return Features(lease, specs, described, backend=backend, fallback=chosen.fallback, content_hash=self._hash)

    @contextmanager
    def _opened(self, without: frozenset[int] = frozenset()) -> Iterator[Chosen]:
        """The clip and what is wanted of it, except the frames ``without``."""
        context = self._context
        with ExitStack() as stack:
            with context.stage("probe"):
                clip = stack.enter_context(self._decoder.clip())
                chosen = choose_indices(
                    self._options,
                    pts_seconds=clip.pts_seconds,
                    duration_seconds=clip.info.duration_seconds,
                    max_frames=context.limits.max_video_frames,
                    fps=clip.info.nominal_fps or clip.info.fps,
                    key_indices=clip.key_indices,
                )
                indices = tuple(index for index in chosen if index not in without)
                clip.plan(indices)
                dali, refused = choose_dali(clip, self._options, context)
                on_gpu, fallback = choose_decoder(clip, context)
            yield Chosen(clip, indices, on_gpu, refused or fallback, without, dali)


class Placing:
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
        self._size = target_size(info, options)
        self._options = options
        self._spec = spec
        self._dtype = spec.dtype
        self._lease = lease
        self._frames = lease.array(spec)
        self._direct = spec.dtype == "uint8" and options.layout == "THWC" and self._size == self._shown
        self._direct = self._direct and (lease.device == "cpu" or not on_host)
        self._scratch_like: Any = np.empty(0) if on_host else self._frames
        # On a GPU one kernel does it all, from the planes of whoever decodes
        self._form = _form(self._size, options, spec.dtype) if lease.device != "cpu" else None
        self.corrupt: set[int] = set()
        self._places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            self._places.setdefault(index, []).append(place)

    def put(self, index: int, surface: Surface) -> None:
        """Convert, resize, lay out, copy."""
        if surface.corrupt:
            self.mark_corrupt(index)
        if self._form is not None and (picture := surface.planes()) is not None:
            if self._options.size is None:
                check_same_size(self._info, surface.displayed_size, self._shown)
            place_picture(picture, self._form, self._places[index], self._frames, self._lease)
            return
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

    def mark_corrupt(self, index: int) -> None:
        """See ``ArraySink``."""
        self.corrupt.add(index)

    def close_gaps(self, came_out: Sequence[int]) -> TensorSpec:
        """The tensor of those frames alone, moved together in place."""
        lost = set(self._places) - set(came_out)
        gaps = {place for index in lost for place in self._places[index]}
        close_gaps(self._frames, [place for place in range(len(self._frames)) if place not in gaps], self._lease)
        return replace(self._spec, shape=(len(came_out), *self._spec.shape[1:]))

    def repeat(self, index: int) -> None:
        """See ``ArraySink``."""
        first, *repeats = self._places[index]
        for place in repeats:
            self._frames[place] = self._frames[first]


def _form(size: tuple[int, int], options: VideoOptions, dtype: str) -> Form:
    """What the kernel makes of each picture."""
    unit = (None, None) if dtype == "uint8" else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    layout: Layout = "CHW" if options.layout == "TCHW" else "HWC"
    return Form(size, resample=options.resample, layout=layout, dtype=dtype, mean=unit[0], std=unit[1])


def choose_decoder(clip: Clip, context: LoadContext) -> tuple[PacketDecoder | None, str | None]:
    """The GPU's decoder where the device is a GPU and it takes this clip; otherwise none, and why.

    Raises:
        BackendUnavailable: PyAV is not here; or a GPU was asked for by name and cannot decode this clip.
    """
    if not (ready := cpu_decoder.capability()):
        raise BackendUnavailable(ready.reason)
    if not context.device.is_cuda:
        return None, None
    decoder = gpu_decoder(context.device.index, nv12_to_rgb, context.nvdec)
    if support := gpu_support(decoder, clip.info, clip.file):
        return decoder, None
    return None, context.fall_back(support.reason, modality="video")


def target_size(info: VideoInfo, options: VideoOptions) -> tuple[int, int]:
    """``(height, width)`` of the result's frames."""
    if options.size is None:
        return info.displayed_size
    return (options.size, options.size) if isinstance(options.size, int) else options.size


def frames_shape(info: VideoInfo, options: VideoOptions, count: int) -> tuple[int, ...]:
    """Shape of the result, in the layout that the options name."""
    height, width = target_size(info, options)
    return (count, 3, height, width) if options.layout == "TCHW" else (count, height, width, 3)


def describe_frames(
    chosen: Chosen,
    indices: Sequence[int],
    missing: Sequence[int],
    options: VideoOptions,
    corrupt: Collection[int] = (),
) -> VideoMetadata:
    """Facts of the clip, and of the frames that came out of it."""
    clip, info = chosen.clip, chosen.clip.info
    height, width = info.displayed_size
    keys = frozenset(clip.key_indices)
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
        mirrored=info.mirrored,
        nominal_fps=info.nominal_fps,
        keyframes=tuple(index in keys for index in indices),
        missing_indices=tuple(sorted({*missing, *chosen.without})),
        sampler=options.sampler,
        corrupt_indices=tuple(sorted(corrupt)),
        origin_seconds=info.origin_seconds,
    )
