"""At which keyframes a decoder may begin that knows a stream's headers only as its container gives them. Pure.

Parameter sets may come again within the packets and be others: a keyframe after those that does not repeat them is none
to begin at. Sets that come between keyframes are not looked for. Nor is one whose own bytes say that it is no intra
picture, where a container's table is believed otherwise.

Source: ITU-T H.264 7.4.1.2.1, ITU-T H.265 7.4.2.4.2; ISO/IEC 14496-15 for sets outside of packets.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpuflow.codecs.video.references import length_bytes, may_begin, nal_headers

_KINDS = {"h264": frozenset({7, 8}), "hevc": frozenset({32, 33, 34})}
_LAST_SLICE = {"h264": 5, "hevc": 31}


class RestartPoints:
    """Asked about keyframes in their order in the file."""

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._codec = codec
        self._known = extradata
        self._length = length_bytes(codec, extradata)
        self._needed: set[int] = set()  # kinds of sets that came with others than the container's

    def here(self, payload: memoryview) -> bool:
        """Whether decoding may begin at this keyframe."""
        if not may_begin(self._codec, payload, self._length):
            return False
        if self._codec not in _KINDS:
            return True
        sets = list(self._sets(payload))
        if any(body not in self._known for _, body in sets):
            self._needed |= {kind for kind, _ in sets}
        return self._needed <= {kind for kind, _ in sets}

    def _sets(self, payload: memoryview) -> Iterator[tuple[int, bytes]]:
        """The parameter sets before the picture's first slice."""
        for start, end in nal_headers(payload, self._length):
            header = payload[start]
            kind = header & 31 if self._codec == "h264" else header >> 1 & 63
            if kind in _KINDS[self._codec]:
                yield kind, bytes(payload[start:end]).rstrip(b"\0")
            elif 0 < kind <= _LAST_SLICE[self._codec] or (kind == 0 and self._codec == "hevc"):
                return
