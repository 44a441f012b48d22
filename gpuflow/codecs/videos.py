"""The video decoders that there are: libavcodec on the CPU, NVDEC on a GPU."""

from __future__ import annotations

import functools

from gpuflow.codecs._backends import pynvvideocodec
from gpuflow.codecs._backends.pyav import PyAvVideoDecoder
from gpuflow.codecs.base import Capability
from gpuflow.codecs.canary import canary
from gpuflow.codecs.video.decode import VideoDecoder
from gpuflow.codecs.video.stream import ElementaryStream

cpu_decoder = PyAvVideoDecoder()
PacketDecoder = VideoDecoder[ElementaryStream]


def capabilities() -> dict[str, Capability]:
    """What can be used here, by backend."""
    return {cpu_decoder.name: cpu_decoder.capability(), "pynvvideocodec": pynvvideocodec.capability()}


@functools.cache
def gpu_decoder(device_index: int, convert: pynvvideocodec.Convert) -> PacketDecoder:
    """The NVDEC decoder of one GPU, kept because its sessions are: making one takes 50 to 70 ms.

    ``convert``: NV12 to RGB, ``gpuflow.ops.color.nv12_to_rgb``.
    """
    return pynvvideocodec.NvdecVideoDecoder(device_index, convert, guard=canary(device_index).guard)
