"""Features of several clips as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuflow.errors import InvalidOptions
from gpuflow.media import Features
from gpuflow.ops.mel_finish import silence
from gpuflow.ops.stack import filled, stacked
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names
from gpuflow.values import shown


def collate_audio(items: Sequence[Features], spec: MelSpec | None) -> dict[str, Any]:
    """See ``collate``: clips on a new first axis, parts of clips one after another, at one length."""
    first = items[0]
    if spec is not None and (not isinstance(spec, MelSpec) or spec.name != first.metadata.preset):
        raise InvalidOptions(f"the features are of {first.metadata.preset}; got the spec {shown(spec)}")
    spec = spec or _built_in(first.metadata.preset)
    sizes = spec.sizes_name if spec is not None else None
    batch = {}
    for name, axes in ((tensor.name, len(tensor.shape)) for tensor in first.specs):
        tensors = [item[name] for item in items]
        joined = name == sizes or (bool(first.metadata.parts) and axes > 1)
        clips = tensors if joined else [tensor[None] for tensor in tensors]
        is_whole = name == first.specs[0].name and not first.metadata.parts
        batch[name] = _features(clips, spec) if is_whole else stacked(clips)
    return batch


def _features(clips: Sequence[Any], spec: MelSpec | None) -> Any:
    """On a new axis; what is padded has the level that the spec gives to silence."""
    if len({clip.shape[1:] for clip in clips}) == 1:
        return stacked(clips)
    if spec is None:
        raise InvalidOptions("the clips differ in length, and their spec is no built-in one: collate(..., spec=spec)")
    if spec.kind == "raw" or spec.zero_invalid or spec.normalize != "none" or spec.frame_multiple > 1:
        return stacked(clips)
    axis = 2 if spec.layout == "MT" else 1
    return filled(clips, axis=axis, levels=[_silence(spec, clip) for clip in clips])


def _silence(spec: MelSpec, features: Any) -> Any:
    """``(bands,)`` float32: a frame of padding beside the other frames of its clip."""
    loudest = _loudest(spec, features) if spec.clamp == "clip_max" else None
    bands = silence(spec, loudest)[:, 0].astype(np.float32)
    flat = np.zeros(spec.n_mels if spec.delta_window else 0, np.float32)
    return np.tile(np.concatenate([bands, flat]), spec.stack)


def _loudest(spec: MelSpec, features: Any) -> float:
    """The clip's loudest level before it was scaled."""
    rows = features[0].T if spec.layout == "MT" else features[0]
    levels = rows.float().reshape(-1, 2 if spec.delta_window else 1, spec.n_mels)[:, 0]
    if spec.bin_std:
        levels = levels * levels.new_tensor(spec.bin_std)
    if spec.bin_mean:
        levels = levels + levels.new_tensor(spec.bin_mean)
    return (float(levels.max()) - spec.offset) / spec.scale


def _built_in(name: str) -> MelSpec | None:
    return mel_spec(name) if name in mel_spec_names() else None
