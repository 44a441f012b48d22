"""Video without a container: H.264 and HEVC with start codes, AV1's OBU stream, and IVF, which is hardly one.

None of them has tables to lie with, but any number of units. What their pictures are only a decoder says, which is told the limit; IVF's count of
frames is not believed.

Source: ITU-T H.264 and H.265 annex B, AV1 specification 5.3 and 7.5; for IVF libvpx' ``ivfdec.c``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat

_HEAD_BYTES = 4_096
_START = b"\0\0\1"
_START_CODES = re.compile(b"\\x00\\x00\\x01")
_PROBED_BYTES = 8 << 20  # libavformat looks for parameter sets in the first 5 MB, and a packet beyond
_MAX_UNITS = 8_192  # slices of one picture: an encoder of broadcasts makes 10, H.264 allows one a macroblock
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
        LimitExceeded: as ``check_units``.
    """
    kind = elementary_kind(data)
    if kind is None or kind.format == "ivf":
        raise CorruptMedia("the bytes begin with no parameter sets of a raw video stream")
    check_units(data, (kind.format,))
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


def check_units(data: bytes, codecs: Iterable[str]) -> None:
    """Refuse start codes without end where libavformat itself looks for parameter sets: it takes 4 to 14 KB for each
    one between two pictures, so that 200 KB of a transport stream take 300 MB before a deadline or a limit is asked
    (FFmpeg 8.1). ``codecs``: ``"h264"`` or ``"hevc"``, anything else is not looked for.

    Raises:
        LimitExceeded: more than 8,192 NAL units that begin no picture.
    """
    rules = [_BEGINS[codec] for codec in sorted(set(codecs) & set(_BEGINS))]
    since, last = 0, len(data) - 3
    for match in _START_CODES.finditer(data, 0, _PROBED_BYTES) if rules else ():
        at = match.end()
        if at >= last or data[at] & 0x80:  # no NAL unit: packets of sound and the like
            continue
        since += 1
        if any(begins(data, at) for begins in rules):
            since = 0
        elif since > _MAX_UNITS:
            raise LimitExceeded(f"more than {_MAX_UNITS} NAL units begin no picture")


def _begins_avc(data: bytes, at: int) -> bool:
    return data[at] & 31 in (1, 5) and data[at + 1] > 127  # first_mb_in_slice is 0


def _begins_hevc(data: bytes, at: int) -> bool:
    return data[at] >> 1 < _HEVC_VPS and data[at + 2] > 127  # first_slice_segment_in_pic_flag


_BEGINS: dict[str, Callable[[bytes, int], bool]] = {"h264": _begins_avc, "hevc": _begins_hevc}


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
