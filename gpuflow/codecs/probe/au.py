"""What an AU file claims: its header of 24 bytes. Source: Sun's audio file format, as libsndfile's ``au.c`` reads it."""

from __future__ import annotations

import struct

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, check_room, seconds_of
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_HEADER = struct.Struct(">4sIIIII").unpack_from
_HEADER_BYTES = 24
_OPEN = 0xFFFFFFFF  # the size of data whose writer could not go back
_ENCODINGS = {
    1: ("mulaw", 1), 2: ("pcm", 1), 3: ("pcm", 2), 4: ("pcm", 3), 5: ("pcm", 4), 6: ("float", 4), 7: ("float", 8),
    27: ("alaw", 1),
}  # fmt: skip


def au_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The encoding, and as many samples as the bytes hold.

    Raises:
        CorruptMedia: no AU, no channels or no rate, or data that begin behind the end.
        UnsupportedFormat: another encoding than PCM, mu-law and A-law.
    """
    if data[:4] != b".snd" or len(data) < _HEADER_BYTES:
        raise CorruptMedia("the bytes are no AU")
    _, first, size, encoding, rate, channels = _HEADER(data, 0)
    if encoding not in _ENCODINGS:
        raise UnsupportedFormat(f"AU is read with PCM, mu-law and A-law; got encoding {encoding}")
    if channels == 0 or rate == 0:
        raise CorruptMedia(f"the AU claims {channels} channels at {rate} Hz")
    check_room(first, len(data), "the AU header")
    codec, sample_bytes = _ENCODINGS[encoding]
    there = len(data) - first
    samples = (there if size == _OPEN else min(size, there)) // (sample_bytes * channels)
    seconds = seconds_of(samples, rate)
    track = TrackClaims(
        "audio", codec, sample_rate=rate, channels=channels, num_samples=samples, duration_seconds=seconds
    )
    return ContainerClaims("au", (track,), seconds)
