"""The ID3v2 tags before MP3, AAC and FLAC. Source: the ID3v2.3 and ID3v2.4 structure documents."""

from __future__ import annotations

from gpuflow.errors import CorruptMedia

_MAX_TAGS = 16
_FOOTER = 0x10


def skip_tags(data: bytes) -> int:
    """Where the bytes after all ID3v2 tags begin; 0 without one.

    Raises:
        CorruptMedia: a tag larger than the file, or too many of them.
    """
    at = 0
    for _ in range(_MAX_TAGS):
        if (
            not data.startswith(b"ID3", at)
            or len(data) < at + 10
            or any(byte & 0x80 for byte in data[at + 6 : at + 10])
        ):
            return at
        size = data[at + 6] << 21 | data[at + 7] << 14 | data[at + 8] << 7 | data[at + 9]
        at += 10 + size + (10 if data[at + 5] & _FOOTER else 0)
        if at > len(data):
            raise CorruptMedia(f"an ID3 tag claims {size} bytes: more than there are")
    raise CorruptMedia(f"more than {_MAX_TAGS} ID3 tags before the audio")
