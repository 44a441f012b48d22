"""An AVIF: its still picture, or the frames of its sequence. Source: the AVIF specification 1.1, AV1 in ISOBMFF 1.3."""

from __future__ import annotations

import functools

from gpuflow.codecs.base import Color, ImageInfo
from gpuflow.codecs.probe.boxes import movie_claims
from gpuflow.codecs.probe.heif import Items, reading
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_KINDS = (b"av01", b"grid")
_CHROMA = {
    0b0000: "444",
    0b0100: "444",
    0b1000: "422",
    0b1100: "420",
}  # subsampling bits of av1C, chroma's place left out
_IDENTITY = 0  # the matrix of RGB


def avif_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. ``irot`` and ``imir`` are the orientation; an EXIF block says nothing."""
    return reading(data, limits, functools.partial(_info, data))


def _info(data: bytes, items: Items, limits: Limits) -> ImageInfo:
    frames, size = _sequence(data, limits)
    if items.primary == 0 and size is None:
        raise CorruptMedia("the AVIF names no picture to show")
    if items.primary and items.kind not in _KINDS:
        raise UnsupportedFormat(f"an AVIF whose picture is {items.kind!r} is not read: only AV1, and grids of it")
    width, height = size or items.size(items.primary)
    items.check_grid(limits)
    return items.facts("avif", (width, height), _stored(items), num_frames=frames)


def _stored(items: Items) -> tuple[int, Color, str]:
    """Bits, colours and chroma, by the decoder's configuration; what is usual where it is not there."""
    configuration = items.body(b"av1C")
    if configuration is None:
        return 8, "ycbcr", "420"
    flags = configuration[2]
    bits = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if flags & 0x10:
        return bits, "gray", ""
    colours = next((body for body in items.bodies(items.primary, b"colr") if body[:4] == b"nclx"), b"")
    if len(colours) >= 10 and int.from_bytes(colours[8:10], "big") == _IDENTITY:
        return bits, "rgb", ""
    return bits, "ycbcr", _CHROMA.get(flags & 0x0C, "")


def _sequence(data: bytes, limits: Limits) -> tuple[int, tuple[int, int] | None]:
    """Frames and size of an image sequence; one frame and no size of a still picture."""
    if b"avis" not in data[8:12] or data.find(b"moov") < 0:
        return 1, None
    claims = movie_claims(data, limits)
    pictures = [track for track in claims.tracks if track.width and track.height]
    if not pictures:
        raise CorruptMedia("the AVIF's sequence has no pictures")
    return max(1, pictures[0].num_samples or 1), (pictures[0].width, pictures[0].height)
