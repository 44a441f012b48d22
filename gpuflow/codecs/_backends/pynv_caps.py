"""PyNvVideoCodec, the library: whether it is here, and what its NVDEC decodes. Nothing is decoded by this file.

The library ends the process when the driver does not start, so the driver is asked first, through ctypes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpuflow.codecs.base import Capability, Support, VideoInfo
from gpuflow.device import driver
from gpuflow.errors import CorruptMedia, GpuflowError, UnsupportedFormat

CODECS = {"h264": "H264", "hevc": "HEVC", "vp8": "VP8", "vp9": "VP9", "av1": "AV1", "mpeg4": "MPEG4", "mjpeg": "JPEG"}
_MATRICES = frozenset({"bt601", "bt709", "bt2020", "smpte240m", "fcc"})
_CHROMA = {"420": "4:2:0", "422": "4:2:2", "444": "4:4:4", "400": "grey"}
_PIP = "pip install 'gpuflow[cu13]'"
_asking = threading.Lock()


@functools.cache
def capability() -> Capability:
    """Whether NVDEC can be used here; never loads the library without a driver."""
    found = driver()
    if found.count == 0:
        return Capability(False, found.reason)
    try:
        nvc = library()
    except (ImportError, OSError, RuntimeError) as error:  # it raises RuntimeError where a driver library is missing
        hint = f"{_PIP}; in a container NVIDIA_DRIVER_CAPABILITIES must name video"
        return Capability(False, f"PyNvVideoCodec does not load ({type(error).__name__}): {hint}")
    return Capability(True, version=str(nvc.__version__))


def library() -> Any:
    """The module. Only where ``driver`` has found a GPU."""
    import PyNvVideoCodec

    return PyNvVideoCodec


@functools.cache
def packets_refused() -> str | None:
    """Why this build takes no packets that Python makes, or ``None``: then they can be fed."""
    try:
        packet = library().PacketData()
        packet.bsl_data, packet.bsl, packet.pts = 0, 0, 0
    except Exception as error:  # noqa: BLE001 - the library raises several unrelated types
        return f"this PyNvVideoCodec takes no packets of ours ({type(error).__name__}: {str(error)[:80]})"
    return None


def caps(device_index: int, codec: str, bit_depth: int) -> Mapping[str, int]:
    """What NVDEC says about a codec at 4:2:0. Asked once, and by one thread: the question is slow and contended."""
    with _asking:
        return _caps(device_index, codec, bit_depth)


@functools.cache
def _caps(device_index: int, codec: str, bit_depth: int) -> Mapping[str, int]:
    nvc = library()
    return dict(
        nvc.GetDecoderCaps(gpuid=device_index, codec=getattr(nvc.cudaVideoCodec, CODECS[codec]), bitdepth=bit_depth)
    )


def support(info: VideoInfo, device_index: int) -> Support:
    """Library, codec, chroma, matrix, depth, size and macroblocks against the GPU's own answer."""
    if not (ready := capability()):
        return Support(False, ready.reason)
    if info.codec not in CODECS:
        return Support(False, f"NVDEC has no decoder for {info.codec}")
    if info.chroma != "420":
        return Support(False, f"NVDEC is used for 4:2:0; this {info.codec} is {_CHROMA.get(info.chroma, info.chroma)}")
    if info.matrix not in _MATRICES:
        return Support(False, f"no colour matrix {info.matrix} on the GPU")
    if info.interlaced:
        return Support(False, "NVDEC would mix the fields of interlaced pictures")
    try:
        return within(info, caps(device_index, info.codec, info.bit_depth))
    except Exception as error:  # noqa: BLE001 - the library raises several unrelated types; or an answer lacks a key
        return Support(False, f"NVDEC does not answer for {info.codec} ({type(error).__name__})")


def within(info: VideoInfo, answer: Mapping[str, int]) -> Support:
    """A clip against what ``GetDecoderCaps`` answered for its codec and depth."""
    what = f"{info.codec} {info.bit_depth} bit {info.width}x{info.height}"
    if not answer.get("supported", answer.get("num_decoder_engines", 0)):
        return Support(False, f"this GPU's NVDEC does not decode {info.codec} with {info.bit_depth} bits")
    if not answer["width_min"] <= info.width <= answer["width_max"]:
        return Support(False, f"NVDEC takes widths of {answer['width_min']} .. {answer['width_max']}: {what}")
    if not answer["height_min"] <= info.height <= answer["height_max"]:
        return Support(False, f"NVDEC takes heights of {answer['height_min']} .. {answer['height_max']}: {what}")
    blocks = macroblocks(info.width, info.height)
    if blocks > answer["mb_num_max"]:
        return Support(False, f"NVDEC takes {answer['mb_num_max']} macroblocks, this picture has {blocks}: {what}")
    return Support(True)


def macroblocks(width: int, height: int) -> int:
    """16x16 blocks, those at the edges that are only begun included."""
    return -(-width // 16) * -(-height // 16)


@contextmanager
def translated(codec: str) -> Iterator[None]:
    """Every error of the library becomes one of ours here."""
    try:
        yield
    except GpuflowError:
        raise
    except Exception as error:
        if "not supported" in str(error).lower() or "Unsupported" in type(error).__name__:
            raise UnsupportedFormat(f"NVDEC does not take this {codec} stream, or what it changes to") from error
        raise CorruptMedia(f"NVDEC cannot decode this {codec} stream") from error
