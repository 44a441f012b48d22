"""The tracks of an AVIF's sequence, chosen as libavif chooses them. Source: ISO/IEC 14496-12, AV1 in ISOBMFF 1.3."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gpuflow.codecs.av1 import Sequence
from gpuflow.codecs.probe.av1 import Streams
from gpuflow.codecs.probe.boxes import movie_claims
from gpuflow.codecs.probe.claims import check_count, check_room
from gpuflow.codecs.probe.heif import ALPHA, BEGINNING_BYTES, Items, children, number
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_TREE: dict[bytes, tuple[bytes, ...]] = {  # what is read within what
    b"trak": (b"tkhd", b"tref", b"mdia"),
    b"tref": (b"auxl",),
    b"mdia": (b"minf",),
    b"minf": (b"stbl",),
    b"stbl": (b"stsd", b"stco", b"co64", b"stsc", b"stsz"),
}
_ENTRY_BYTES = 86  # of a description, before its boxes
_HIDDEN = 2  # times max_animation_pixels: frames that are shown later stand beside those that are shown
_Place = tuple[int, int]  # first byte and end


@dataclass(frozen=True, slots=True)
class Track:
    """``size``: as it is shown; ``record``: what ``av1C`` says first, ``b""`` where it is not there."""

    number: int
    auxiliary_of: int
    size: tuple[int, int]
    record: bytes
    says_alpha: bool
    num_samples: int


def sequence_tracks(items: Items, limits: Limits) -> tuple[Track, bool]:
    """The track that is shown, and whether another is its alpha; the pictures of all tracks are held to the limits.

    Raises:
        CorruptMedia: there is none, or tables that contradict each other or lead out of the file.
        LimitExceeded: too many samples or pixels.
    """
    movie_claims(items.data, limits)
    boxes = children(items, 0, len(items.data), limits)
    movie = next(((first, end) for name, first, end in boxes if name == b"moov"), (0, 0))
    streams, tracks = Streams(limits), []
    for name, first, end in children(items, *movie, limits):
        if name == b"trak":
            track = _track(items, _boxes(items, name, (first, end), limits), streams)
            tracks += [track] if track else []
    shown = next((track for track in tracks if track.auxiliary_of == 0), None)
    if shown is None:
        raise CorruptMedia("the AVIF's sequence has no pictures")
    beside = [track for track in tracks if track.auxiliary_of == shown.number]
    if not all(track.says_alpha for track in beside):  # libavif takes it for alpha or not, by its version
        raise CorruptMedia("a track of the AVIF stands beside its pictures and is no alpha")
    return shown, bool(beside)


def _boxes(items: Items, parent: bytes, place: _Place, limits: Limits) -> dict[bytes, _Place]:
    """Of a track: its tables, each of which may be there once."""
    found: dict[bytes, _Place] = {}
    for name, first, end in children(items, *place, limits):
        if name in found:
            raise CorruptMedia(f"a track of the AVIF has two boxes {name!r}")
        if name in _TREE[parent]:
            found[name] = first, end
            found |= _boxes(items, name, (first, end), limits) if name in _TREE else {}
    return found


def _track(items: Items, boxes: dict[bytes, _Place], streams: Streams) -> Track | None:
    """The track, if it is of AV1 and has samples."""
    data, limits = items.data, streams.limits
    entry, end = boxes.get(b"stsd", (0, 0))
    entry += 8
    if entry > end:
        return None
    if number(data, entry - 4, 4) != 1 or b"tkhd" not in boxes:
        raise CorruptMedia("a track of the AVIF has no header, or not one description")
    if data[entry + 4 : entry + 8] != b"av01" or not (samples := list(_samples(data, boxes, limits))):
        return None
    track = _described(items, boxes, min(end, entry + number(data, entry, 4)), len(samples), limits)
    _check_samples(data, samples, track, streams)
    return track if track.number else None


def _described(items: Items, boxes: dict[bytes, _Place], end: int, num_samples: int, limits: Limits) -> Track:
    data, (header, header_end), entry = items.data, boxes[b"tkhd"], boxes[b"stsd"][0] + 8
    at = header + (88 if data[header] == 1 else 76)
    if at + 8 > header_end:
        raise CorruptMedia("the header of a track of the AVIF breaks off")
    link = boxes.get(b"auxl")
    if link is not None and link[1] - link[0] != 4:
        raise CorruptMedia("a track of the AVIF is the alpha of several")
    inner: dict[bytes, bytes] = {}
    for name, first, stop in children(items, entry + _ENTRY_BYTES, end, limits):
        inner.setdefault(name, data[first : min(stop, first + BEGINNING_BYTES)])
    return Track(
        number(data, header + (20 if data[header] == 1 else 12), 4),
        number(data, link[0], 4) if link else 0,
        (number(data, at, 2), number(data, at + 4, 2)),
        inner.get(b"av1C", b""),
        inner.get(b"auxi", b"")[4:].split(b"\0")[0] in ALPHA,
        num_samples,
    )


def _samples(data: bytes, boxes: dict[bytes, _Place], limits: Limits) -> Iterator[_Place]:
    """First byte and end of each sample, by the tables of chunks."""
    most, none = limits.max_animation_frames, (0, 0)
    if b"stco" in boxes and b"co64" in boxes:
        raise CorruptMedia("a track of the AVIF has two tables of chunks")
    chunks = _rows(data, boxes.get(b"stco", none), "I", most) + _rows(data, boxes.get(b"co64", none), "Q", most)
    each = _samples_of_chunks(_rows(data, boxes.get(b"stsc", none), "III", most), len(chunks))
    sizes = _sizes(data, boxes.get(b"stsz", none), most)
    if sum(each) != len(sizes):
        raise CorruptMedia("the tables of the AVIF's samples contradict each other")
    sample = 0
    for (at,), count in zip(chunks, each, strict=True):
        for size in sizes[sample : sample + count]:
            yield at, at + size
            at += size
        sample += count


def _samples_of_chunks(runs: list[tuple[int, ...]], num_chunks: int) -> list[int]:
    firsts = [first for first, _, _ in runs]
    if num_chunks == 0:
        return []
    if firsts[:1] != [1] or any(a >= b for a, b in itertools.pairwise(firsts)):
        raise CorruptMedia("the AVIF's chunks of samples are not in their order")
    each = []
    for (first, count, _), end in zip(runs, [*firsts[1:], num_chunks + 1], strict=True):
        each += [count] * (min(end, num_chunks + 1) - first)
    if 0 in each:
        raise CorruptMedia("a chunk of the AVIF has no samples")
    return each


def _sizes(data: bytes, place: _Place, most: int) -> list[int]:
    if place == (0, 0):
        return []
    equal, count = number(data, place[0] + 4, 4), number(data, place[0] + 8, 4)
    check_count(count, most, "frames", "max_animation_frames")
    if equal:
        return [equal] * count
    return [size for (size,) in _rows(data, (place[0] + 4, place[1]), "I", most)]


def _rows(data: bytes, place: _Place, layout: str, most: int) -> list[tuple[int, ...]]:
    """The rows of a table, behind its version and their count."""
    first, end = place
    if place == (0, 0):
        return []
    rows, count = struct.Struct(f">{layout}"), number(data, first + 4, 4)
    check_count(count, most, "rows in a table of frames", "max_animation_frames")
    check_room(count * rows.size, end - first - 8, "a table")
    return [rows.unpack_from(data, first + 8 + n * rows.size) for n in range(count)]


def _check_samples(data: bytes, samples: list[_Place], track: Track, streams: Streams) -> None:
    limits, view, frames = streams.limits, memoryview(data), 0
    sequence: Sequence | None = None
    check_room(sum(end - at for at, end in samples), len(data), "the frames together")
    for at, end in samples:
        check_room(end, len(data), "a frame")
        sequence, decoded = streams.check(view[at:end], sequence)
        frames += decoded
    if sequence is None or (sequence.width, sequence.height) != track.size:
        raise CorruptMedia("the frames of the AVIF's sequence are not of the size that its track has")
    pixels, allowed = sequence.width * sequence.height, limits.max_animation_pixels
    check_count(frames * pixels, _HIDDEN * max(allowed, pixels), "pixels in all its frames")
