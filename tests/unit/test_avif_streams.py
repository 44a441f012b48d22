"""AVIF: the sizes within its AV1 streams, and its alpha, against the decoder itself (Pillow: libavif, dav1d)."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from PIL import Image as Picture

from gpuflow.codecs import av1
from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.images import decode_image
from gpuflow.codecs.probe import check, sniff
from gpuflow.config import ImageOptions, Limits
from gpuflow.errors import CorruptMedia, LimitExceeded
from gpuflow.flow.sync import SyncFlow
from tests.faults import bomb_parts as parts
from tests.unit.image_files import by_pillow, encoded, scene, with_alpha

SIDE = 2_500  # 12 bits for each side: 24 more in a frame's header leave what follows at its place in a byte
LOW = Picture.new("L", (64, 64), 77)
AUXILIARY = parts.box(b"auxC", bytes(4), parts.ALPHA)


def info_of(data: bytes, limits: Limits | None = None) -> ImageInfo:
    """What the scan says."""
    info = check(data, sniff(data), limits or Limits())
    assert isinstance(info, ImageInfo)
    return info


def stream_of(data: bytes) -> bytes:
    """The AV1 stream of the last picture of a file that ends with it."""
    at = data.rindex(b"\x12\0\x0a")  # delimiter and sequence header
    return data[at:]


@functools.cache
def still(seed: int) -> bytes:
    """The stream of a picture of 64x64, encoded by libaom."""
    return stream_of(encoded(np.roll(scene(64, 64), 16 * seed, axis=1), "AVIF", speed=10, quality=90))


@functools.cache
def opacity() -> bytes:
    """The stream of an alpha of 64x64."""
    return stream_of(encoded(LOW, "AVIF", speed=10, subsampling="4:0:0"))


def record(stream: bytes) -> bytes:
    """The av1C of 4:2:0 or of gray."""
    return parts.box(b"av1C", bytes([0x81, 0, 0x1C if stream is opacity() else 0x0C, 0]))


def file_of(
    streams: list[bytes],
    owners: dict[int, list[int]],
    links: list[tuple[bytes, int, list[int]]],
    *,
    grid: tuple[int, int] = (0, 0),
    more: tuple[bytes, ...] = (),
) -> bytes:
    """Pictures 2.. of 64x64, and item 1: the first of them again, or a grid of (columns, rows) of 64x64.

    Properties: 1 size, 2 and 3 the records of colours and of gray, 4 and 5 their bits, 6 alpha, 7 the grid's size.
    """
    columns, rows = grid
    first = bytes([0, 0, rows - 1, columns - 1, 0, 64 * columns, 0, 64 * rows]) if columns else streams[0]
    pieces = [first, *streams]
    starts = [sum(map(len, pieces[:n])) for n in range(len(pieces))]
    kinds = [b"grid" if columns else b"av01", *[b"av01"] * len(streams)]
    described = [parts.ispe(64, 64), record(streams[0]), record(opacity())]
    described += [parts.box(b"pixi", bytes(4), bytes([3, 8, 8, 8])), parts.box(b"pixi", bytes(4), b"\1\x08"), AUXILIARY]
    described += [parts.ispe(64 * columns, 64 * rows), *more]
    return parts.avif(
        iinf=parts.items_of(*enumerate(kinds, 1)),
        iloc=parts.places(
            *[(n, 1, [(at, len(piece))]) for n, (at, piece) in enumerate(zip(starts, pieces, strict=True), 1)]
        ),
        idat=parts.box(b"idat", *pieces),
        iprp=parts.properties(described, *sorted(({2: COLOURS} | owners).items())),
        iref=parts.references(*links) if links else b"",
    )


COLOURS, ALPHA = [1, 2, 4], [1, 3, 5, 6]
TILES = {1: [7, 2, 4], 2: COLOURS, 3: COLOURS}
OF_TILES = (b"dimg", 1, [2, 3])
AGREEING: dict[str, tuple[Callable[[], bytes], bool]] = {
    "a still": (lambda: file_of([still(0)], {1: COLOURS}, []), False),
    "an alpha": (lambda: file_of([still(0), opacity()], {1: COLOURS, 3: ALPHA}, [(b"auxl", 3, [1])]), True),
    "an alpha by HEVC's name": (
        lambda: file_of(
            [still(0), opacity()], {1: COLOURS, 3: [1, 3, 5, 8]}, [(b"auxl", 3, [1])],
            more=(parts.box(b"auxC", bytes(4), b"urn:mpeg:hevc:2015:auxid:1\0"),),
        ),
        True,
    ),
    "a map of depths": (
        lambda: file_of(
            [still(0), opacity()], {1: COLOURS, 3: [1, 3, 5, 8]}, [(b"auxl", 3, [1])],
            more=(parts.box(b"auxC", bytes(4), b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth\0"),),
        ),
        False,
    ),
    "an alpha of another picture": (
        lambda: file_of([still(0), opacity()], {1: COLOURS, 2: COLOURS, 3: ALPHA}, [(b"auxl", 3, [2])]), False,
    ),
    "a grid": (lambda: file_of([still(0), still(1)], TILES, [OF_TILES], grid=(2, 1)), False),
    "a grid whose tiles have alphas": (
        lambda: file_of(
            [still(0), still(1), opacity(), opacity()], TILES | {4: ALPHA, 5: ALPHA},
            [OF_TILES, (b"auxl", 4, [2]), (b"auxl", 5, [3])], grid=(2, 1),
        ),
        True,
    ),
    "a sequence": (lambda: encoded_sequence("RGB"), False),
    "a sequence with alpha": (lambda: encoded_sequence("RGBA"), True),
    "a sequence whose item has no alpha": (lambda: encoded_sequence("RGBA").replace(b"auxl", b"xuxl", 1), True),
    "a sequence whose alpha track is not linked": (lambda: renamed_last(encoded_sequence("RGBA"), b"auxl"), False),
}  # fmt: skip


def encoded_sequence(mode: str) -> bytes:
    """Three frames by Pillow."""
    first, *rest = [Picture.fromarray(with_alpha(37, 53)).convert(mode).rotate(40 * n) for n in range(3)]
    return encoded(first, "AVIF", save_all=True, append_images=rest, speed=10)


def renamed_last(data: bytes, name: bytes) -> bytes:
    """The last box of that name is another."""
    at = data.rindex(name)
    return data[:at] + b"free" + data[at + 4 :]


@pytest.mark.parametrize("name", AGREEING)
def test_what_is_said_of_alpha_and_frames_is_what_the_decoder_gives(name: str) -> None:
    data, has_alpha = AGREEING[name][0](), AGREEING[name][1]
    info = info_of(data)
    with Picture.open(io.BytesIO(data)) as image:
        assert (image.mode == "RGBA") == info.has_alpha == has_alpha
        assert (image.size, getattr(image, "n_frames", 1)) == ((info.width, info.height), info.num_frames)
    assert np.array_equal(decode_image(data, info).pixels, by_pillow(data))


@pytest.mark.parametrize(
    ("owners", "links"),
    [
        ({4: ALPHA, 5: ALPHA}, [(b"auxl", 4, [2])]),
        ({4: [*ALPHA, 8]}, [(b"auxl", 4, [1])]),
        ({4: [*ALPHA, 9]}, [(b"auxl", 4, [1])]),
        ({4: ALPHA}, [(b"auxl", 4, [1, 9])]),
    ],
    ids=["of one tile only", "with a property that libavif does not know", "with two names", "of two pictures"],
)
def test_an_alpha_that_a_decoder_may_take_or_leave_is_refused(
    owners: dict[int, list[int]], links: list[tuple[bytes, int, list[int]]]
) -> None:
    more = (parts.box(b"zzzz", bytes(4)), parts.box(b"auxC", bytes(4), b"urn:x\0"))
    streams = [still(0), still(1), opacity(), opacity()]
    with pytest.raises(CorruptMedia, match="alpha"):
        info_of(file_of(streams, TILES | owners, [OF_TILES, *links], grid=(2, 1), more=more))


def test_a_track_beside_the_pictures_that_does_not_say_that_it_is_alpha_is_refused() -> None:
    data = encoded_sequence("RGBA")
    at = data.index(b"urn:", data.index(b"auxi"))
    with pytest.raises(CorruptMedia, match="no alpha"):
        info_of(data[:at] + b"urx:" + data[at + 4 :])


def bits(data: bytes) -> str:
    """As text."""
    return "".join(f"{byte:08b}" for byte in data)


def of_text(text: str) -> bytes:
    """The other way."""
    return int(text, 2).to_bytes(len(text) // 8, "big")


@functools.cache
def lying_frame() -> bytes:
    """A real keyframe of 2,500^2, which says so itself, in a sequence that says 64x64."""
    frames = [Picture.new("RGB", (SIDE, SIDE), (90, 90, 90)), Picture.new("RGB", (SIDE, SIDE))]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:], speed=10, quality=90)
    payload = memoryview(data)[data.index(b"mdat") + 4 :]
    found: dict[int, bytes] = {}
    for kind, start, end in av1.units(payload):
        found.setdefault(kind, bytes(payload[start:end]))
        if av1.FRAME in found:
            break
    size = f"{SIDE - 1:012b}" * 2
    sequence, frame = bits(found[av1.SEQUENCE]), bits(found[av1.FRAME])
    override = 6 + int(frame[5])  # behind: shown again, type, shown, cdf, screen content and its whole vectors
    assert frame[override] == "0"
    order = override + 1 + 7
    frame = frame[:override] + "1" + frame[override + 1 : order] + size + frame[order:]
    units = (av1.SEQUENCE, sequence.replace(size, f"{63:012b}" * 2)), (av1.FRAME, frame)
    stream = b"".join(parts.av1_unit(kind, of_text(text)) for kind, text in units)
    return file_of([stream], {1: COLOURS}, [])


def test_a_frame_larger_than_its_sequence_is_refused_though_the_decoder_takes_it() -> None:
    data = lying_frame()
    shown = by_pillow(data)  # scaled down, after all of it was decoded
    assert shown.shape == (64, 64, 3)
    assert np.abs(np.median(shown, axis=(0, 1)) - 90).max() <= 3
    with pytest.raises(CorruptMedia, match="2500x2500"):
        info_of(data)


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_alpha_and_a_lying_frame_end_alike_here_and_in_a_worker(isolation: Literal["none", "process"]) -> None:
    data = encoded_sequence("RGBA").replace(b"auxl", b"xuxl", 1)
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=1, isolation=isolation) as flow:
        with flow.load(data, options=ImageOptions(alpha="drop")) as image:
            assert np.array_equal(image.numpy(), by_pillow(data)[:, :, :3])
        with pytest.raises(CorruptMedia, match="2500x2500"):
            flow.load(lying_frame())


def test_a_stream_is_held_to_the_limit_whatever_the_boxes_say() -> None:
    data = encoded(scene(300, 400), "AVIF", speed=10)
    at = data.index(b"ispe") + 8
    small = data[:at] + bytes([0, 0, 0, 64] * 2) + data[at + 8 :]
    assert by_pillow(small).shape == (64, 64, 3)
    with pytest.raises(LimitExceeded, match="max_image_pixels"):
        info_of(small, Limits(max_image_pixels=100_000))
    with pytest.raises(CorruptMedia, match="400x300"):
        info_of(small)


def test_the_files_that_bombs_are_made_from_are_let_through() -> None:
    assert info_of(parts.avif()).num_frames == 1
    assert info_of(parts.avif_sequence(*[parts.av1_picture(64, 64)] * 3)).num_frames == 3
    whole = parts.av1_sequence(64, 64, reduced=False)
    for kind in range(4):
        for shown, strict in ((0, 0), (0, 1), (1, 0), (1, 1)):
            frame = parts.av1_frame(kind, (64, 64), shown=shown, resilient=strict)
            assert info_of(parts.avif(stream=whole + frame)).width == 64
