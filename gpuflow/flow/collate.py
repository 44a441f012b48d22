"""Features of several images or clips as one batch: what the family's processor returns for a list of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gpuflow.errors import InvalidOptions
from gpuflow.flow.collate_audio import collate_audio
from gpuflow.media import Features
from gpuflow.metadata import AudioMetadata, ImageMetadata
from gpuflow.ops.stack import stacked, summed
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec

if TYPE_CHECKING:
    import torch

_PADDED_WITH_ONES = frozenset({"image_attention_mask"})  # Phi-4-multimodal attends to the tiles that it pads


def collate(features: Sequence[Features], *, spec: str | MelSpec | None = None) -> dict[str, torch.Tensor]:
    """The tensors that the processor of the features' family returns for ``images=[...]`` in this order; new memory, on
    the features' device, which may be released afterwards.

    Images and rows of patches come one after another, and so do tiles that have no axis of their own (InternVL, Llama 4,
    Gemma 3). Tiles with one are padded to the most with zeros (LLaVA-NeXT, LLaVA-OneVision, Phi-4-multimodal), images of
    several sizes on their right and bottom (Pixtral). Idefics3's and SmolVLM's processors take a flat list for the images
    of one prompt: ``(1, tiles of all images, ...)``. Of several images of one prompt for LLaVA-OneVision
    (``"llava-onevision-multi"``), ``batch_num_images`` is their number.

    Features of audio get a first axis, ``(clips, n_mels, frames)``; parts of split clips come one after another. Clips of
    several lengths are padded on their right with what the spec makes of silence, or with 0 where it zeroes what is not
    the clip's, as parts are; their masks with 0. Features are per clip, as of a batch of one: Hugging Face's processors
    compute those of a batch of its padded samples, so that the last frames of a shorter clip see zeros there and its own
    reflection here, and masks may have one frame more.
    ::

        with flow.load("a.mp3", options=options) as a, flow.load("b.mp3", options=options) as b:
            inputs = gpuflow.collate([a, b])  # {"input_features": (2, 128, 3000)}

    Args:
        spec: of audio features whose lengths differ, or its name, where it is not a built-in one.

    Raises:
        InvalidOptions: no features, not of images or audio, of different presets, types or devices, or of another spec.
        LeaseExpired: a block was released.
    """
    items = tuple(features) if isinstance(features, Iterable) else ()
    _check(items)
    if isinstance(items[0].metadata.source, AudioMetadata):
        return collate_audio(items, mel_spec(spec) if isinstance(spec, str) else spec)
    tensors = {name: [item[name] for item in items] for name in items[0]}
    axis = 1 if "pixel_attention_mask" in tensors and items[0]["pixel_values"].ndim == 5 else 0
    batch = {name: stacked(parts, axis=axis, fill=int(name in _PADDED_WITH_ONES)) for name, parts in tensors.items()}
    if "batch_num_images" in batch and batch["pixel_values"].shape[1] == 1:  # untiled: one image of several
        batch["batch_num_images"] = summed(tensors["batch_num_images"])
    return batch


def _check(items: tuple[Features, ...]) -> None:
    if not items or not all(isinstance(item, Features) for item in items):
        raise InvalidOptions("collate takes the features of one image or more, or of one clip or more")
    if not any(
        all(isinstance(item.metadata.source, kind) for item in items) for kind in (ImageMetadata, AudioMetadata)
    ):
        raise InvalidOptions("collate takes features of images only, or of audio only")
    first = items[0]
    for item in items[1:]:
        if _kind(item) != _kind(first):
            raise InvalidOptions(
                f"features of one batch have one preset, types and device; got {_kind(first)} and {_kind(item)}"[:400]
            )


def _kind(item: Features) -> tuple[object, ...]:
    return item.metadata.preset, item.device, tuple((spec.name, spec.dtype, len(spec.shape)) for spec in item.specs)
