"""A clip that is opened while its bytes still come: an MP4 or MOV whose tables stand before its media.

When the movie header has come, the table of packets is complete: which frames there are, when they are shown, and where
their bytes will lie. So frames are chosen and planned as for the whole file, and packets are waited for one by one.
FFmpeg reads the header that was scanned, and zeros where the media will be (see ``_backends.pyav_growing``); it never
sees a byte that lies behind.

Everything else is opened when all of it has come: headers behind the media, fragments, Matroska, transport streams and
AVI, whose packets are known only as they come, so that neither how many frames there are nor which lie ahead can be told.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gpuflow.codecs._backends import pyav_growing
from gpuflow.codecs.base import Deadline, MediaType
from gpuflow.codecs.probe import container_claims, sniff
from gpuflow.codecs.video.plan import display_order
from gpuflow.codecs.video.source import PacketSource
from gpuflow.config import Limits
from gpuflow.errors import GpuflowError

SNIFFED_BYTES = 4_096
_HEAD_BYTES = 16
_MAX_BOXES = 64  # before the media


class GrowingBytes(Protocol):
    """Bytes of which the beginning is there."""

    @property
    def announced(self) -> int | None:
        """How many there will be, by the sender's word."""
        ...

    def has(self, end: int) -> bool:
        """Whether the first ``end`` bytes are there."""
        ...

    def wait(self, end: int) -> bool:
        """Wait for them; false where all has come and is less. Raises what ends the wait."""
        ...

    def read(self, first: int, last: int) -> bytes:
        """The bytes from ``first`` to before ``last``, of those that are there."""
        ...


class Header(NamedTuple):
    """The bytes before the media, and where the media end."""

    end: int
    media_end: int


def open_growing(body: GrowingBytes, *, limits: Limits, deadline: Deadline) -> PacketSource | None:
    """Open a clip of which the header has come, waiting for that; ``None`` where only all of it tells.

    Raises:
        GpuflowError: as ``PacketSource.open``, of what the header claims; and whatever ends the wait.
    """
    kind = _kind(body)
    if kind is None or kind.format != "mov" or kind.modality != "video":
        return None
    header = _header(body, limits)
    if header is None:
        return None
    data = body.read(0, header.end)
    container_claims(data, kind, limits, wanted="video")
    demuxed = pyav_growing.demux_header(data, header.media_end, body, kind, limits=limits, deadline=deadline)
    if demuxed is None or display_order(demuxed.rows) is None:
        return None
    return PacketSource.of(demuxed, limits=limits, deadline=deadline)


def _kind(body: GrowingBytes) -> MediaType | None:
    body.wait(SNIFFED_BYTES)
    try:
        return sniff(body.read(0, SNIFFED_BYTES))
    except GpuflowError:
        return None  # all of it is looked at later, and refused


def _header(body: GrowingBytes, limits: Limits) -> Header | None:
    """Walk the boxes up to the media; the movie header must be among them, and name no fragments."""
    at, has_movie = 0, False
    for _ in range(_MAX_BOXES):
        if not body.wait(at + _HEAD_BYTES):
            return None
        head = body.read(at, at + _HEAD_BYTES)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if name == b"mdat":
            return _media(at, size, body, limits) if has_movie else None
        if size < 8 or at + size > limits.max_video_bytes or not body.wait(at + size):
            return None
        if name == b"moof" or (name == b"moov" and b"mvex" in body.read(at, at + size)):
            return None
        has_movie |= name == b"moov"
        at += size
    return None


def _media(at: int, size: int, body: GrowingBytes, limits: Limits) -> Header | None:
    end = at + size if size else body.announced
    if end is None or not at < end <= min(limits.max_video_bytes, body.announced or end):
        return None
    return Header(at, end)
