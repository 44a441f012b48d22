"""The video decoders that there are: libavcodec on the CPU, NVDEC on a GPU by either route, DALI where it is asked for."""

from __future__ import annotations

import functools

from gpuflow.codecs._backends import dali_video, pynv_caps
from gpuflow.codecs._backends.dali_video import DaliVideo
from gpuflow.codecs._backends.pyav import PyAvVideoDecoder
from gpuflow.codecs._backends.pynv_simple import SimpleVideoDecoder
from gpuflow.codecs._backends.pynv_surface import Convert
from gpuflow.codecs._backends.pynvvideocodec import NvdecVideoDecoder
from gpuflow.codecs.base import Capability, Support, VideoInfo
from gpuflow.codecs.canary import canary
from gpuflow.codecs.video.decode import VideoDecoder
from gpuflow.codecs.video.stream import ElementaryStream
from gpuflow.codecs.video.wholefile import WholeFile
from gpuflow.config import NvdecPolicy

cpu_decoder = PyAvVideoDecoder()
PacketDecoder = VideoDecoder[ElementaryStream]
GpuDecoder = NvdecVideoDecoder | SimpleVideoDecoder
SEGMENT_THREADS = 8  # for a GPU: they wait for its engines, of which the largest chips have 7 or 8


def capabilities() -> dict[str, Capability]:
    """What can be used here, by backend."""
    found = pynv_caps.capability()
    refused = pynv_caps.packets_refused() if found else None
    return {
        cpu_decoder.name: cpu_decoder.capability(),
        NvdecVideoDecoder.name: Capability(False, refused, found.version) if refused else found,
        SimpleVideoDecoder.name: found,
        DaliVideo.name: dali_video.capability(),
    }


def gpu_decoder(device_index: int, convert: Convert, policy: NvdecPolicy | None = None) -> GpuDecoder:
    """The NVDEC decoder of one GPU, kept because its sessions are: making one takes 50 to 70 ms.

    ``convert``: NV12 to RGB, ``gpuflow.ops.color.nv12_to_rgb``.
    """
    return _gpu_decoder(device_index, convert, policy or NvdecPolicy())


def gpu_support(decoder: PacketDecoder, info: VideoInfo, file: WholeFile | None) -> Support:
    """Whether a GPU's decoder takes this clip. ``file``: its bytes, where this process may read them."""
    support = decoder.supports(info)
    if support and isinstance(decoder, SimpleVideoDecoder):
        return decoder.takes(file, info)
    return support


@functools.cache
def dali(device_index: int | None) -> DaliVideo:
    """DALI's pipelines on one GPU, or on the CPU (``None``): kept, because building one takes 20 to 140 ms."""
    return DaliVideo(device_index)


def close_idle() -> None:
    """Close what the decoders of all GPUs keep and nobody uses."""
    for decoder in _made:
        decoder.close_idle()


_made: list[GpuDecoder] = []


@functools.cache
def _gpu_decoder(device_index: int, convert: Convert, policy: NvdecPolicy) -> GpuDecoder:
    guard = canary(device_index).guard
    simple = policy.route == "simple"
    if policy.route == "auto" and pynv_caps.capability():
        simple = pynv_caps.packets_refused() is not None
    made: GpuDecoder
    if simple:
        made = SimpleVideoDecoder(device_index, convert, sessions=policy.max_sessions, guard=guard)
    else:
        made = NvdecVideoDecoder(device_index, convert, sessions=policy.max_sessions, guard=guard)
    _made.append(made)
    return made
