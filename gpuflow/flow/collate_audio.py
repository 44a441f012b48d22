"""Features of several clips as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuflow.errors import InvalidOptions
from gpuflow.media import Features
from gpuflow.ops.mel_finish import silence
from gpuflow.ops.stack import stacked
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names

if TYPE_CHECKING:
    import torch


def collate_audio(items: Sequence[Features], spec: MelSpec | None) -> dict[str, torch.Tensor]:
    """See ``collate``: clips on a new first axis, parts of clips one after another, at one length."""
    in_parts, batch = bool(items[0].metadata.parts), {}
    for name, kind in ((tensor.name, len(tensor.shape)) for tensor in items[0].specs):
        tensors = [item[name] for item in items]
        sizes = kind == 1 and all(len(tensor) == 1 for tensor in tensors)
        parts = tensors if in_parts or sizes else [tensor[None] for tensor in tensors]
        is_features = name == items[0].specs[0].name
        batch[name] = _silent_to_one_length(parts, items[0], spec) if is_features else stacked(parts)
    return batch


def _silent_to_one_length(tensors: Sequence[Any], item: Features, spec: MelSpec | None) -> Any:
    """``stacked``, and what is padded at the level that the spec gives to silence."""
    import torch

    batch = stacked(tensors)
    if all(tensor.shape[1:] == batch.shape[1:] for tensor in tensors):
        return batch
    spec = spec or _built_in(item.metadata.preset)
    if spec.kind == "raw" or spec.zero_invalid or spec.normalize != "none" or spec.frame_multiple > 1:
        return batch
    time = 2 if spec.layout == "MT" else 1
    first = 0
    for tensor in tensors:
        behind = batch[first : first + len(tensor)].narrow(
            time, tensor.shape[time], batch.shape[time] - tensor.shape[time]
        )
        level = torch.from_numpy(_silence(spec, tensor)).to(batch)
        behind.copy_(level[:, None] if spec.layout == "MT" else level)
        first += len(tensor)
    return batch


def _silence(spec: MelSpec, features: Any) -> Any:
    """``(bands,)`` float32: a frame of padding beside the other frames of its clip."""
    loudest = None
    if spec.clamp == "clip_max" and features.numel():
        loudest = (float(features.max()) - spec.offset) / spec.scale
    bands = silence(spec, loudest)[:, 0]
    flat = np.zeros(spec.n_mels if spec.delta_window else 0, np.float32)
    return np.tile(np.concatenate([bands, flat]), spec.stack)


def _built_in(name: str) -> MelSpec:
    if name not in mel_spec_names():
        raise InvalidOptions(f"features of {name} differ in length: name their MelSpec, collate(..., spec=spec)")
    return mel_spec(name)
