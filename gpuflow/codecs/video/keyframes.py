"""Whether a packet is a keyframe, read from its own bytes. Pure: no library.

Of these codecs libavformat looks into packets too, and believes them rather than the container's table.

Source: ITU-T H.264 7.3.2.3.1 (SEI messages), 7.4.1 (unit types), annex D (payload 6 begins with recovery_frame_cnt as
ue(v), whose first bit is 1 for 0); VP9 bitstream specification 6.2; the AV1 specification 5.9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gpuflow.codecs.video.av1_headers import shows_a_keyframe
from gpuflow.codecs.video.references import length_bytes, nal_headers

_IDR, _SEI, _RECOVERY_POINT = 5, 6, 6
_SLICES = frozenset({1, 2, 3, 4})
_SEI_BYTES = 1_024  # that are looked at: an encoder's signature takes 700


def keyframe_reader(codec: str, extradata: bytes) -> Callable[[memoryview], bool] | None:
    """What tells of a packet whether decoding may begin at it; ``None`` where the container's word is all there is."""
    if codec == "h264":
        length = length_bytes(codec, extradata)
        return lambda payload: recovery(payload, length) == "at once"
    return {"vp9": _vp9, "av1": shows_a_keyframe}.get(codec)


def recovery(payload: memoryview, length: int) -> Literal["at once", "later"] | None:
    """When a decoder that begins at this H.264 packet shows right pictures. ``length``: see ``references.length_bytes``."""
    found: Literal["at once", "later"] | None = None
    for start, end in nal_headers(payload, length):
        kind = payload[start] & 31
        if end == 0 or kind in _SLICES:
            break
        if kind == _IDR:
            return "at once"
        if kind == _SEI and found is None:
            found = _recovery_point(bytes(payload[start + 1 : min(end, start + _SEI_BYTES)]))
    return found


def _recovery_point(unit: bytes) -> Literal["at once", "later"] | None:
    messages, at = unit.replace(b"\0\0\3", b"\0\0"), 0
    while at < len(messages):
        kind, at = _number(messages, at)
        nbytes, at = _number(messages, at)
        if kind == _RECOVERY_POINT and at < len(messages):
            return "at once" if messages[at] & 0x80 else "later"
        at += nbytes
    return None


def _number(messages: bytes, at: int) -> tuple[int, int]:
    """A type or a size: bytes of 255, and one that is less; and where it ends."""
    start = at
    while at < len(messages) and messages[at] == 0xFF:
        at += 1
    return 255 * (at - start) + (messages[at] if at < len(messages) else 0), at + 1


def _vp9(payload: memoryview) -> bool:
    header = payload[0] << (payload[0] & 0x30 == 0x30)  # profile 3 has one bit more
    return not header & 0x0C  # neither a picture shown again, nor one that refers to others
