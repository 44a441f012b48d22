"""The time of a scan: bounded by counts, and linear in them; a longer file of the same structure costs no more."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable

import pytest

from gpuflow.codecs.probe import check, sniff
from gpuflow.config import Limits
from gpuflow.errors import GpuflowError
from tests.faults import bombs
from tests.unit.tiff_files import tiff

LIMITS = Limits()


def cluster(size: int) -> bytes:
    """A cluster of one block."""
    return bombs.element(0x1F43B675, bytes(size))


MANY: dict[str, Callable[[int], bytes]] = {
    "boxes": lambda n: bombs.movie(before=bombs.box(b"free") * n),
    "boxes of fragments": lambda n: bombs.movie() + bombs.box(b"moof", bombs.box(b"free") * n),
    "fragments": lambda n: bombs.movie() + (bombs.box(b"moof", bombs.box(b"mfhd", bytes(8))) + bombs.box(b"mdat")) * n,
    "elements": lambda n: bombs.matroska(bombs.INFO, bombs.element(0xEC) * n, bombs.tracks(bombs.track())),
    "clusters": lambda n: bombs.matroska(bombs.INFO, bombs.tracks(bombs.track()), cluster(10) * n),
    "seek entries": lambda n: bombs.matroska(
        bombs.element(
            0x114D9B74,
            *[bombs.element(0x4DBB, bombs.element(0x53AB, b"\x12\x54\xc3\x67"), bombs.number(0x53AC, i)) for i in range(n)],
        ),
        bombs.tracks(bombs.track()),
    ),
    "RIFF chunks": lambda n: bombs.wav(bombs.fmt(), bombs.chunk(b"LIST") * n),
    "AVI chunks": lambda n: bombs.riff(b"AVI ", bombs.avi(bombs.strh(), bombs.strf())[12:], bombs.chunk(b"JUNK") * n),
    "Ogg pages": lambda n: bombs.page(bombs.vorbis()) + bombs.page(b"", flags=0) * n,
    "FLAC blocks": lambda n: bombs.flac(more=b"\1\0\0\0" * n + b"\x81\0\0\0"),
    "transport packets": lambda n: bombs.packets((0, bombs.PAT), *[(0, b"\0" * 184)] * n),
    "sync bytes": lambda n: b"ID3\4\0\0\0\0\0\0" + b"\xff\xfb" * n,
    "JPEG scans": lambda n: b"\xff\xd8\xff\xc0\0\x0b\x08\0\x40\0\x40\1\1\x11\0" + b"\xff\xda" * n,
    "JPEG markers": lambda n: b"\xff\xd8" + b"\xff\xfe\0\2" * n,
    "PNG chunks": lambda n: bombs.png(bombs.png_chunk(b"IDAT", b"\0"), bombs.png_chunk(b"tEXt") * n),
    "WebP chunks": lambda n: bombs.webp(bombs.anmf(), bombs.chunk(b"JUNK") * n),
    "GIF frames": lambda n: bombs.gif(8, 8, *[(0, 0, 8, 8)] * n),
    "GIF blocks": lambda n: bombs.gif(8, 8, (0, 0, 8, 8))[:-1] + b"\x21\xfe" + b"\1\0" * n + b"\0\x3b",
    "AVIF boxes": lambda n: bombs.avif(idat=bombs.box(b"free") * n),
    "AVIF properties": lambda n: bombs.avif(iprp=bombs.box(b"iprp", bombs.box(b"ipco", bombs.box(b"ispe", bytes(12)) * n))),
    "AVIF extents": lambda n: bombs.avif(iloc=bombs.box(b"iloc", struct.pack(">IBBH", 0, 0, 0, n // 16), b"\0\1\0\0\0\x10" * (n // 16))),
    "HEIC units": lambda n: bombs.heic(b"iloc", 26, bytes(4)) + bytes(4 * n),
    "TIFF pages": lambda n: bombs.pages_behind(bombs.tiff_page(), n),
    "TIFF entries": lambda n: b"II*\0\x08\0\0\0" + struct.pack("<H", min(n, 65_535)) + bytes(12 * n),
    "TIFF strips": lambda n: tiff(
        bombs.tiff_page(t258=[1], extra={256: (4, [8]), 257: (4, [n]), 278: (3, [1]), 273: (4, [8] * n), 279: (4, [1] * n)})
    ),
    "rows of a table": lambda n: bombs.movie(bombs.table(b"stts", n, struct.pack(">II", 1, 512))),
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
            "mp4": lambda: bombs.movie().replace(b"avc1", b"vp09") + bombs.box(b"mdat", media),
            "matroska": lambda: bombs.matroska(
                bombs.INFO, bombs.tracks(bombs.track()), bombs.element(0x1F43B675, media)
            ).replace(b"/AVC", b"/ASP"),  # of H.264 without its headers the first 8 MB are looked at
            "wav": lambda: bombs.riff(b"WAVE", bombs.fmt(), bombs.chunk(b"data", media)),
            "avi": lambda: bombs.avi(bombs.strh(), bombs.strf()) + bombs.chunk(b"LIST", b"movi" + media),
        }
        return files[name]()

    assert seconds(file(16 << 20)) < 5 * seconds(file(1_000)) + 2e-4
