"""Features of one clip on the CPU, under the names of the processor that they equal.

Frames that touch nothing but padding are filled, not computed: their power is 0, so the result is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops import mel_finish as finish
from gpuflow.ops.audio_parts import quietest_parts
from gpuflow.ops.frames import store
from gpuflow.ops.mel_power import mel_power
from gpuflow.ops.mel_signal import Check, padded_signal, raw_samples, stretches
from gpuflow.presets.clip_plan import ClipPlan, Parts, clip_plan, row_axis
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import MelPlan

Samples = NDArray[np.float32]
_STRETCH_FRAMES = 3_200  # between two checks: 32 s of sound, 5 ms of work
_STRETCH_BANDS = 8


def features(samples: Samples, spec: MelSpec, *, parts: Parts | None = None, dtype: str = "float32") -> dict[str, Any]:
    """A clip's features and what is beside them, without the batch axis: as of a batch of one.

    Args:
        samples: ``(n,)`` float32 at ``spec.sample_rate``.
        parts: as of ``clip_plan``.
        dtype: of the features: ``"float32"``, ``"float16"``, or ``"bfloat16"``, whose bits come as uint16.

    Raises:
        NoSuchStream: too short for a frame.
        InvalidOptions: as ``clip_plan``.

    Source: the feature extractors of transformers; equal to them within tests/parity/tolerances.py.
    """
    clip = planned(samples, spec, parts=parts, dtype=dtype)
    outs = {name: _empty(kind, shape) for name, (kind, shape) in clip.tensors.items()}
    write_features(samples, clip, outs)
    return outs


def planned(samples: Samples, spec: MelSpec, *, parts: Parts | None = None, dtype: str = "float32") -> ClipPlan:
    """``clip_plan``, cut where the clip is quietest if that is the spec's rule.

    Raises:
        NoSuchStream, InvalidOptions: as ``clip_plan``.
        LimitExceeded: too many parts.
    """
    if parts is None and spec.split == "quietest":
        size = spec.split_frames * spec.hop_length
        search, window = spec.split_search_samples, spec.split_window_samples
        within = samples[: spec.most_samples]
        parts = quietest_parts(within, limit=size, search=search, window=window, middle=True)[: spec.max_splits] or None
    return clip_plan(spec, len(samples), parts=parts, dtype=dtype)


def place_features(
    samples: Samples, clip: ClipPlan, lease: Lease, tensors: Sequence[TensorSpec], *, check: Check | None = None
) -> None:
    """``write_features`` of host samples into a block; onto a GPU they are uploaded."""
    if lease.device == "cpu":
        write_features(samples, clip, {tensor.name: lease.array(tensor) for tensor in tensors}, check=check)
        return
    outs = {tensor.name: _empty(tensor.dtype, tensor.shape) for tensor in tensors}
    write_features(samples, clip, outs, check=check)
    for tensor in tensors:
        store(outs[tensor.name], lease.array(tensor), lease)


def write_features(samples: Samples, clip: ClipPlan, outs: Mapping[str, Any], *, check: Check | None = None) -> None:
    """Write every tensor of the plan to its array, of any strides; bfloat16 as its bits in uint16.

    ``check`` is called before each part, and within a long one every few milliseconds: what it raises ends the work, and
    leaves the arrays half written.
    """
    spec, check = clip.spec, check or _no_check
    out = outs[spec.features_name]
    if spec.split == "after_mel":
        _write_cut(samples, clip, out, check)
    else:
        for place, plan, (first, last) in zip(out if clip.in_parts else [out], clip.plans, clip.parts, strict=True):
            _write_part(samples[first:last], spec, plan, place, clip.dtype, check)
    write_beside(clip, outs)


def write_beside(clip: ClipPlan, outs: Mapping[str, Any]) -> None:
    """Write what stands beside the features: their mask, their number of tokens."""
    spec = clip.spec
    if spec.mask_name is not None:
        _write_mask(clip, outs[spec.mask_name])
    if spec.sizes_name is not None:
        outs[spec.sizes_name][...] = clip.num_tokens


def _write_cut(samples: Samples, clip: ClipPlan, out: Any, check: Check) -> None:
    """One mel over the whole clip, its frames split among the parts."""
    spec, plan = clip.spec, clip.plans[0]
    whole = np.empty(plan.shape, out.dtype)
    _write(samples, spec, plan, whole, clip.dtype, check)
    axis, frames = row_axis(spec), spec.split_frames
    for part, place in enumerate(out):
        check()
        place[...] = whole.take(range(part * frames, (part + 1) * frames), axis)


def _write_part(samples: Samples, spec: MelSpec, plan: MelPlan, out: Any, dtype: str, check: Check) -> None:
    """Features of a part, zeros behind them where others are longer."""
    by_row = np.moveaxis(out, row_axis(spec), 0)
    rows = plan.shape[row_axis(spec)]
    by_row[rows:] = 0
    _write(samples, spec, plan, np.moveaxis(by_row[:rows], 0, row_axis(spec)), dtype, check)


def _write(samples: Samples, spec: MelSpec, plan: MelPlan, out: Any, dtype: str, check: Check) -> None:
    check()
    if spec.kind == "raw":
        out[...] = finish.cast(raw_samples(samples, spec, plan, check), dtype)
    elif spec.stack > 1 or spec.delta_window or spec.normalize != "none":
        _write_whole(samples, spec, plan, out, dtype, check)
    else:
        _write_filled(samples, spec, plan, finish.by_frame(out, spec), dtype, check)


def _write_filled(samples: Samples, spec: MelSpec, plan: MelPlan, out: Any, dtype: str, check: Check) -> None:
    """Where each frame is finished by itself: ``(n_mels, frames)``, live ones computed, the others filled."""
    in_place = dtype == spec.precision
    levels = out[:, : plan.live] if in_place else np.empty((spec.n_mels, plan.live), spec.precision)
    loudest = _compute(samples, spec, plan, levels, check)
    if not in_place:
        for some in stretches(plan.live, _STRETCH_FRAMES, check):
            out[:, some] = finish.cast(levels[:, some], dtype)
    if plan.live < plan.framed:
        out[:, plan.live : plan.framed] = finish.cast(finish.silence(spec, loudest), dtype)
    out[:, plan.valid_frames if spec.zero_invalid else plan.framed :] = 0


def _write_whole(samples: Samples, spec: MelSpec, plan: MelPlan, out: Any, dtype: str, check: Check) -> None:
    """Where frames know of each other."""
    mels = spec.n_mels
    levels = np.empty((2 * mels if spec.delta_window else mels, plan.framed), spec.precision)
    loudest = _compute(samples, spec, plan, levels[:mels, : plan.live], check)
    levels[:mels, plan.live :] = finish.silence(spec, loudest)
    for some in stretches(mels if spec.delta_window else 0, _STRETCH_BANDS, check):
        levels[mels:][some] = finish.deltas(levels[some], spec.delta_window)
    for some in stretches(len(levels) if spec.normalize == "feature" else 0, _STRETCH_BANDS, check):
        finish.normalise(levels[some], spec, plan.valid_frames)
    if spec.zero_invalid:
        levels[:, plan.valid_frames :] = 0
    by_row, stack = np.moveaxis(out, row_axis(spec), 0), spec.stack
    for some in stretches(len(by_row), _STRETCH_FRAMES // stack, check):
        frames = levels[:, some.start * stack : some.stop * stack]
        made = finish.cast(finish.stacked(frames, spec, rows=some.stop - some.start), dtype)
        by_row[some] = np.moveaxis(made, row_axis(spec), 0)


def _compute(samples: Samples, spec: MelSpec, plan: MelPlan, levels: Any, check: Check) -> float | None:
    """Write the live frames' finished levels; the loudest of the clip, before scaling, ``None`` without a live frame."""
    if not plan.live:
        return None
    padded, tops = padded_signal(samples, spec, plan, check), []
    for some in stretches(plan.live, _STRETCH_FRAMES, check):
        mel_power(padded, spec, first=some.start, count=some.stop - some.start, out=levels[:, some])
        finish.to_logs(levels[:, some], spec)
        tops.append(levels[:, some].max())
    loudest = float(np.max(tops))
    for some in stretches(plan.live, _STRETCH_FRAMES, check):
        finish.to_scale(levels[:, some], spec, loudest)
    return loudest


def _no_check() -> None:
    pass


def _write_mask(clip: ClipPlan, mask: Any) -> None:
    if clip.spec.mask_of == "tokens":
        mask[...] = 1
        return
    for place, valid in zip(mask if clip.in_parts else [mask], clip.valid_lengths, strict=True):
        place[:valid] = 1
        place[valid:] = 0


def _empty(kind: str, shape: tuple[int, ...]) -> Any:
    return np.empty(shape, "uint16" if kind == "bfloat16" else kind)
