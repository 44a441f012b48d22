"""Libraries are loaded before the clock of a decode runs: on a new machine torchvision alone takes longer than an image may."""

from __future__ import annotations

import contextlib
import functools
import importlib

from gpuflow.media import Modality

_CPU: dict[Modality, tuple[str, ...]] = {
    "image": ("torch", "torchvision.io", "torchvision.transforms.v2.functional", "PIL.Image"),
    "video": ("av", "av.video.reformatter"),
    "audio": ("torch", "av", "soundfile", "soxr"),
}
_GPU: dict[Modality, tuple[str, ...]] = {
    "image": ("cupy", "nvidia.nvimgcodec"),
    "video": ("cupy", "PyNvVideoCodec"),
    "audio": ("cupy",),
}
_RESIZE = ("torch", "torchvision.transforms.v2.functional")
_DALI = ("nvidia.dali.experimental.dynamic",)


@functools.cache
def preload(modality: Modality, *, on_gpu: bool, resize: bool, dali: bool) -> None:
    """Import what a load of this kind will use, once. What cannot be imported is passed over: whoever needs it says so,
    with what mends it."""
    names = (*_CPU[modality], *(_RESIZE if resize else ()), *(_DALI if dali else ()))
    for name in (*names, *(_GPU[modality] if on_gpu else ())):
        with contextlib.suppress(ImportError, OSError, RuntimeError):
            importlib.import_module(name)
