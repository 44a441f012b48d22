"""A picture that every GPU decodes: when it does not, the fault is the GPU's, not the picture's."""

from __future__ import annotations

import base64

from gpuflow.codecs._backends.nvimagecodec import NvImageCodecDecoder
from gpuflow.codecs.base import ImageInfo
from gpuflow.errors import CorruptMedia

JPEG = base64.b64decode(  # 16x16, 4:2:0, baseline, one colour; written by Pillow
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8X"
    "GBYUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wAAR"
    "CAAQABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAb/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAAAAAAAAAAAAAA"
    "Bwj/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCSACiqH//Z"
)
INFO = ImageInfo("jpeg", 16, 16, color="ycbcr", chroma="420")
COLOUR = (199, 80, 40)
_TOLERANCE = 4


def decode(decoder: NvImageCodecDecoder, device_index: int) -> None:
    """Decode it and wait for all of the device. Without nvImageCodec the device only fills memory and is read.

    Raises:
        CorruptMedia: other pixels come out.
        Exception: whatever CUDA or the library raise.
    """
    import cupy

    with cupy.cuda.Device(device_index) as device:
        pixels = cupy.empty((INFO.height, INFO.width, 3), cupy.uint8)
        pixels[...] = cupy.asarray(COLOUR, cupy.uint8)
        if decoder.capability():
            decoder.decode(JPEG, INFO, out=pixels)
        device.synchronize()
        off = abs(pixels.get().astype(int) - COLOUR).max()
    if off > _TOLERANCE:
        raise CorruptMedia(f"a known picture is decoded with levels that are {off} off")
