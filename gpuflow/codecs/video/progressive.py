"""A clip that is opened while its bytes still come: an MP4 or MOV whose tables stand before its media.

When the movie header has come, the table of packets is complete: which frames there are, when they are shown, and where
their bytes will lie. So frames are chosen and planned as for the whole file, and packets are waited for one by one.
FFmpeg reads the header that was scanned, and zeros where the media will be (see ``_backends.pyav_growing``); it never
sees a byte that lies behind.

Where a server serves parts, that holds for a header behind the media too, and only what is decoded is fetched.

Everything else is opened when all of it has come: other headers behind the media, fragments, Matroska, transport streams and
AVI, whose packets are known only as they come, so that neither how many frames there are nor which lie ahead can be told.
"""

from __future__ import annotations

from typing import NamedTuple

from gpuflow.codecs._backends import pyav_growing
from gpuflow.codecs.base import Deadline, MediaType
from gpuflow.codecs.probe import container_claims, sniff
from gpuflow.codecs.video.arrival import GrowingBytes
from gpuflow.codecs.video.plan import display_order
from gpuflow.codecs.video.source import PacketSource
from gpuflow.config import Limits
from gpuflow.errors import GpuflowError

SNIFFED_BYTES = 4_096
_HEAD_BYTES = 16
_MAX_BOXES = 64  # before the media


class Layout(NamedTuple):
    """The bytes that are not media, by where they begin, with the media's own header; and where the file ends for all
    that counts."""

    known: dict[int, bytes]
    end: int

    @property
    def scanned(self) -> bytes:
        """The boxes alone, as a file without media."""
        return b"".join(box for box in self.known.values() if box[4:8] != b"mdat")


def open_growing(body: GrowingBytes, *, limits: Limits, deadline: Deadline) -> PacketSource | None:
    """Open a clip of which the header has come, waiting for that; ``None`` where only all of it tells.

    Raises:
        GpuflowError: as ``PacketSource.open``, of what the header claims; and whatever ends the wait.
    """
    kind = _kind(body)
    if kind is None or kind.format != "mov" or kind.modality != "video":
        return None
    layout = _layout(body, limits)
    if layout is None:
        return None
    container_claims(layout.scanned, kind, limits, wanted="video")
    demuxed = pyav_growing.demux_header(layout.known, layout.end, body, kind, limits=limits, deadline=deadline)
    if demuxed is None or display_order(demuxed.rows) is None:
        return None
    return PacketSource.of(demuxed, limits=limits, deadline=deadline)


def _kind(body: GrowingBytes) -> MediaType | None:
    body.wait(0, SNIFFED_BYTES)
    try:
        return sniff(body.read(0, SNIFFED_BYTES))
    except GpuflowError:
        return None  # all of it is looked at later, and refused


def _layout(body: GrowingBytes, limits: Limits) -> Layout | None:
    """Walk the boxes at the top up to the media and the movie header, which must name no fragments; the header may stand
    behind one box of media where any bytes can be had."""
    known: dict[int, bytes] = {}
    at, has_movie = 0, False
    for _ in range(_MAX_BOXES):
        if not body.wait(at, at + _HEAD_BYTES):
            return None
        head = body.read(at, at + _HEAD_BYTES)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if name == b"mdat":
            size = size or (body.announced or 0) - at
            known[at] = head if head[:4] == b"\0\0\0\1" else head[:8]
            if not size >= _HEAD_BYTES or not at + size <= min(
                limits.max_video_bytes, body.announced or limits.max_video_bytes
            ):
                return None
            if has_movie:
                return Layout(known, at + size)
            if not body.in_parts or sum(box[4:8] == b"mdat" for box in known.values()) > 1:
                return None
            at += size
            continue
        if size < 8 or at + size > limits.max_video_bytes or not body.wait(at, at + size):
            return None
        known[at] = body.read(at, at + size)
        if name == b"moof" or (name == b"moov" and b"mvex" in known[at]):
            return None
        has_movie |= name == b"moov"
        at += size
        if has_movie and any(box[4:8] == b"mdat" for box in known.values()):
            return Layout(known, at)
    return None
