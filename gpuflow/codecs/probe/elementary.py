"""Video without a container: H.264 and HEVC with start codes, AV1's OBU stream, and IVF, which is hardly one.

None of them has tables to lie with. What their pictures are only a decoder says, which is told the limit; IVF's count of
frames is not believed.

Source: ITU-T H.264 and H.265 annex B, AV1 specification 5.3 and 7.5; for IVF libvpx' ``ivfdec.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_HEAD_BYTES = 4_096
_START = b"\0\0\1"
_TEMPORAL_DELIMITER_AND_SEQUENCE = b"\x12\x00\x0a"
_AVC_SPS, _AVC_PPS = 7, 8
_AVC_FIRST = frozenset({6, 9})  # SEI and delimiter may stand before the parameter sets
_HEVC_VPS, _HEVC_SPS = 32, 33
_HEVC_FIRST = frozenset({35, 39})
_IVF_HEADER_BYTES = 32
_IVF_CODECS = {b"VP80": "vp8", b"VP90": "vp9", b"AV01": "av1"}
_NAMES = {"h264": "H.264", "hevc": "HEVC", "obu": "AV1"}


def elementary_kind(data: bytes) -> MediaType | None:
    """The kind of a raw stream that begins as streams that can be decoded do: with its parameter sets."""
    if data.startswith(b"DKIF"):
        return MediaType("ivf", "video", "ivf")
    if data.startswith(_TEMPORAL_DELIMITER_AND_SEQUENCE):
        return MediaType("obu", "video", "obu")
    if not data.startswith((_START, b"\0" + _START)):
        return None
    headers = list(_nal_headers(data[:_HEAD_BYTES]))
    if _is_avc(headers):
        return MediaType("h264", "video", "h264")
    return MediaType("hevc", "video", "hevc") if _is_hevc(headers) else None


def elementary_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """One track of which nothing is known but its codec.

    Raises:
        CorruptMedia: the bytes do not begin as such a stream does.
    """
    kind = elementary_kind(data)
    if kind is None or kind.format == "ivf":
        raise CorruptMedia("the bytes begin with no parameter sets of a raw video stream")
    return ContainerClaims(kind.format, (TrackClaims("video", _NAMES[kind.format]),))


def ivf_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """What IVF's header of 32 bytes says.

    Raises:
        CorruptMedia: no such header.
        UnsupportedFormat: another codec than VP8, VP9 and AV1.
    """
    if data[:4] != b"DKIF" or struct.unpack_from("<H", data, 6)[0] != _IVF_HEADER_BYTES:
        raise CorruptMedia("the bytes begin with no IVF header")
    width, height, rate, scale = struct.unpack_from("<HHII", data, 12)
    codec = _IVF_CODECS.get(data[8:12])
    if codec is None:
        raise UnsupportedFormat("IVF is read with VP8, VP9 and AV1 only")
    if rate == 0 or scale == 0:
        raise CorruptMedia(f"the IVF header claims a time base of {scale}/{rate} s")
    return ContainerClaims("ivf", (TrackClaims("video", codec, width, height),))


def _nal_headers(data: bytes) -> Iterator[tuple[int, int]]:
    """The two bytes after each start code."""
    at = data.find(_START)
    while 0 <= at < len(data) - 4:
        yield data[at + 3], data[at + 4]
        at = data.find(_START, at + 3)


def _is_avc(headers: list[tuple[int, int]]) -> bool:
    for place, (first, _) in enumerate(headers):
        kind, reference = first & 31, first >> 5
        if kind == _AVC_SPS and 0 < reference < 4:
            return any(header & 31 == _AVC_PPS and 0 < header >> 5 < 4 for header, _ in headers[place + 1 :])
        if kind not in _AVC_FIRST or reference:
            return False
    return False


def _is_hevc(headers: list[tuple[int, int]]) -> bool:
    for place, (first, second) in enumerate(headers):
        kind = first >> 1
        if second != 1 or first & 1:  # the base layer, the lowest temporal layer
            return False
        if kind == _HEVC_VPS:
            return any(header >> 1 == _HEVC_SPS for header, _ in headers[place + 1 :])
        if kind not in _HEVC_FIRST:
            return False
    return False
