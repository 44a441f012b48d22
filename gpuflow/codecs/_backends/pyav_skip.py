"""Packets of sound that are stepped over instead of decoded: how many samples each holds is known without its decoding.

Counted, not taken from times: containers round those to milliseconds, and what is cut out of a stream leaves a gap in
its times that decoding does not show.
"""

from __future__ import annotations

import re
from typing import Any

from gpuflow.codecs.pcm import PREROLL_SECONDS

_LOSSY = frozenset({"aac", "mp1", "mp2", "mp3"})  # and not AC-3, whose noise depends on all that was before
_LOSSLESS = frozenset({"alac", "flac"})
_PCM = re.compile(r"pcm_(?:[suf](8|16|24|32|64)(?:le|be)?(?:_planar)?|mulaw|alaw)")
_OPUS_SAMPLES = (*(480, 960, 1_920, 2_880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)  # a frame, by configuration
_FLAC_HEAD_BYTES = 3
_FLAC_NUMBER = 4  # where its number begins


class Steps:
    """The packets of one stream, as they are decoded until two in a row held what was expected."""

    def __init__(self, codec: str, channels: int) -> None:
        pcm = _PCM.fullmatch(codec)
        self._sample_bits = channels * int(pcm[1] or 8) if pcm else 0
        self._codec = codec
        self._lossy = codec in _LOSSY or codec == "opus"
        self._known = self._lossy or codec in _LOSSLESS or pcm is not None
        self._each = self._agreed = 0
        self._head = b""

    @property
    def settled(self) -> bool:
        """Whether packets may be stepped over from here on."""
        return self._agreed >= 2

    @property
    def each(self) -> int:
        """Samples of every packet, where they are all alike; else 0."""
        return self._each if self._codec in _LOSSY | {"alac"} and self.settled else 0

    def preroll(self, sample_rate: int) -> int:
        """Samples to decode before those that are wanted."""
        return round(PREROLL_SECONDS * sample_rate) if self._lossy else 0

    def learn(self, packet: Any, decoded: int) -> None:
        """A packet gave so many samples."""
        if not self._known:
            return
        expected, self._each = self._samples(packet), decoded
        self._agreed = self._agreed + 1 if decoded == expected and decoded > 0 else 0
        if self._codec == "flac":
            self._head = bytes(memoryview(packet)[:_FLAC_HEAD_BYTES])

    def samples(self, packet: Any) -> int:
        """What it will give; 0 where only a decoder knows: from here on all is decoded."""
        if packet.is_discard or packet.has_sidedata("skip_samples"):
            return 0
        return self._samples(packet)

    def _samples(self, packet: Any) -> int:
        if self._sample_bits:
            return int(packet.size) * 8 // self._sample_bits
        if self._codec == "opus":
            return _opus_samples(memoryview(packet)[:2])
        if self._codec == "flac" and not _same_block(self._head, memoryview(packet)[:_FLAC_HEAD_BYTES]):
            return 0
        return self._each


def _opus_samples(head: memoryview) -> int:
    """At 48 kHz. Source: RFC 6716, section 3.1."""
    code = head[0] & 3 if head else 3
    if code == 3 and len(head) < 2:
        return 0
    count = 1 if code == 0 else 2 if code < 3 else head[1] & 63
    return count * _OPUS_SAMPLES[head[0] >> 3]


def flac_number(head: memoryview) -> int | None:
    """A FLAC frame's number, where all are of one length. Source: RFC 9639, section 9.1.5."""
    if len(head) <= _FLAC_NUMBER or bytes(head[:2]) != b"\xff\xf8":
        return None
    ones = 8 - (head[_FLAC_NUMBER] ^ 0xFF).bit_length()
    number, more = head[_FLAC_NUMBER] & (0x7F >> ones), head[_FLAC_NUMBER + 1 : _FLAC_NUMBER + max(ones, 1)]
    for byte in more:
        number = number << 6 | byte & 0x3F
    return number


def _same_block(one: bytes, other: memoryview) -> bool:
    """Whether two FLAC frames have blocks of the same size. Source: RFC 9639, section 9.1."""
    alike = len(one) == len(other) == _FLAC_HEAD_BYTES and bytes(other[:2]) == one[:2] == b"\xff\xf8"
    return alike and one[2] >> 4 == other[2] >> 4
