"""An AVIF: its still picture, or the frames of its sequence. Source: the AVIF specification 1.1, AV1 in ISOBMFF 1.3."""

from __future__ import annotations

import math

from gpuflow.codecs.av1 import CONFIG_BYTES
from gpuflow.codecs.base import Color, ImageInfo
from gpuflow.codecs.probe.av1 import Streams
from gpuflow.codecs.probe.avif_tracks import sequence_tracks
from gpuflow.codecs.probe.claims import check_count, check_room
from gpuflow.codecs.probe.heif import Items, children, reading
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
_LAYERED = frozenset({b"a1op", b"a1lx", b"lsel"})
_MAX_LAYERS = 4
_OF_ALPHA = (
    frozenset((b"ispe", b"auxC", b"colr", b"av1C", b"pasp", b"clap", b"irot", b"imir", b"pixi")) | _LAYERED
)  # libavif leaves out an item of which another property is essential


def avif_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. ``irot`` and ``imir`` are the orientation; an EXIF block says nothing."""
    return reading(data, limits, _info)


def _info(items: Items, limits: Limits) -> ImageInfo:
    items.check_grids(limits)
    if items.primary and items.body(b"ispe") is not None:  # what it claims first, then whether that is so
        check_count(math.prod(items.size(items.primary)), limits.max_image_pixels, "pixels", "max_image_pixels")
    _check_streams(items, limits)
    if items.primary and items.kind not in _KINDS:
        raise UnsupportedFormat(f"an AVIF whose picture is {items.kind!r} is not read: only AV1, and grids of it")
    if _is_sequence(items, limits):
        track, has_alpha = sequence_tracks(items, limits)
        stored = _stored(items, track.record)
        return items.facts("avif", track.size, stored, has_alpha=has_alpha, num_frames=track.num_samples)
    if items.primary == 0:
        raise CorruptMedia("the AVIF names no picture to show")
    stored = _stored(items, items.body(b"av1C"))
    return items.facts("avif", items.size(items.primary), stored, has_alpha=_has_alpha(items))


def _is_sequence(items: Items, limits: Limits) -> bool:
    """Whether its tracks are shown and not its picture, which is as the first brand says."""
    brand = items.data[8:12]
    if brand not in (b"avif", b"avis"):
        names = (name for name, _, _ in children(items, 0, len(items.data), limits))
        if any(name == b"moov" for name in names):
            raise UnsupportedFormat("an AVIF with tracks, whose first brand does not say which to show, is not read")
    return brand == b"avis"


def _check_streams(items: Items, limits: Limits) -> None:
    """Hold the size of every AV1 stream to the limit and to its item's: dav1d allocates by what the stream says."""
    streams, nbytes, pixels = Streams(limits), 0, 0
    view = memoryview(items.data)
    for item, kind in items.kinds.items():
        places = items.places.get(item, [])
        if kind in _KINDS and any(length == 0 for _, _, length in places):
            raise CorruptMedia("a picture of the AVIF does not say how many bytes it takes")
        if kind != b"av01" or not places:
            continue
        extents = items.extents(item)
        nbytes += sum(end - at for at, end in extents)
        check_room(nbytes, len(items.data), "the pictures together")
        payload = view[slice(*extents[0])] if len(extents) == 1 else memoryview(items.payload(item))
        sequence, frames = streams.check(payload)
        check_count(frames, _MAX_LAYERS, "frames in a picture")
        pixels += frames * sequence.width * sequence.height
        check_count(pixels, _MAX_LAYERS * limits.max_image_pixels, "pixels in its pictures")
        of_layers = len(sequence.points) > 1 or items.owns(item) & _LAYERED
        sized = next(items.bodies(item, b"ispe"), None) is not None
        if sized and not of_layers and items.size(item) != (sequence.width, sequence.height):
            wide, high = items.size(item)
            raise CorruptMedia(
                f"a picture of the AVIF claims {wide}x{high}; {sequence.width}x{sequence.height} are in it"
            )


def _has_alpha(items: Items) -> bool:
    """Whether another picture is its alpha, or each of its tiles has one.

    Raises:
        CorruptMedia: an alpha that decoders would take or leave as they like.
    """
    tiles = set(items.tiles(items.primary)) if items.kind == b"grid" else set()
    wanted, covered = {items.primary, *tiles}, set[int]()
    for item, targets in items.alphas():
        if not wanted.intersection(targets):
            continue
        odd = len(targets) != 1 or items.kinds.get(item) not in _KINDS or not items.places.get(item)
        odd |= len(list(items.bodies(item, b"auxC"))) != 1 or bool(items.owns(item) - _OF_ALPHA)
        if odd or (b"thmb", item) in items.references:
            raise CorruptMedia("the AVIF's alpha is no whole picture of its own")
        covered.update(targets)
    if covered & tiles and covered != tiles:
        raise CorruptMedia("the AVIF has an alpha of some of its tiles")
    return bool(covered)


def _stored(items: Items, record: bytes | None) -> tuple[int, Color, str]:
    """Bits, colours and chroma, by the decoder's configuration; what is usual where it is not there."""
    if record is None or len(record) < CONFIG_BYTES:
        return 8, "ycbcr", "420"
    flags = record[2]
    bits = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if flags & 0x10:
        return bits, "gray", ""
    colours = next((body for body in items.bodies(items.primary, b"colr") if body[:4] == b"nclx"), b"")
    if len(colours) >= 10 and int.from_bytes(colours[8:10], "big") == _IDENTITY:
        return bits, "rgb", ""
    return bits, "ycbcr", _CHROMA.get(flags & 0x0C, "")
