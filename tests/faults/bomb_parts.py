"""What files that lie or explode are built of: boxes, elements, chunks, pages and packets, whatever they claim."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image as Picture

from gpuflow.errors import GpuflowError
from gpuflow.media import Modality
from tests.unit.image_files import HEIC, encoded, scene
from tests.unit.tiff_files import Numbers, Order, Page, tiff

BIG = 50_000_000
U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Bomb:
    """Bytes, what a request would take them for, and the error that they end in."""

    make: Callable[[], bytes]
    error: type[GpuflowError]
    wanted: Modality | None = None


def box(name: bytes, *bodies: bytes, size: int | None = None) -> bytes:
    """An ISO box, with its own size or another."""
    body = b"".join(bodies)
    return struct.pack(">I4s", len(body) + 8 if size is None else size, name) + body


def long_box(name: bytes, size: int, body: bytes = b"") -> bytes:
    """A box with a size of 64 bits."""
    return struct.pack(">I4sQ", 1, name, size) + body


FTYP = box(b"ftyp", b"isom\0\0\2\0isommp41")
MVHD = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1_000, 1_000), bytes(80))


def movie(
    *tables: bytes, edits: bytes = b"", scale: int = 1_000, handler: bytes = b"vide", before: bytes = b""
) -> bytes:
    """An MP4 of one track with these tables."""
    entry = bytes(24) + struct.pack(">HH", 160, 96) + bytes(50)
    stsd = box(b"stsd", struct.pack(">II", 0, 1), box(b"avc1", entry))
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">IIIII", 0, 0, 0, scale, 1_000), bytes(4)),
        box(b"hdlr", bytes(8), handler, bytes(13)),
        box(b"minf", box(b"stbl", stsd, *tables)),
    )
    return FTYP + before + box(b"moov", MVHD, box(b"trak", edits, media)) + box(b"mdat", bytes(1_000))


def table(name: bytes, count: int, *rows: bytes, claimed: int | None = None) -> bytes:
    """A sample table of ``count`` rows, all alike, that claims as many or others."""
    return box(name, struct.pack(">II", 0, count if claimed is None else claimed), b"".join(rows) * count)


def nested(name: bytes, depth: int) -> bytes:
    """Boxes within boxes."""
    data = b""
    for _ in range(depth):
        data = box(name, data)
    return data


def element(kind: int, *bodies: bytes, size: int | None = None, open_ended: bool = False) -> bytes:
    """An EBML element with a size of 8 bytes."""
    body = b"".join(bodies)
    length = (1 << 56) - 1 if open_ended else len(body) if size is None else size
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (length | 1 << 56).to_bytes(8, "big") + body


EBML = element(0x1A45DFA3, element(0x4282, b"matroska"))
INFO = element(0x1549A966, element(0x2AD7B1, b"\x0f\x42\x40"), element(0x4489, struct.pack(">d", 1_000.0)))


def number(kind: int, value: int) -> bytes:
    """An EBML integer."""
    return element(kind, value.to_bytes(8, "big"))


def track(*more: bytes, kind: int = 1) -> bytes:
    """A Matroska track entry."""
    return element(0xAE, number(0xD7, 1), number(0x83, kind), element(0x86, b"V_MPEG4/ISO/AVC"), *more)


def matroska(*parts: bytes, size: int | None = None) -> bytes:
    """A file whose segment holds these elements."""
    return EBML + element(0x18538067, *parts, size=size)


def tracks(*entries: bytes) -> bytes:
    """The element of all tracks."""
    return element(0x1654AE6B, *entries)


def chunk(name: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    """A RIFF chunk."""
    return struct.pack("<4sI", name, len(body) if size is None else size) + body + bytes(len(body) & 1)


def riff(form: bytes, *chunks: bytes, magic: bytes = b"RIFF") -> bytes:
    """A RIFF file."""
    body = form + b"".join(chunks)
    return chunk(magic, body)


def fmt(tag: int = 1, channels: int = 1, rate: int = 16_000, align: int = 2, bits: int = 16) -> bytes:
    """A WAV's format chunk."""
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * align % (1 << 32), align, bits))


def wav(*chunks: bytes) -> bytes:
    """A WAV of these chunks and a kilobyte of samples."""
    return riff(b"WAVE", *chunks, chunk(b"data", bytes(1_024)))


def avi(*strl: bytes, streams: int = 1) -> bytes:
    """An AVI whose header holds stream lists of these chunks."""
    lists = chunk(b"LIST", b"strl" + b"".join(strl)) * streams
    return riff(b"AVI ", chunk(b"LIST", b"hdrl" + chunk(b"avih", bytes(56)) + lists), chunk(b"LIST", b"movi"))


def strh(kind: bytes = b"vids", length: int = 10) -> bytes:
    """An AVI's stream header at 25 pictures a second."""
    return chunk(b"strh", kind + b"FMP4" + bytes(12) + struct.pack("<IIII", 1, 25, 0, length) + bytes(20))


def strf(width: int = 160, height: int = 96) -> bytes:
    """An AVI's picture format."""
    return chunk(b"strf", struct.pack("<IiiHH4s", 40, width, height, 1, 24, b"FMP4") + bytes(20))


def page(packet: bytes, *, flags: int = 2, position: int = 0, serial: int = 1, lacing: bytes | None = None) -> bytes:
    """An Ogg page."""
    segments = bytes([255] * (len(packet) // 255) + [len(packet) % 255]) if lacing is None else lacing
    return struct.pack("<4sBBqIIIB", b"OggS", 0, flags, position, serial, 0, 0, len(segments)) + segments + packet


def vorbis(channels: int = 2, rate: int = 48_000) -> bytes:
    """The first packet of a Vorbis stream."""
    return b"\x01vorbis" + struct.pack("<IBIIIIBB", 0, channels, rate, 0, 0, 0, 0xB8, 1)


def flac(
    *, rate: int = 16_000, channels: int = 1, samples: int = 16_000, block: int = 4_096, more: bytes = b""
) -> bytes:
    """A FLAC's metadata; ``more`` follows STREAMINFO, which is then not the last block."""
    packed = rate << 44 | (channels - 1) << 41 | 15 << 36 | samples
    info = struct.pack(">HH6xQ16x", block, block, packed)
    return b"fLaC" + bytes([0 if more else 0x80, 0, 0, 34]) + info + (more or b"\xff\xf8" + bytes(200))


def packets(*pids_and_payloads: tuple[int, bytes]) -> bytes:
    """Transport packets, each the start of a section or of a picture; with 0x4000 in its number one goes on."""
    return b"".join(
        struct.pack(">BHB", 0x47, 0x4000 ^ pid, 0x10) + payload[:184].ljust(184, b"\xff")
        for pid, payload in pids_and_payloads
    )


def section(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A program table with five bytes of header and room for its checksum."""
    size = len(body) + 9 if length is None else length
    return b"\0" + struct.pack(">BH", kind, 0xB000 | size) + bytes(5) + body + bytes(4)


def transport(*pids_and_payloads: tuple[int, bytes]) -> bytes:
    """Those packets, and others to be five."""
    return packets(*pids_and_payloads, *[(0x1FFF, b"")] * 8)


def png(*chunks: bytes, width: int = 64, height: int = 48, ihdr: bytes = b"\x08\x02\0\0\0") -> bytes:
    """A PNG of these chunks behind its header."""
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">II", width, height) + ihdr) + b"".join(chunks)


def png_chunk(name: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    """A PNG chunk without a right checksum."""
    return struct.pack(">I4s", len(body) if size is None else size, name) + body + bytes(4)


def gif(width: int, height: int, *frames: tuple[int, int, int, int]) -> bytes:
    """A GIF with frames at those places: left, top, width, height."""
    blocks = b"".join(b"\x2c" + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x4c\x01\x00" for frame in frames)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + blocks + b"\x3b"


def webp(*chunks: bytes, width: int = 100, height: int = 100, flags: int = 2) -> bytes:
    """An extended WebP."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff(b"WEBP", chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides), *chunks)


def anmf(left: int = 0, top: int = 0, width: int = 100, height: int = 100) -> bytes:
    """A frame of a WebP."""
    numbers = (left // 2, top // 2, width - 1, height - 1)
    return chunk(b"ANMF", b"".join(number.to_bytes(3, "little") for number in numbers) + bytes(20))


ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"


def av1_unit(kind: int, body: bytes) -> bytes:
    """A unit of an AV1 stream, with its size."""
    size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
    return bytes([kind << 3 | 2]) + size + body


def of_bits(*fields: tuple[int, int]) -> bytes:
    """Numbers, each with its count of bits, one behind the other."""
    text = "".join(f"{value:0{bits}b}" for value, bits in fields if bits)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def av1_sequence(width: int, height: int, *, reduced: bool = True) -> bytes:
    """A sequence header of AV1; not reduced: with frame identifiers, order hints and screen content by frame."""
    before = [(0, 3), (1, 1), (1, 1), (0, 5)] if reduced else [(0, 3), (0, 2), (0, 2), (0, 5), (0, 12), (0, 5)]
    size = [(15, 4), (15, 4), (width - 1, 16), (height - 1, 16)]
    after = [(0, 40)] if reduced else [(1, 1), (2, 4), (1, 3), (0, 7), (1, 1), (0, 2), (1, 1), (1, 1), (6, 3), (0, 40)]
    return av1_unit(1, of_bits(*before, *size, *after))


def av1_frame(kind: int, size: tuple[int, int], *, shown: int = 1, resilient: int = 0) -> bytes:
    """A frame of the sequence that is not reduced, with a size of its own; kinds: key, inter, intra only, switch."""
    intra, key = kind in (0, 2), kind == 0
    strict = resilient or kind == 3 or (key and shown)
    fields = [(0, 1), (kind, 2), (shown, 1), *([] if shown else [(0, 1)])]
    fields += [] if kind == 3 or (key and shown) else [(resilient, 1)]
    fields += [(0, 1), (1, 1), (1, 1), (0, 6), *([] if kind == 3 else [(1, 1)]), (5, 7)]
    fields += [] if intra or strict else [(0, 3)]
    fields += [] if kind == 3 or (key and shown) else [(0x55, 8)]
    fields += [(9, 7)] * 8 if strict and not (key and shown) else []
    fields += [] if intra else [(0, 1), *[(3, 3), (1, 4)] * 7]
    fields += [] if intra or strict else [(0, 7)]
    return av1_unit(6, of_bits(*fields, (size[0] - 1, 16), (size[1] - 1, 16), (0, 64)))


def av1_picture(width: int, height: int) -> bytes:
    """A sequence header and the beginning of one frame."""
    return av1_sequence(width, height) + av1_unit(6, bytes(9))


def avif(
    *,
    width: int = 64,
    height: int = 64,
    grid: bytes = b"",
    tiles: int = 0,
    kind: bytes = b"av01",
    stream: bytes = b"",
    **boxes: bytes,
) -> bytes:
    """An AVIF of one picture, or of a grid whose description lies in ``idat``."""
    content = grid or stream or av1_picture(width, height)
    parts = {
        "hdlr": box(b"hdlr", bytes(8), b"pict", bytes(13)),
        "pitm": box(b"pitm", struct.pack(">IH", 0, 1)),
        "iloc": places((1, 1, [(0, len(content))])),
        "iinf": items_of((1, kind)),
        "iref": box(b"iref", bytes(4), box(b"dimg", struct.pack(">HH", 1, tiles), b"\0\2" * tiles)) if tiles else b"",
        "iprp": properties([ispe(width, height)], (1, [1])),
        "idat": box(b"idat", content),
    } | boxes
    return box(b"ftyp", b"avif\0\0\0\0avifmif1") + box(b"meta", bytes(4), *parts.values())


def places(*items: tuple[int, int, list[tuple[int, int]]]) -> bytes:
    """Where items lie: number, method (0: the file, 1: ``idat``), and of each piece the first byte and length."""
    rows = [
        struct.pack(">HHHH", item, method, 0, len(pieces)) + b"".join(struct.pack(">QI", *piece) for piece in pieces)
        for item, method, pieces in items
    ]
    return box(b"iloc", struct.pack(">IBBH", 1 << 24, 0x84, 0, len(items)), *rows)


def items_of(*kinds: tuple[int, bytes]) -> bytes:
    """Items by number and kind."""
    entries = [box(b"infe", struct.pack(">IHH", 2 << 24, item, 0), kind, b"\0") for item, kind in kinds]
    return box(b"iinf", struct.pack(">IH", 0, len(kinds)), *entries)


def ispe(width: int, height: int) -> bytes:
    """The size of a picture."""
    return box(b"ispe", struct.pack(">III", 0, width, height))


def properties(bodies: list[bytes], *owners: tuple[int, list[int]]) -> bytes:
    """Properties, and which item owns which, counted from 1."""
    rows = [struct.pack(">HB", item, len(owned)) + bytes(owned) for item, owned in owners]
    return box(b"iprp", box(b"ipco", *bodies), box(b"ipma", struct.pack(">II", 0, len(owners)), *rows))


def references(*links: tuple[bytes, int, list[int]]) -> bytes:
    """Which items refer to which: kind, from, to."""
    rows = [box(kind, struct.pack(f">HH{len(to)}H", item, len(to), *to)) for kind, item, to in links]
    return box(b"iref", bytes(4), *rows)


def as_heic(data: bytes) -> bytes:
    """What ``avif`` makes, under the name of the other format."""
    return data.replace(b"avif\0\0\0\0avifmif1", b"heic\0\0\0\0heicmif1")


def avif_sequence(
    *samples: bytes,
    size: tuple[int, int] = (64, 64),
    stsz: bytes = b"",
    stsc: tuple[int, ...] = (1, 1, 1),
    chunk_at: int | None = None,
    again: bytes = b"",
) -> bytes:
    """An AVIF of one track, each of whose samples is a chunk; ``again``: what stands in its table of samples too."""
    start = box(b"ftyp", b"avis\0\0\0\0avisavifmsf1") + box(b"mdat", *samples)
    places, at = [], 36
    for sample in samples:
        places.append(at if chunk_at is None else chunk_at)
        at += len(sample)
    entry = box(b"av01", bytes(78), box(b"av1C", b"\x81\0\0\0"))
    stbl = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), entry),
        box(b"stsz", stsz or struct.pack(f">III{len(samples)}I", 0, 0, len(samples), *map(len, samples))),
        box(b"stsc", struct.pack(f">II{len(stsc)}I", 0, len(stsc) // 3, *stsc)),
        box(b"stco", struct.pack(f">II{len(places)}I", 0, len(places), *places)),
        table(b"stts", 1, struct.pack(">II", len(samples), 1)),
        again,
    )
    tkhd = box(
        b"tkhd", struct.pack(">IIIII", 0, 0, 0, 1, 0), bytes(56), struct.pack(">II", size[0] << 16, size[1] << 16)
    )
    mdhd = box(b"mdhd", struct.pack(">IIIII", 0, 0, 0, 1_000, 1_000), bytes(4))
    hdlr = box(b"hdlr", bytes(8), b"pict", bytes(13))
    return start + box(b"moov", MVHD, box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, box(b"minf", stbl))))


def tiff_page(
    *, blocks: int = 1, tiled: bool = False, extra: dict[int, tuple[int, Numbers]] | None = None, **tags: list[int]
) -> Page:
    """A page of a TIFF: 64x48 gray pixels that are there, but for what is said by ``t`` and the number of a tag."""
    described: dict[int, Numbers] = {256: [64], 257: [48], 258: [8], 259: [1], 262: [1], 277: [1], 278: [48]}
    described |= {int(name[1:]): numbers for name, numbers in tags.items()}
    return Page([bytes(64 * 48)] * blocks, described, tiled, extra or {})


def circle(order: Order = "<") -> bytes:
    """A TIFF whose second page is followed by its first."""
    data = bytearray(tiff(tiff_page(), tiff_page(), order=order))
    first = struct.unpack_from(f"{order}I", data, 4)[0]
    struct.pack_into(f"{order}I", data, len(data) - 4, first)
    return bytes(data)


def directories(count: int) -> bytes:
    """A TIFF of so many pages, each of nothing but where the next one lies."""
    links = b"".join(struct.pack("<HI", 0, 8 + 6 * (n + 1)) for n in range(count))
    return b"II*\0\x08\0\0\0" + links + bytes(6)


def heic(name: bytes, after: int, claim: bytes) -> bytes:
    """A HEIC with other bytes behind a box's name."""
    return claiming(HEIC, name, after, claim)


def heic_of_stream(width: int, height: int) -> bytes:
    """A HEIC whose box says 64x64 and whose parameter set says something else."""
    at = HEIC.index(b"\x42\x01\x01") + 18  # in its parameter set: the number 0, the number 1, both sizes
    bits = "1010" + "".join("0" * (len(f"{n + 1:b}") - 1) + f"{n + 1:b}" for n in (width, height))
    sizes = int(bits.ljust(88, "1"), 2).to_bytes(11, "big")
    return HEIC[:at] + sizes + HEIC[at + 11 :]


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = encoded(scene(), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * count + b"\xff\xd9"


def passing_over(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG of so many scans that claims another size, in bytes enough for that."""
    data = claiming(jpeg_with_scans(scans), b"\xff\xc2", 5, struct.pack(">HH", height, width))
    return data[:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) + data[2:]


def jpeg_in_tiff(strip: bytes, width: int = 64, height: int = 48, tables: bytes = b"") -> bytes:
    """A TIFF of one strip that is a JPEG."""
    tags: dict[int, Numbers] = {256: [width], 257: [height], 258: [8] * 3, 259: [7], 262: [6], 277: [3], 278: [height]}
    return tiff(Page([strip], tags, extra={347: (7, tables)} if tables else {}))


def bmp_of_runs(width: int, height: int, rows: bytes, bits: int = 8) -> bytes:
    """A BMP of run lengths of 8 bits, with a palette of one gray."""
    size, offset = 54 + 1_024 + len(rows), 54 + 1_024
    header = struct.pack("<IIIIiiHHIIiiII", size, 0, offset, 40, width, height, 1, bits, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + header + bytes(1_024) + rows


def claiming(data: bytes, marker: bytes, after: int, claim: bytes) -> bytes:
    """The same file with other bytes behind a marker."""
    at = data.index(marker) + after
    return data[:at] + claim + data[at + len(claim) :]


def claiming_numbers(data: bytes, tag: int, kind: int, count: int) -> bytes:
    """The same TIFF, a tag of which claims so many numbers."""
    return claiming(data, struct.pack("<HH", tag, kind), 4, struct.pack("<I", count))


def pages_behind(first: Page, count: int) -> bytes:
    """A TIFF of a page, and many empty ones behind it."""
    data = bytearray(tiff(first))
    start = len(data)
    struct.pack_into("<I", data, start - 4, start)
    links = b"".join(struct.pack("<HI", 0, start + 6 * (n + 1)) for n in range(count))
    return bytes(data) + links + bytes(6)


def tiles_of(width: int, height: int) -> bytes:
    """Properties of a picture of 64x64 and of its tile, which is larger."""
    sizes = [box(b"ispe", struct.pack(">III", 0, *size)) for size in ((64, 64), (width, height))]
    owners = struct.pack(">IIHBBHBB", 0, 2, 1, 1, 1, 2, 1, 2)
    return box(b"iprp", box(b"ipco", *sizes), box(b"ipma", owners))


def small_gif() -> bytes:
    return encoded(Picture.fromarray(scene()).quantize(16), "GIF")


def bmp(width: int, height: int, bits: int = 24, offset: int = 54) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHI", 0, 0, offset, 40, width, height, 1, bits, 0) + bytes(20) + bytes(300)


PAT = section(0x00, b"\0\1\xe1\0")
