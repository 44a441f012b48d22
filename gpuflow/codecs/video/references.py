"""Which pictures others may refer to, read from the first bytes of packets. Pure: no library.

A picture that nothing refers to, and that nobody wants, need not be decoded: half of the packets of a clip with
B pictures. What cannot be told cheaply and with certainty counts as referred to. VP8 keeps it behind its arithmetic
coder, and a VP9 picture without references still hands its probabilities on: of those nothing is left out here.

Source: ITU-T H.264 7.3.1 and 7.4.1 (nal_ref_idc), ITU-T H.265 7.4.2.2 and 8.1.3 (sub-layer non-reference and leading
pictures), ISO/IEC 14496-2 6.2.5 (B-VOP), the AV1 specification 5.5 and 5.9.2 (refresh_frame_flags); ISO/IEC 14496-15
for the lengths that replace start codes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from gpuflow.codecs.video.av1_headers import frames_that_stay


class Role(NamedTuple):
    """What may refer to a packet's picture: those of higher temporal layers than ``layer``, and of its own where
    ``held``. ``leading``: it cannot be decoded where decoding began with the keyframe before it (RASL)."""

    layer: int
    held: bool
    leading: bool = False


Reader = Callable[[memoryview], Role]
_HELD, _FREE = Role(0, True), Role(0, False)
_AVC_SLICES = frozenset({1, 2, 3, 4, 5})
_AVC_BESIDE = frozenset({6, 9, 12})  # SEI, delimiter, filler: they go with their picture
_HEVC_BESIDE = frozenset({35, 38, 39, 40})
_HEVC_SLICES = 32
_RASL = (8, 9)
_VOP_START = b"\0\0\1\xb6"
_I_VOP, _B_VOP = 0, 2
_HEVC_INTRA = range(16, 24)  # pictures at which decoding may begin (IRAP)


def role_reader(codec: str, extradata: bytes) -> Reader | None:
    """What reads the packets of such a stream; ``None`` where nothing can be left out."""
    if codec in ("h264", "hevc"):
        length, read = length_bytes(codec, extradata), _avc if codec == "h264" else _hevc
        return lambda payload: read(payload, length)
    if codec == "mpeg4":
        return _mpeg4
    if codec == "av1" and (stay := frames_that_stay(extradata)) is not None:
        return lambda payload: _HELD if stay(payload) else _FREE
    return None


def may_begin(codec: str, payload: memoryview, length: int) -> bool:
    """Whether the bitstream allows what the container says, that decoding begins with this packet. Of codecs whose
    packets libavformat parses to find keyframes it is not asked again. ``length``: of ``length_bytes``."""
    if codec == "hevc":
        return _hevc_may_begin(payload, length)
    if codec == "mpeg4":
        data = bytes(payload)
        kind = data.find(_VOP_START) + len(_VOP_START)
        return not len(_VOP_START) <= kind < len(data) or data[kind] >> 6 == _I_VOP
    return True


def unneeded(roles: Sequence[Role], wanted: Collection[int]) -> list[int]:
    """Places in ``roles``, a keyframe and what follows it, whose pictures are not ``wanted`` and that no wanted one
    refers to, by however many others. Never the first: decoding begins there, whatever its packet says of itself."""
    found = [place for place in _undecodable(roles) if place not in wanted]
    passed, highest = frozenset(found), -1  # layer of what is decoded later on
    for place in range(len(roles) - 1, 0, -1):
        layer, held, _ = roles[place]
        if place in passed:
            continue
        if place in wanted or highest > layer or (held and highest == layer):
            highest = max(highest, layer)
        else:
            found.append(place)
    return sorted(found)


def _undecodable(roles: Sequence[Role]) -> list[int]:
    """Leading pictures of the first keyframe: they come before any trailing picture of it."""
    places: list[int] = []
    for place in range(1, len(roles)):
        if not roles[place].leading:
            break
        places.append(place)
    return places


def length_bytes(codec: str, extradata: bytes) -> int:
    """How many bytes of length stand before each NAL unit, by the container's record; 0: start codes do."""
    place = {"h264": 4, "hevc": 21}.get(codec, 0)
    return (extradata[place] & 3) + 1 if place and len(extradata) > place + 1 and extradata[0] == 1 else 0


def nal_headers(payload: memoryview, length: int) -> Iterator[tuple[int, int]]:
    """First byte and end of each NAL unit, zeros behind it included. What does not add up ends in ``(0, 0)``."""
    if length == 0:
        yield from _between_start_codes(bytes(payload))
        return
    at, end = 0, len(payload)
    while at < end:
        first = at + length
        at = first + int.from_bytes(payload[at:first], "big")
        if at == first or at > end:
            yield 0, 0
            return
        yield first, at


def _between_start_codes(payload: bytes) -> Iterator[tuple[int, int]]:
    at = payload.find(b"\0\0\1")
    while 0 <= at < len(payload) - 3:
        following = payload.find(b"\0\0\1", at + 3)
        yield at + 3, following if following >= 0 else len(payload)
        at = following


def _avc(payload: memoryview, length: int) -> Role:
    found = False
    for at, end in nal_headers(payload, length):
        header = payload[at]
        kind = header & 31
        if end == 0:
            return _HELD
        if kind in _AVC_SLICES and not header & 0x60:
            found = True
        elif kind not in _AVC_BESIDE:
            return _HELD
    return _FREE if found else _HELD


def _hevc(payload: memoryview, length: int) -> Role:
    found, layer, held, leading = False, 0, False, True
    for at, end in nal_headers(payload, length):
        if end < at + 2:
            return _HELD
        kind, above = payload[at] >> 1 & 63, (payload[at] & 1) << 5 | payload[at + 1] >> 3
        if kind < _HEVC_SLICES and above == 0:
            found, layer = True, max(layer, (payload[at + 1] & 7) - 1)
            held = held or kind >= 16 or kind % 2 == 1
            leading = leading and kind in _RASL
        elif kind not in _HEVC_BESIDE:
            return _HELD
    return Role(layer, held, leading) if found else _HELD


def _hevc_may_begin(payload: memoryview, length: int) -> bool:
    for at, end in nal_headers(payload, length):
        if end < at + 2:
            return True
        kind, above = payload[at] >> 1 & 63, (payload[at] & 1) << 5 | payload[at + 1] >> 3
        if kind < _HEVC_SLICES and above == 0:
            return kind in _HEVC_INTRA
    return True


def _mpeg4(payload: memoryview) -> Role:
    data = bytes(payload)
    at = data.find(_VOP_START)
    if at < 0 or data.find(_VOP_START, at + 4) >= 0 or at + 4 >= len(data):  # packed ones hold two
        return _HELD
    return _FREE if data[at + 4] >> 6 == _B_VOP else _HELD
