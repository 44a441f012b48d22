"""``VideoOptions.engine = "dali"``: a clip's frames by one DALI pipeline into their place of the result."""

from __future__ import annotations

from collections.abc import Sequence

from gpuflow.codecs._backends.dali_video import DaliVideo, Form, capability
from gpuflow.codecs.videos import dali
from gpuflow.config import VideoOptions
from gpuflow.errors import BackendUnavailable, CorruptMedia
from gpuflow.flow.context import LoadContext
from gpuflow.isolation.decoding import Clip
from gpuflow.media import TensorSpec
from gpuflow.memory import Lease


def choose_dali(clip: Clip, options: VideoOptions, context: LoadContext) -> tuple[DaliVideo | None, str | None]:
    """DALI where it was asked for and takes this clip; otherwise nothing, and the reason where it was asked for.

    Raises:
        BackendUnavailable: it is not installed.
    """
    if options.engine != "dali":
        return None, None
    if options.preset is not None:
        return None, refuse_dali(options, "presets are made of frames by the exact engine", context)
    if not (ready := capability()):
        raise BackendUnavailable(f"engine 'dali' cannot be used: {ready.reason}")
    engine = dali(context.device.index if context.device.is_cuda else None)
    if support := engine.supports(clip.file, clip.info):
        return engine, None
    return None, refuse_dali(options, support.reason, context)


def refuse_dali(options: VideoOptions, reason: str, context: LoadContext) -> str | None:
    """Note that another engine does what DALI was asked for; returns ``reason``, or ``None`` where nobody asked."""
    if options.engine != "dali":
        return None
    context.counters.add("gpuflow_fallback_total", modality="video")
    return reason


def place_by_dali(
    engine: DaliVideo,
    clip: Clip,
    indices: Sequence[int],
    options: VideoOptions,
    lease: Lease,
    spec: TensorSpec,
    context: LoadContext,
) -> str | None:
    """Write the frames to the lease; where DALI fails on this clip, the reason, and the other engine says what it is."""
    if clip.file is None:
        raise ValueError("choose_dali comes before place_by_dali")
    planar = options.layout == "TCHW"
    size = spec.shape[2:] if planar else spec.shape[1:3]
    form = Form((size[0], size[1]), options.resample, planar, spec.dtype)
    if form.size == clip.info.displayed_size:
        form = Form(None, "bicubic", planar, spec.dtype)
    try:
        engine.place(clip.file.data, clip.info, indices, form, lease, spec, context.deadline)
    except CorruptMedia as error:
        return refuse_dali(options, str(error), context)
    return None
