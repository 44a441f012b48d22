"""The image decoders that there are, in which order they are tried, and one decode through them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpuflow.codecs._backends.nvimagecodec import NvImageCodecDecoder
from gpuflow.codecs._backends.pillow import PillowDecoder
from gpuflow.codecs._backends.pillow_heif import PillowHeifDecoder
from gpuflow.codecs._backends.pyav_png import PyAvPngDecoder
from gpuflow.codecs._backends.simplejpeg import SimpleJpegDecoder, divisor_for
from gpuflow.codecs._backends.torchvision import TorchvisionDecoder
from gpuflow.codecs.base import Capability, ImageDecoder, ImageInfo
from gpuflow.codecs.canary import canary
from gpuflow.errors import BackendUnavailable, CorruptMedia, GpuflowError, UnsupportedFormat

GPU_FORMATS = frozenset({"jpeg"})  # what a GPU decoder exists for at all
_JPEG, _HEIC = SimpleJpegDecoder(), PillowHeifDecoder()
# For decode workers, which have no torch: the same pixels for every format
_TORCH_FREE: tuple[ImageDecoder, ...] = (_JPEG, PyAvPngDecoder(), _HEIC, PillowDecoder())
_CPU_DECODERS: tuple[ImageDecoder, ...] = (_JPEG, TorchvisionDecoder(), *_TORCH_FREE[1:])


@dataclass(frozen=True, slots=True)
class Decoded:
    """``pixels``: ``(H, W, 3)`` or ``(H, W, 4)`` uint8, orientation applied; ``backend``: who decoded them."""

    pixels: Any
    backend: str


@functools.cache
def gpu_decoder(device_index: int) -> NvImageCodecDecoder:
    """The GPU's JPEG decoder, for one or for many at once; its sessions are kept, because making one is slow."""
    return NvImageCodecDecoder(device_index, guard=canary(device_index).guard)


def capabilities() -> dict[str, Capability]:
    """What can be used here, by backend."""
    return {decoder.name: decoder.capability() for decoder in (*_CPU_DECODERS, gpu_decoder(0))}


def image_decoders(info: ImageInfo) -> list[ImageDecoder]:
    """The CPU's decoders that take such an image, best first; whether they are installed is their ``capability()``."""
    return [decoder for decoder in _CPU_DECODERS if decoder.supports(info)]


def decode_image(
    data: bytes,
    info: ImageInfo,
    *,
    frame: int = 0,
    torch_free: bool = False,
    least_size: tuple[int, int] | None = None,
    place: Callable[[tuple[int, int, int]], Any] | None = None,
) -> Decoded:
    """Decode one frame on the CPU, by the first decoder that can. ``torch_free``: by those that need no torch.

    ``place``: gives the uint8 array of a shape that the pixels are written to, called at most once; without it they lie
    where the decoder has them.

    ``least_size``: the (height, width) that it is resized to next: a JPEG many times as large may come out smaller, as
    ``smaller`` says and its ``backend`` too.

    Raises:
        CorruptMedia: none of them can read it; what the first of them said.
        UnsupportedFormat: none of them takes such an image.
        BackendUnavailable: one that would is not installed.
    """
    failed: GpuflowError | None = None
    divisor, name = smaller(info, least_size)
    if divisor > 1 and _JPEG.capability():
        with contextlib.suppress(CorruptMedia):
            return Decoded(_JPEG.decode_smaller(data, info, divisor), name)
    out = None if place is None else place((info.height, info.width, 4 if info.has_alpha else 3))
    without_torch = [decoder for decoder in _TORCH_FREE if decoder.supports(info) and decoder.capability()]
    for decoder in without_torch if torch_free else image_decoders(info):
        if not (capability := decoder.capability()):
            failed = failed or BackendUnavailable(f"{info.format} needs {decoder.name}: {capability.reason}")
            continue
        try:
            return Decoded(decoder.decode(data, info, frame=frame, out=out), decoder.name)
        except (BackendUnavailable, CorruptMedia, UnsupportedFormat) as error:
            failed = error if not isinstance(failed, CorruptMedia) else failed
    why = f": {_HEIC.capability().reason}" if info.format == "heic" else ""
    raise failed or UnsupportedFormat(f"no decoder takes {info.bit_depth}-bit {info.format}{why}")


def smaller(info: ImageInfo, least_size: tuple[int, int] | None) -> tuple[int, str]:
    """By how much an image of which ``least_size`` is wanted is decoded smaller, and the name of who does that."""
    divisor = divisor_for(info, least_size)
    return divisor, f"{_JPEG.name}-dct1/{divisor}"
