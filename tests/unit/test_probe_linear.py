"""The time of a scan: bounded by counts, and linear in them; a longer file of the same structure costs no more."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable

import pytest

from gpuflow.codecs.probe import check, sniff
from gpuflow.codecs.probe.asf import MAGIC
from gpuflow.config import Limits
from gpuflow.errors import GpuflowError
from tests.faults import bomb_parts as parts
from tests.unit.tiff_files import tiff

LIMITS = Limits()


def cluster(size: int) -> bytes:
    """A cluster of one block."""
    return parts.element(0x1F43B675, bytes(size))


def owners(kind: bytes, body: bytes, count: int) -> bytes:
    """Items, each of which owns the same large property and shows the same small picture."""
    numbers, content = range(1, count + 1), parts.av1_picture(64, 64)
    file = parts.avif(
        iinf=parts.items_of(*[(item, kind) for item in numbers]),
        iloc=parts.places(*[(item, 1, [(0, len(content))]) for item in numbers]),
        iprp=parts.properties([parts.ispe(64, 64), body], *[(item, [1, 2]) for item in numbers]),
    )
    return file if kind == b"av01" else parts.as_heic(file)


def grid_with_alphas(count: int) -> bytes:
    """A picture of many tiles, each of which has an alpha."""
    tiles, rest = list(range(2, count + 2)), range(count + 2, 2 * count + 2)
    return parts.avif(
        kind=b"grid",
        grid=bytes([0, 0, max(0, count // 250 - 1), 249, 0, 64, 0, 64]),
        iprp=parts.properties(
            [parts.ispe(64, 64), parts.box(b"auxC", bytes(4), parts.ALPHA)],
            *[(1, [1])],
            *[(item, [1]) for item in tiles[:2_000]],
            *[(item, [1, 2]) for item in rest[:2_000]],
        ),
        iref=parts.references(
            (b"dimg", 1, tiles), *[(b"auxl", item, [to]) for item, to in zip(rest, tiles, strict=True)]
        ),
    )


EXIF = (
    b"II*\0\x08\0\0\0" + struct.pack("<H", 511) + struct.pack("<HHII", 1, 3, 1, 0) * 511
)  # 6,142 bytes, no orientation
JPEG = b"\xff\xd8\xff\xc0\0\x0b\x08\0\x40\0\x40\1\1\x11\0"
SCAN = b"\xff\xda\0\x08\1\1\0\0\x3f\0"
MANY: dict[str, Callable[[int], bytes]] = {
    "boxes": lambda n: parts.movie(before=parts.box(b"free") * n),
    "boxes of fragments": lambda n: parts.movie() + parts.box(b"moof", parts.box(b"free") * n),
    "fragments": lambda n: parts.movie() + (parts.box(b"moof", parts.box(b"mfhd", bytes(8))) + parts.box(b"mdat")) * n,
    "elements": lambda n: parts.matroska(parts.INFO, parts.element(0xEC) * n, parts.tracks(parts.track())),
    "clusters": lambda n: parts.matroska(parts.INFO, parts.tracks(parts.track()), cluster(10) * n),
    "seek entries": lambda n: parts.matroska(
        parts.element(
            0x114D9B74,
            *[parts.element(0x4DBB, parts.element(0x53AB, b"\x12\x54\xc3\x67"), parts.number(0x53AC, i)) for i in range(n)],
        ),
        parts.tracks(parts.track()),
    ),
    "RIFF chunks": lambda n: parts.wav(parts.fmt(), parts.chunk(b"LIST") * n),
    "AIFF chunks": lambda n: b"FORM\0\0\0\0AIFF" + struct.pack(">4sI", b"NAME", 0) * n,
    "CAF chunks": lambda n: b"caff\0\1\0\0" + struct.pack(">4sQ", b"free", 0) * n,
    "ASF objects": lambda n: MAGIC + struct.pack("<QIH", 30 + 24 * n, n, 0x201) + (bytes(16) + struct.pack("<Q", 24)) * n,
    "AMR frames": lambda n: b"#!AMR\n" + b"\x7c" * n,
    "AVI chunks": lambda n: parts.riff(b"AVI ", parts.avi(parts.strh(), parts.strf())[12:], parts.chunk(b"JUNK") * n),
    "Ogg pages": lambda n: parts.page(parts.vorbis()) + parts.page(b"", flags=0) * n,
    "FLAC blocks": lambda n: parts.flac(more=b"\1\0\0\0" * n + b"\x81\0\0\0"),
    "transport packets": lambda n: parts.packets((0, parts.PAT), *[(0, b"\0" * 184)] * n),
    "sync bytes": lambda n: b"ID3\4\0\0\0\0\0\0" + b"\xff\xfb" * n,
    "JPEG scans": lambda n: b"\xff\xd8\xff\xc0\0\x0b\x08\0\x40\0\x40\1\1\x11\0" + b"\xff\xda" * n,
    "JPEG markers": lambda n: b"\xff\xd8" + b"\xff\xfe\0\2" * n,
    "JPEG bytes like markers": lambda n: JPEG + SCAN * 99 + b"\xff\1" * n,
    "JPEG stuffing": lambda n: JPEG + SCAN * 99 + b"\xff\0" * (20 * n),
    "JPEG blocks of EXIF": lambda n: JPEG + (b"\xff\xe1\x18\x06Exif\0\0" + EXIF) * (n // 100) + SCAN,
    "WebP blocks of EXIF": lambda n: parts.webp(parts.anmf(), parts.chunk(b"EXIF", EXIF) * (n // 100)),
    "PNG chunks": lambda n: parts.png(parts.png_chunk(b"IDAT", b"\0"), parts.png_chunk(b"tEXt") * n),
    "WebP chunks": lambda n: parts.webp(parts.anmf(), parts.chunk(b"JUNK") * n),
    "GIF frames": lambda n: parts.gif(8, 8, *[(0, 0, 8, 8)] * n),
    "GIF blocks": lambda n: parts.gif(8, 8, (0, 0, 8, 8))[:-1] + b"\x21\xfe" + b"\1\0" * n + b"\0\x3b",
    "AVIF boxes": lambda n: parts.avif(idat=parts.box(b"free") * n),
    "AVIF properties": lambda n: parts.avif(iprp=parts.box(b"iprp", parts.box(b"ipco", parts.box(b"ispe", bytes(12)) * n))),
    "AVIF extents": lambda n: parts.avif(iloc=parts.box(b"iloc", struct.pack(">IBBH", 0, 0, 0, n // 16), b"\0\1\0\0\0\x10" * (n // 16))),
    "AVIF owners of one property": lambda n: owners(b"av01", parts.box(b"colr", b"prof", bytes(100 * n)), min(n, 4_000)),
    "AVIF owners of an av1C": lambda n: owners(b"av01", parts.box(b"av1C", bytes(100 * n)), min(n, 4_000)),
    "AVIF alphas": lambda n: parts.avif(
        iprp=parts.properties([parts.ispe(64, 64), parts.box(b"auxC", bytes(100 * n))], (1, [1]), (2, [2])),
        iref=parts.references(*[(b"auxl", 2, [1])] * min(n, 18_000)),
    ),
    "AVIF tiles and their alphas": lambda n: grid_with_alphas(min(n, 4_000)),
    "AVIF units": lambda n: parts.avif(stream=parts.av1_sequence(64, 64) + parts.av1_unit(15, b"") * n),
    "AVIF frames": lambda n: parts.avif_sequence(parts.av1_sequence(64, 64, reduced=False) + parts.av1_frame(0, (64, 64)) * n),
    "AVIF samples": lambda n: parts.avif_sequence(*[parts.av1_picture(64, 64)] * (n // 16)),
    "AVIF pieces": lambda n: parts.avif(iloc=parts.places((1, 1, [(0, 1)] * min(n, 16_000)))),
    "HEIC owners of one record": lambda n: owners(b"hvc1", parts.box(b"hvcC", bytes(100 * n)), min(n, 4_000)),
    "HEIC records": lambda n: parts.as_heic(
        parts.avif(kind=b"hvc1", iprp=parts.properties([parts.ispe(64, 64), *[parts.box(b"hvcC", bytes(23))] * n], (1, [1, 2])))
    ),
    "HEIC units": lambda n: parts.heic(b"iloc", 26, bytes(4)) + bytes(4 * n),
    "TIFF pages": lambda n: parts.pages_behind(parts.tiff_page(), n),
    "TIFF entries": lambda n: b"II*\0\x08\0\0\0" + struct.pack("<H", min(n, 65_535)) + bytes(12 * n),
    "TIFF strips": lambda n: tiff(
        parts.tiff_page(t258=[1], extra={256: (4, [8]), 257: (4, [n]), 278: (3, [1]), 273: (4, [8] * n), 279: (4, [1] * n)})
    ),
    "TIFF strips of JPEG": lambda n: tiff(
        parts.tiff_page(t259=[7], t257=[min(n, 60_000)], t278=[1], extra={273: (4, [8] * min(n, 60_000)), 279: (4, [9] * min(n, 60_000))}),
    ) + bytes(600_000),
    "rows of a table": lambda n: parts.movie(parts.table(b"stts", n, struct.pack(">II", 1, 512))),
}  # fmt: skip


def seconds(data: bytes) -> float:
    """CPU time of one scan: the best of three."""
    kind, times = sniff(data), []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(GpuflowError):
            check(data, kind, LIMITS)
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("name", MANY)
def test_the_time_is_linear_in_what_is_counted(name: str) -> None:
    few, many = (seconds(MANY[name](n)) for n in (2_000, 16_000))
    assert many < 16 * few + 2e-3  # 8 times as many


@pytest.mark.parametrize("name", MANY)
def test_beyond_the_count_the_time_does_not_grow(name: str) -> None:
    assert seconds(MANY[name](300_000 if name != "seek entries" else 60_000)) < 0.1


@pytest.mark.parametrize("name", ["mp4", "matroska", "wav", "avi"])
def test_media_are_stepped_over(name: str) -> None:
    def file(size: int) -> bytes:
        media = bytes(size)
        files = {
            "mp4": lambda: parts.movie().replace(b"avc1", b"vp09") + parts.box(b"mdat", media),
            "matroska": lambda: parts.matroska(
                parts.INFO, parts.tracks(parts.track()), parts.element(0x1F43B675, media)
            ).replace(b"/AVC", b"/ASP"),  # of H.264 without its headers the first 8 MB are looked at
            "wav": lambda: parts.riff(b"WAVE", parts.fmt(), parts.chunk(b"data", media)),
            "avi": lambda: parts.avi(parts.strh(), parts.strf()) + parts.chunk(b"LIST", b"movi" + media),
        }
        return files[name]()

    assert seconds(file(16 << 20)) < 5 * seconds(file(1_000)) + 2e-4
