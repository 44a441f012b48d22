"""PNG, still WebP and, after simplejpeg, JPEG by torchvision (libpng, libwebp, libjpeg-turbo): Pillow's pixels, sooner."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.packages import installed
from gpuflow.codecs._backends.pixels import handed_over, to_8_bits
from gpuflow.codecs.base import Capability, ImageInfo, Support
from gpuflow.codecs.orientation import oriented
from gpuflow.codecs.probe.png import shown_parts
from gpuflow.errors import BackendUnavailable, CorruptMedia, UnsupportedFormat

# Never GIF: torchvision 0.26 writes frames outside their canvas, and so outside its memory.
_FORMATS = ("jpeg", "png", "webp")


class TorchvisionDecoder:
    """``ImageDecoder`` on torchvision, on the CPU. Orientation is ours: torchvision leaves WebP's out."""

    name = "torchvision"
    device: Literal["cpu", "cuda"] = "cpu"

    def capability(self) -> Capability:
        """Whether the library is installed; it is not loaded, for torch takes seconds."""
        return installed("torchvision", "torchvision is not installed: pip install torchvision")

    def supports(self, info: ImageInfo) -> Support:
        """Three formats; not 12-bit JPEG, not animated WebP, not a PNG's colour key, which torchvision drops."""
        if info.format not in _FORMATS:
            return Support(False, f"torchvision is not trusted with {info.format}")
        if info.format == "jpeg" and info.bit_depth != 8:
            return Support(False, f"torchvision reads 8-bit JPEG only; this one has {info.bit_depth} bits")
        if info.format == "webp" and info.num_frames > 1:
            return Support(False, "torchvision reads no animated WebP")
        if info.format == "png" and info.has_alpha and info.channels in (1, 3):
            return Support(False, "torchvision drops a PNG's colour key")
        return Support(True)

    def decode(self, data: bytes, info: ImageInfo, *, frame: int = 0, out: Any = None) -> Any:
        """See ``ImageDecoder``. The array is a view of torchvision's, with the strides that it happens to have."""
        if frame:
            raise UnsupportedFormat("torchvision decodes the first frame only")
        return handed_over(oriented(_decoded(data, info), info.orientation), info, out)


def _decoded(data: bytes, info: ImageInfo) -> NDArray[np.uint8]:
    """``(H, W, 3)``, or ``(H, W, 4)`` where there is alpha."""
    try:
        import torch
        from torchvision.io import decode_image
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable("torchvision is installed and does not load: it must match torch") from error
    mode = "RGB_ALPHA" if info.has_alpha else "RGB"  # UNCHANGED would give the numbers of palette entries
    parts = shown_parts(data) if info.format == "png" else (data,)
    try:
        tensor = decode_image(torch.frombuffer(bytearray().join(parts), dtype=torch.uint8), mode=mode)
    except (RuntimeError, ValueError) as error:
        raise CorruptMedia(f"torchvision cannot decode this {info.format}") from error
    if tensor.ndim != 3:
        raise UnsupportedFormat(f"this {info.format} is animated")
    pixels: NDArray[Any] = tensor.permute(1, 2, 0).numpy()
    return pixels if pixels.dtype == np.uint8 else to_8_bits(pixels)
