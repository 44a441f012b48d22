"""Files that lie or explode, a few lines each: small bytes that ask a decoder for gigabytes, hours, sockets or crashes."""

from __future__ import annotations

import struct

import numpy as np

from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat
from tests.faults.bomb_parts import (
    ALPHA,
    BIG,
    EBML,
    FTYP,
    INFO,
    MVHD,
    PAT,
    U32,
    Bomb,
    anmf,
    as_heic,
    av1_frame,
    av1_picture,
    av1_sequence,
    av1_unit,
    avi,
    avif,
    avif_sequence,
    bmp,
    bmp_of_runs,
    box,
    chunk,
    circle,
    claiming,
    claiming_numbers,
    directories,
    element,
    flac,
    fmt,
    gif,
    heic,
    heic_of_stream,
    ispe,
    items_of,
    jpeg_in_tiff,
    jpeg_with_scans,
    long_box,
    matroska,
    movie,
    nested,
    number,
    packets,
    page,
    pages_behind,
    passing_over,
    places,
    png,
    png_chunk,
    properties,
    references,
    riff,
    section,
    small_gif,
    strf,
    strh,
    table,
    tiff_page,
    tiles_of,
    track,
    tracks,
    transport,
    vorbis,
    wav,
    webp,
)
from tests.unit.image_files import HEIC, encoded, scene
from tests.unit.probe_files import made
from tests.unit.tiff_files import LONG, SHORT, tiff

EDIT = struct.pack(">IiI", 33, 0, 0x10000)
EDITS_20000 = movie(edits=box(b"edts", table(b"elst", 20_000, EDIT)))
BOMBS: dict[str, Bomb] = {
    # MP4 and MOV
    "mp4: 20,000 edits": Bomb(lambda: EDITS_20000, LimitExceeded),
    "mp4: 20,000 edits, taken for sound": Bomb(lambda: EDITS_20000, LimitExceeded, "audio"),
    "mp4: 1,000 edits in room for one": Bomb(lambda: movie(edits=box(b"edts", table(b"elst", 1, EDIT, claimed=1_000))), CorruptMedia),
    "mp4: stsz of 5e7 sizes": Bomb(lambda: movie(box(b"stsz", struct.pack(">III", 0, 0, BIG))), LimitExceeded),
    "mp4: stsz of 5e7 equal sizes": Bomb(lambda: movie(box(b"stsz", struct.pack(">III", 0, 100, BIG))), LimitExceeded),
    "mp4: stsz of 400,000 sizes in no room": Bomb(lambda: movie(box(b"stsz", struct.pack(">III", 0, 0, 400_000))), CorruptMedia),
    "mp4: stz2 of 400,000 sizes in no room": Bomb(lambda: movie(box(b"stz2", struct.pack(">III", 0, 8, 400_000))), CorruptMedia),
    "mp4: stts of 5e7 samples": Bomb(lambda: movie(table(b"stts", 1, struct.pack(">II", BIG, 512))), LimitExceeded),
    "mp4: stts of 5e7 rows": Bomb(lambda: movie(table(b"stts", 1, bytes(8), claimed=BIG)), CorruptMedia),
    "mp4: stts rows whose sum overflows": Bomb(lambda: movie(table(b"stts", 4, struct.pack(">II", U32, 1))), LimitExceeded),
    "mp4: ctts of 5e7 samples": Bomb(lambda: movie(table(b"ctts", 1, struct.pack(">II", BIG, 0))), LimitExceeded),
    "mp4: stsc of 5e7 samples a chunk": Bomb(lambda: movie(table(b"stsc", 1, struct.pack(">III", 1, BIG, 1))), LimitExceeded),
    "mp4: stsc of 5e7 rows": Bomb(lambda: movie(table(b"stsc", 1, bytes(12), claimed=BIG)), CorruptMedia),
    "mp4: stco of 4e9 chunks": Bomb(lambda: movie(table(b"stco", 1, bytes(4), claimed=U32)), CorruptMedia),
    "mp4: co64 of 5e7 chunks": Bomb(lambda: movie(table(b"co64", 1, bytes(8), claimed=BIG)), CorruptMedia),
    "mp4: stss of 5e7 keyframes": Bomb(lambda: movie(table(b"stss", 1, bytes(4), claimed=BIG)), CorruptMedia),
    "mp4: stsd of 5e7 descriptions": Bomb(lambda: movie(table(b"stsd", 0, claimed=BIG)), CorruptMedia),
    "mp4: 20,000 tracks": Bomb(lambda: FTYP + box(b"moov", box(b"trak") * 20_000), LimitExceeded),
    "mp4: 20,000 movie headers in each other": Bomb(lambda: FTYP + nested(b"moov", 2_000), LimitExceeded),
    "mp4: udta in each other": Bomb(lambda: FTYP + box(b"moov", nested(b"udta", 500)), LimitExceeded),
    "mp4: 100,000 empty boxes": Bomb(lambda: FTYP + box(b"skip") * 100_000, LimitExceeded),
    "mp4: 200,000 empty boxes in a fragment": Bomb(lambda: FTYP + box(b"moov", MVHD) + box(b"moof", box(b"free") * 200_000), LimitExceeded),
    "mp4: a box of 7 bytes": Bomb(lambda: FTYP + box(b"moov", MVHD, box(b"trak", size=7)), CorruptMedia),
    "mp4: a box larger than the one around it": Bomb(lambda: FTYP + box(b"moov", MVHD, box(b"trak", size=1 << 30)), CorruptMedia),
    "mp4: a long box of 2^64 - 1 bytes": Bomb(lambda: FTYP + box(b"moov", MVHD, long_box(b"trak", (1 << 64) - 1)), CorruptMedia),
    "mp4: a long box of 8 bytes": Bomb(lambda: FTYP + box(b"moov", MVHD, long_box(b"trak", 8)), CorruptMedia),
    "mp4: a long box without its size": Bomb(lambda: FTYP + box(b"moov", MVHD, box(b"trak", size=1)), CorruptMedia),
    "mp4: a movie header larger than the file": Bomb(lambda: FTYP + box(b"moov", MVHD, size=1 << 31), CorruptMedia),
    "mp4: no movie header": Bomb(lambda: FTYP + box(b"mdat", bytes(5_000)), CorruptMedia),
    "mp4: media of size 0": Bomb(lambda: FTYP + box(b"mdat", bytes(5_000), size=0), CorruptMedia),
    "mp4: a compressed movie header": Bomb(lambda: FTYP + box(b"moov", box(b"cmov", bytes(100))), UnsupportedFormat),
    "mp4: a movie header hidden in free": Bomb(lambda: FTYP + box(b"free", box(b"moov", box(b"trak") * 50)), LimitExceeded),
    "mp4: time scale 0 of a track": Bomb(lambda: movie(scale=0), CorruptMedia),
    "mp4: time scale 0 of the movie": Bomb(lambda: FTYP + box(b"moov", box(b"mvhd", bytes(100))), CorruptMedia),
    "mp4: 30 years of pictures": Bomb(lambda: movie().replace(struct.pack(">II", 1_000, 1_000), struct.pack(">II", 1, 10**9)), LimitExceeded),
    "mp4: pictures of 65,535^2": Bomb(lambda: movie().replace(struct.pack(">HH", 160, 96), b"\xff" * 4), LimitExceeded),
    "mp4: pictures of 65,535^2, taken for sound": Bomb(lambda: movie().replace(struct.pack(">HH", 160, 96), b"\xff" * 4), LimitExceeded, "audio"),
    "mp4: a fragment of 5e7 samples": Bomb(lambda: movie() + box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0, BIG)))), LimitExceeded),
    "mp4: a fragment's samples in no room": Bomb(lambda: movie() + box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0xF00, 10_000)))), CorruptMedia),
    "mov: a table hidden in a description": Bomb(lambda: _hidden_table(), LimitExceeded),
    # Matroska
    "matroska: 1,000 tracks": Bomb(lambda: matroska(INFO, tracks(track() * 1_000)), LimitExceeded),
    "matroska: 50,000 elements": Bomb(lambda: matroska(element(0xEC) * 50_000, tracks(track())), LimitExceeded),
    "matroska: elements of no size in each other": Bomb(lambda: EBML + element(0x18538067, element(0x1654AE6B, open_ended=True) * 500, open_ended=True), CorruptMedia),
    "matroska: a header of no size": Bomb(lambda: element(0x1A45DFA3, element(0x4282, b"matroska"), open_ended=True), CorruptMedia),
    "matroska: private data of 2^50 bytes": Bomb(lambda: matroska(INFO, tracks(track(element(0x63A2, bytes(10), size=1 << 50)))), CorruptMedia),
    "matroska: tracks of 2^55 bytes": Bomb(lambda: matroska(INFO, element(0x1654AE6B, track(), size=1 << 55)), CorruptMedia),
    "matroska: tags in each other": Bomb(lambda: matroska(INFO, tracks(track()), element(0x1254C367, _tags(2_000))), LimitExceeded),
    "matroska: tags behind the media": Bomb(lambda: _tags_behind_media(), LimitExceeded),
    "matroska: time scale 0": Bomb(lambda: matroska(element(0x1549A966, number(0x2AD7B1, 0)), tracks(track())), CorruptMedia),
    "matroska: a duration of 10^300": Bomb(lambda: matroska(element(0x1549A966, element(0x4489, struct.pack(">d", 1e300))), tracks(track())), LimitExceeded),
    "matroska: pictures of 2^32 x 2^32": Bomb(lambda: matroska(INFO, tracks(track(element(0xE0, number(0xB0, 1 << 32), number(0xBA, 1 << 32))))), LimitExceeded),
    "matroska: sound at 1e300 Hz": Bomb(lambda: matroska(INFO, tracks(track(element(0xE1, element(0xB5, struct.pack(">d", 1e300))), kind=2))), LimitExceeded, "audio"),
    "matroska: sound of 10,000 channels": Bomb(lambda: matroska(INFO, tracks(track(element(0xE1, number(0x9F, 10_000)), kind=2))), LimitExceeded, "audio"),
    "matroska: packets compressed with zlib": Bomb(lambda: matroska(INFO, tracks(track(_compression(0)))), UnsupportedFormat),
    "matroska: a megabyte before every packet": Bomb(lambda: matroska(INFO, tracks(track(_compression(3, bytes(1 << 20))))), LimitExceeded),
    "matroska: an integer of 200 bytes": Bomb(lambda: matroska(INFO, tracks(track(element(0xE0, element(0xB0, bytes(200)))))), CorruptMedia),
    "matroska: a float of 3 bytes": Bomb(lambda: matroska(element(0x1549A966, element(0x4489, bytes(3))), tracks(track())), CorruptMedia),
    "matroska: no tracks": Bomb(lambda: matroska(INFO, element(0x1F43B675, bytes(1_000))), CorruptMedia),
    # AVI
    "avi: 100 streams": Bomb(lambda: avi(strh(), strf(), streams=100), LimitExceeded),
    "avi: pictures of 2^31": Bomb(lambda: avi(strh(), strf(1 << 30, 1 << 30)), LimitExceeded),
    "avi: an index of 2^32 entries": Bomb(lambda: avi(strh(), strf(), chunk(b"indx", struct.pack("<HHI", 4, 0, U32) + bytes(24))), CorruptMedia),
    "avi: a stream header of 4 GB": Bomb(lambda: avi(chunk(b"strh", bytes(48), size=U32)), CorruptMedia),
    "avi: a list of headers of 4 GB": Bomb(lambda: riff(b"AVI ", chunk(b"LIST", b"hdrl", size=U32)), CorruptMedia),
    "avi: 100,000 empty chunks": Bomb(lambda: riff(b"AVI ", chunk(b"JUNK") * 100_000), LimitExceeded),
    "avi: lists in each other": Bomb(lambda: riff(b"AVI ", _lists(100)), LimitExceeded),
    "avi: no streams": Bomb(lambda: riff(b"AVI ", chunk(b"LIST", b"movi" + bytes(500))), CorruptMedia),
    # MPEG-TS
    "ts: sync bytes and noise": Bomb(lambda: _noise_in_packets(), CorruptMedia),
    "ts: five packets, then noise": Bomb(lambda: transport((0, PAT))[: 5 * 188] + np.random.default_rng(3).bytes(100_000), CorruptMedia),
    "ts: a table of 4,095 bytes": Bomb(lambda: transport((0, section(0x00, b"\0\1\xe1\0", 0xFFF))), CorruptMedia),
    "ts: a program of 30 streams": Bomb(lambda: transport((0, PAT), (0x100, section(0x02, bytes(4) + b"\x1b\xe1\x01\xf0\x00" * 30))), LimitExceeded),
    "ts: 200 programs": Bomb(lambda: packets(*_long_section(b"".join(struct.pack(">HH", n + 1, 0xE100 + n) for n in range(200))), *[(0x1FFF, b"")] * 8), LimitExceeded),
    # WAV
    "wav: 1 Hz": Bomb(lambda: wav(fmt(rate=1)), LimitExceeded),
    "wav: 1.7e9 Hz": Bomb(lambda: wav(fmt(rate=1_700_000_000)), LimitExceeded),
    "wav: 0 Hz": Bomb(lambda: wav(fmt(rate=0)), CorruptMedia),
    "wav: 64 channels": Bomb(lambda: wav(fmt(channels=64, align=128)), LimitExceeded),
    "wav: no channels": Bomb(lambda: wav(fmt(channels=0)), CorruptMedia),
    "wav: 65,535 bits": Bomb(lambda: wav(fmt(bits=65_535)), CorruptMedia),
    "wav: samples of no bytes": Bomb(lambda: wav(fmt(align=0)), CorruptMedia),
    "wav: a format of 4 bytes": Bomb(lambda: wav(chunk(b"fmt ", bytes(4))), CorruptMedia),
    "wav: a format of 4 GB": Bomb(lambda: wav(chunk(b"fmt ", bytes(16), size=U32)), CorruptMedia),
    "wav: an extensible format that is none": Bomb(lambda: wav(fmt(tag=0xFFFE)), CorruptMedia),
    "wav: samples before the format": Bomb(lambda: wav(), CorruptMedia),
    "wav: 100,000 chunks": Bomb(lambda: wav(chunk(b"LIST") * 100_000), LimitExceeded),
    "wav: ten hours": Bomb(lambda: riff(b"WAVE", fmt(tag=2, rate=16_000, align=1)[:16] + struct.pack("<IHH", 1, 1, 4), chunk(b"data", bytes(36_000))), LimitExceeded),
    # FLAC
    "flac: 2^36 samples": Bomb(lambda: flac(samples=(1 << 36) - 1), LimitExceeded),
    "flac: 2e9 samples": Bomb(lambda: flac(samples=2_000_000_000), LimitExceeded),
    "flac: 1,000,000 Hz": Bomb(lambda: flac(rate=1_000_000, samples=0), LimitExceeded),
    "flac: 0 Hz": Bomb(lambda: flac(rate=0), CorruptMedia),
    "flac: blocks of 1 sample": Bomb(lambda: flac(block=1), CorruptMedia),
    "flac: a picture of 16 MB": Bomb(lambda: flac(more=b"\x86\xff\xff\xff"), CorruptMedia),
    "flac: 100,000 blocks": Bomb(lambda: flac(more=b"\1\0\0\0" * 100_000), LimitExceeded),
    # MP3 and AAC
    "mp3: a tag beyond the file": Bomb(lambda: b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(100), CorruptMedia),
    "mp3: 50 tags": Bomb(lambda: b"ID3\4\0\0\0\0\0\0" * 50 + made("mp3 CONSTANT 0.2 1 44100"), CorruptMedia),
    "mp3: nothing behind a tag": Bomb(lambda: b"ID3\4\0\0\0\0\0\0" + bytes(5_000), CorruptMedia),
    "mp3: a megabyte of sync bytes behind a tag": Bomb(lambda: b"ID3\4\0\0\0\0\0\0" + b"\xff" * (1 << 20), CorruptMedia),
    "mp3: 2^32 frames": Bomb(lambda: _xing(made("mp3 VARIABLE 0.2 2 44100"), U32), LimitExceeded),
    # Ogg
    "ogg: a page beyond the file": Bomb(lambda: page(vorbis(), lacing=b"\xff" * 255), CorruptMedia),
    "ogg: pages of nothing": Bomb(lambda: page(b"", flags=0) * 50_000, CorruptMedia),
    "ogg: 1,000 streams": Bomb(lambda: b"".join(page(vorbis(), serial=n) for n in range(1_000)), LimitExceeded),
    "ogg: 1e9 Hz": Bomb(lambda: page(vorbis(rate=10**9)), LimitExceeded),
    "ogg: 0 Hz": Bomb(lambda: page(vorbis(rate=0)), CorruptMedia),
    "ogg: 255 channels": Bomb(lambda: page(vorbis(channels=255)), LimitExceeded),
    "ogg: 3 million years": Bomb(lambda: page(vorbis()) + page(b"x" * 50, flags=4, position=(1 << 62)), LimitExceeded),
    "ogg: FLAC that breaks off": Bomb(lambda: page(b"\x7fFLAC\1\0\0\1fLaC\0\0\0\x22" + bytes(4)), CorruptMedia),
    # Images
    "jpeg: 65,500^2": Bomb(lambda: claiming(encoded(scene(), "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 65_500, 65_500)), LimitExceeded),
    "jpeg: 13,000^2 in no bytes": Bomb(lambda: claiming(encoded(scene(), "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 13_000, 13_000)), LimitExceeded),
    "jpeg: 6,000^2 in no bytes": Bomb(lambda: claiming(encoded(scene(), "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 6_000, 6_000)), LimitExceeded),
    "jpeg: 5,000 scans": Bomb(lambda: jpeg_with_scans(5_000), LimitExceeded),
    "jpeg: 60 scans of 49 megapixels": Bomb(lambda: passing_over(7_000, 7_000, 60), LimitExceeded),
    "jpeg: 5,000 markers between its scans": Bomb(lambda: jpeg_with_scans(70).replace(b"\xff\xd9", b"\xff\xfe\0\2" * 5_000 + b"\xff\xd9"), LimitExceeded),
    "jpeg: 100,000 markers": Bomb(lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000, CorruptMedia),
    "png: a chunk of 2^31 bytes": Bomb(lambda: png(png_chunk(b"tEXt", size=0x80000000)), CorruptMedia),
    "png: a chunk of 2^32 - 1 bytes behind pixels": Bomb(lambda: png(png_chunk(b"IDAT", bytes(9)), png_chunk(b"IDAT", size=U32)), CorruptMedia),
    "png: 16,000^2": Bomb(lambda: png(png_chunk(b"IDAT", bytes(9)), width=16_000, height=16_000), LimitExceeded),
    "png: 2^31 frames": Bomb(lambda: png(png_chunk(b"acTL", struct.pack(">II", (1 << 31) - 1, 0)), png_chunk(b"IDAT", bytes(9))), LimitExceeded),
    "png: a frame outside the picture": Bomb(lambda: png(png_chunk(b"IDAT", bytes(9)), png_chunk(b"fcTL", struct.pack(">IIIII", 0, 64, 48, 1, 0) + bytes(6))), CorruptMedia),
    "png: 100,000 chunks": Bomb(lambda: png(png_chunk(b"tEXt") * 100_000), CorruptMedia),
    "png: a filter that there is not": Bomb(lambda: png(png_chunk(b"IDAT", bytes(9)), ihdr=b"\x08\x02\0\1\0"), CorruptMedia),
    "png: a second header": Bomb(lambda: png(png_chunk(b"IHDR", struct.pack(">II", 9_000, 9_000) + b"\x08\x02\0\0\0"), png_chunk(b"IDAT", bytes(9))), CorruptMedia),
    "gif: 66 bytes of 16,000^2": Bomb(lambda: gif(16_000, 16_000, (0, 0, 16_000, 16_000)), LimitExceeded),
    "gif: 4,000^2 x 400": Bomb(lambda: gif(4_000, 4_000, *[(0, 0, 4_000, 4_000)] * 400), LimitExceeded),
    "gif: a frame below the screen": Bomb(lambda: gif(40, 30, (0, 256, 1, 1)), CorruptMedia),
    "gif: a frame of 60,000 rows": Bomb(lambda: claiming(small_gif(), b"\x2c\0\0\0\0", 3, struct.pack("<H", 60_000)), CorruptMedia),
    "gif: 10,000 frames": Bomb(lambda: gif(8, 8, *[(0, 0, 8, 8)] * 10_000), LimitExceeded),
    "webp: 34 bytes of 16,383^2": Bomb(lambda: riff(b"WEBP", chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f")), LimitExceeded),
    "webp: a canvas of 2^24": Bomb(lambda: webp(anmf(), width=1 << 24, height=1 << 24), LimitExceeded),
    "webp: 5,000 frames": Bomb(lambda: webp(*[anmf()] * 5_000), LimitExceeded),
    "webp: 1,000 frames of 4,000^2": Bomb(lambda: webp(*[anmf()] * 1_000, width=4_000, height=4_000), LimitExceeded),
    "webp: a frame outside the canvas": Bomb(lambda: webp(anmf(left=2)), CorruptMedia),
    "webp: a picture larger than the canvas": Bomb(lambda: webp(chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f"), flags=0), CorruptMedia),
    "webp: 200,000 chunks": Bomb(lambda: webp(chunk(b"JUNK") * 200_000), CorruptMedia),
    "bmp: 60,000^2": Bomb(lambda: bmp(60_000, 60_000), LimitExceeded),
    "bmp: rows that are not there": Bomb(lambda: bmp(3_000, 3_000), CorruptMedia),
    "bmp: 77 bits": Bomb(lambda: bmp(10, 3, bits=77), CorruptMedia),
    "bmp: rows beyond the file": Bomb(lambda: bmp(10, 3, offset=1 << 31), CorruptMedia),
    "bmp: 49 megapixels in 7,000 ends of rows": Bomb(lambda: bmp_of_runs(7_000, 7_000, b"\1\1\0\0" * 7_000 + b"\0\1"), LimitExceeded),
    "bmp: 49 megapixels in no runs": Bomb(lambda: bmp_of_runs(7_000, 7_000, b"\0\1"), LimitExceeded),
    "bmp: runs without an end": Bomb(lambda: bmp_of_runs(100, 100, b"\x64\1\0\0" * 100), CorruptMedia),
    "bmp: runs of 8 bits, 24 a pixel": Bomb(lambda: bmp_of_runs(10, 3, b"\0\1", bits=24), CorruptMedia),
    "avif: 60,000^2": Bomb(lambda: avif(width=60_000, height=60_000), LimitExceeded),
    "avif: a grid of 2^32 a side": Bomb(lambda: avif(kind=b"grid", grid=b"\0\1\0\0" + b"\xff" * 8, tiles=1), LimitExceeded),
    "avif: a grid of 65,536 places and no tiles": Bomb(lambda: avif(kind=b"grid", grid=b"\0\0\xff\xff\0\x40\0\x40"), CorruptMedia),
    "avif: 65,535 tiles in no room": Bomb(lambda: avif(iref=box(b"iref", bytes(4), box(b"dimg", b"\0\1\xff\xff"))), CorruptMedia),
    "avif: 1e9 items": Bomb(lambda: avif(iinf=box(b"iinf", struct.pack(">II", 1 << 24, 10**9))), LimitExceeded),
    "avif: 1e9 places": Bomb(lambda: avif(iloc=box(b"iloc", struct.pack(">IBBI", 2 << 24, 0x44, 0, 10**9))), LimitExceeded),
    "avif: 1e9 owners of properties": Bomb(lambda: avif(iprp=box(b"iprp", box(b"ipma", struct.pack(">II", 0, 10**9)))), LimitExceeded),
    "avif: an item outside the file": Bomb(lambda: avif(iloc=box(b"iloc", struct.pack(">IBBHHHHII", 0, 0x44, 0, 1, 1, 0, 1, 0, U32))), CorruptMedia),
    "avif: no size": Bomb(lambda: avif(iprp=b""), CorruptMedia),
    "avif: 100,000 boxes": Bomb(lambda: avif(idat=box(b"free") * 100_000), LimitExceeded),
    "avif: 4,096 items of 4,096 places that take no bytes": Bomb(lambda: avif(iloc=box(b"iloc", struct.pack(">IBBH", 0, 0, 0, 4_096), b"\0\1\0\0\x10\0" * 4_096)), LimitExceeded),
    "avif: tiles larger than their grid": Bomb(lambda: avif(kind=b"grid", width=9_000, height=5_000, grid=b"\0\0\0\x04\0\x40\0\x40", tiles=5, iprp=tiles_of(9_000, 5_000)), LimitExceeded),
    "avif: a picture that is no AV1": Bomb(lambda: avif(kind=b"j2k1"), UnsupportedFormat),
    "heic: 60,000^2": Bomb(lambda: heic(b"clap", 4, struct.pack(">IIII", 60_000, 1, 60_000, 1)).replace(b"ispe" + bytes(4) + struct.pack(">II", 64, 64), b"ispe" + bytes(4) + b"\0\0\xff\xff" * 2), LimitExceeded),
    "avif: a stream of 16,384^2 within 64^2": Bomb(lambda: avif(stream=av1_picture(16_384, 16_384)), LimitExceeded),
    "avif: a stream of 16,384^2, headers not reduced": Bomb(lambda: avif(stream=av1_sequence(16_384, 16_384, reduced=False)), LimitExceeded),
    "avif: a stream larger than its picture": Bomb(lambda: avif(stream=av1_picture(65, 64)), CorruptMedia),
    "avif: a stream smaller than its picture": Bomb(lambda: avif(stream=av1_picture(64, 63)), CorruptMedia),
    "avif: an alpha of 16,384^2": Bomb(lambda: _avif_of_two(av1_picture(16_384, 16_384), references((b"auxl", 2, [1]))), LimitExceeded),
    "avif: a tile of 16,384^2": Bomb(lambda: _avif_of_two(av1_picture(16_384, 16_384), references((b"dimg", 1, [2])), kind=b"grid", grid=b"\0\0\0\0\0\x40\0\x40"), LimitExceeded),
    "avif: an alpha that is a grid of 2^32 a side": Bomb(lambda: _avif_of_two(b"\0\1\0\0" + b"\xff" * 8, references((b"auxl", 2, [1]), (b"dimg", 2, [1])), second=b"grid"), LimitExceeded),
    "avif: an alpha of two pictures": Bomb(lambda: _avif_of_two(av1_picture(64, 64), references((b"auxl", 2, [1, 3]))), CorruptMedia),
    "avif: an alpha that is a thumbnail": Bomb(lambda: _avif_of_two(av1_picture(64, 64), references((b"auxl", 2, [1]), (b"thmb", 2, [1]))), CorruptMedia),
    **{f"avif: a frame of 16,384^2 in a sequence of 64^2, kind {kind}{shown}{strict}": Bomb(lambda n=kind, s=shown, r=strict: avif(stream=av1_sequence(64, 64, reduced=False) + av1_frame(n, (16_384, 16_384), shown=s, resilient=r)), CorruptMedia) for kind in range(4) for shown in (0, 1) for strict in (0, 1)},  # type: ignore[misc]
    "avif: a frame before its sequence": Bomb(lambda: avif(stream=av1_unit(6, bytes(9)) + av1_picture(64, 64)), CorruptMedia),
    "avif: no AV1 sequence": Bomb(lambda: avif(stream=av1_unit(2, b"") + av1_unit(15, bytes(9))), CorruptMedia),
    "avif: two AV1 sequences": Bomb(lambda: avif(stream=av1_picture(64, 64) + av1_picture(60, 64)), CorruptMedia),
    "avif: AV1 units that do not add up": Bomb(lambda: avif(stream=av1_picture(64, 64) + b"\x32\xff\xff\xff\x7f"), CorruptMedia),
    "avif: 2,000 frames in a picture": Bomb(lambda: avif(stream=av1_sequence(64, 64) + av1_unit(6, bytes(9)) * 2_000), LimitExceeded),
    "avif: 100,000 units in a picture": Bomb(lambda: avif(stream=av1_sequence(64, 64) + av1_unit(15, b"") * 100_000), LimitExceeded),
    "avif: six pictures of 6,400^2": Bomb(lambda: _avif_of_many(6, av1_picture(6_400, 6_400)), LimitExceeded),
    "avif: pieces that take less than nothing": Bomb(lambda: avif(iloc=places((1, 1, [(1 << 62, 0)] + [(0, 20)] * 90))), CorruptMedia),
    "avif: a piece of no length": Bomb(lambda: avif(iloc=places((1, 1, [(0, 0)]))), CorruptMedia),
    "avif: a piece behind its box": Bomb(lambda: avif(iloc=places((1, 1, [(0, 5_000)])), more=box(b"free", bytes(9_000))), CorruptMedia),
    "avif: a property owned twice": Bomb(lambda: avif(iprp=properties([ispe(64, 64)], (1, [1, 1]))), CorruptMedia),
    "avif: tracks and no word of which to show": Bomb(lambda: avif_sequence(av1_picture(64, 64)).replace(b"avis", b"msf1", 1), UnsupportedFormat),
    "avif: a sequence of 16,384^2 in a track of 64^2": Bomb(lambda: avif_sequence(av1_picture(16_384, 16_384)), LimitExceeded),
    "avif: a sequence in a track of 60,000^2": Bomb(lambda: avif_sequence(av1_picture(64, 64), size=(60_000, 60_000)), CorruptMedia),
    "avif: a second sequence in a later frame": Bomb(lambda: avif_sequence(av1_picture(64, 64), av1_picture(128, 64)), CorruptMedia),
    "avif: a later frame larger than its sequence": Bomb(lambda: avif_sequence(av1_sequence(64, 64, reduced=False) + av1_frame(0, (64, 64)), av1_frame(1, (16_384, 16_384))), CorruptMedia),
    "avif: 2,000 hidden frames of 1,000^2": Bomb(lambda: avif_sequence(av1_sequence(1_000, 1_000) + av1_unit(6, bytes(9)) * 2_000, size=(1_000, 1_000)), LimitExceeded),
    "avif: frames that share their bytes": Bomb(lambda: avif_sequence(*[av1_picture(64, 64) + bytes(50)] * 500, chunk_at=36, stsz=struct.pack(">III", 0, 30_000, 500)), CorruptMedia),
    "avif: 400,000 frames of one size": Bomb(lambda: avif_sequence(av1_picture(64, 64), stsz=struct.pack(">III", 0, 26, 400_000), stsc=(1, 400_000, 1)), LimitExceeded),
    "avif: a frame behind the file": Bomb(lambda: avif_sequence(av1_picture(64, 64), chunk_at=U32), CorruptMedia),
    "avif: two tables of chunks": Bomb(lambda: avif_sequence(av1_picture(64, 64), again=table(b"co64", 1, struct.pack(">Q", 36))), CorruptMedia),
    "avif: two tables of sizes": Bomb(lambda: avif_sequence(av1_picture(64, 64), again=box(b"stsz", struct.pack(">III", 0, 26, 1))), CorruptMedia),
    "avif: chunks in no order": Bomb(lambda: avif_sequence(*[av1_picture(64, 64)] * 3, stsc=(1, 1, 1, 9, 1, 1, 2, 1, 1)), CorruptMedia),
    "avif: chunks of no frames": Bomb(lambda: avif_sequence(av1_picture(64, 64), stsc=(1, 0, 1)), CorruptMedia),
    "heic: pieces that take less than nothing": Bomb(lambda: as_heic(avif(kind=b"hvc1", iloc=places((1, 1, [(1 << 62, 0)] + [(0, 20)] * 90)))), CorruptMedia),
    "heic: an aperture that rounds to nothing": Bomb(lambda: heic(b"clap", 4, struct.pack(">IIII", 1, 4, 1, 4)), CorruptMedia),
    "heic: 20,000 parameter sets in many records": Bomb(lambda: as_heic(avif(kind=b"hvc1", iprp=properties([ispe(64, 64), *[_record_of(64)] * 320], (1, [1, 2])))), LimitExceeded),
    "avif: two tables of places": Bomb(lambda: avif(more=box(b"iloc", bytes(8))), CorruptMedia),
    "avif: a list of 255,000 properties": Bomb(lambda: avif(iprp=box(b"iprp", box(b"ipma", struct.pack(">II", 0, 1_000), (b"\0\1\xff" + bytes(255)) * 1_000))), LimitExceeded),
    "avif: 40,000 boxes in two boxes": Bomb(lambda: avif(iprp=box(b"iprp", *[box(b"ipco", box(b"free") * 15_000)] * 2)), LimitExceeded),
    "heic: 60,000^2 within an aperture of 16": Bomb(lambda: heic(b"ispe", 8, b"\0\0\xff\xff" * 2), LimitExceeded),
    "heic: an aperture larger than its picture": Bomb(lambda: heic(b"clap", 4, struct.pack(">I", 65)), CorruptMedia),
    "heic: an aperture divided by 0": Bomb(lambda: heic(b"clap", 8, bytes(4)), CorruptMedia),
    "heic: a stream of 16,000^2": Bomb(lambda: heic_of_stream(16_000, 16_000), LimitExceeded),
    "heic: a parameter set within the picture": Bomb(lambda: heic(b"mdat", 8, b"\x42"), CorruptMedia),
    "heic: 60,000 parameter sets": Bomb(lambda: heic(b"hvcC", 27, b"\x20\xff\xff"), CorruptMedia),
    "heic: an overlay": Bomb(lambda: heic(b"hvc1", 0, b"iovl"), UnsupportedFormat),
    "heic: no picture to show": Bomb(lambda: heic(b"pitm", 8, b"\0\0"), UnsupportedFormat),
    "heif: neither HEVC nor AV1": Bomb(lambda: box(b"ftyp", b"mif1\0\0\0\0mif1jpeg") + HEIC[28:], UnsupportedFormat),
    "tiff: 65,535^2": Bomb(lambda: tiff(tiff_page(t256=[65_535], t257=[65_535])), LimitExceeded),
    "tiff: 65,535^2, big-endian": Bomb(lambda: tiff(tiff_page(t256=[65_535], t257=[65_535]), order=">"), LimitExceeded),
    "tiff: 16,000^2 of one bit": Bomb(lambda: tiff(tiff_page(t256=[16_000], t257=[16_000], t258=[1], t259=[4], t278=[16_000])), LimitExceeded),
    "tiff: 2^32 - 1 rows": Bomb(lambda: tiff(tiff_page(t256=[1], t257=[U32])), LimitExceeded),
    "tiff: pages in a circle": Bomb(circle, CorruptMedia),
    "tiff: 5,000 pages": Bomb(lambda: directories(5_000), CorruptMedia),
    "tiff: 5,000 pages, the first of them whole": Bomb(lambda: pages_behind(tiff_page(), 5_000), LimitExceeded),
    "tiff: a directory of 65,535 entries": Bomb(lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535), LimitExceeded),
    "tiff: a directory outside of the file": Bomb(lambda: b"II*\0\xff\xff\xff\x7f" + bytes(100), CorruptMedia),
    "tiff: no directory": Bomb(lambda: b"MM\0*" + bytes(100), CorruptMedia),
    "tiff: 5e7 strips in no room": Bomb(lambda: claiming_numbers(tiff(tiff_page()), 273, LONG, BIG), LimitExceeded),
    "tiff: 60,000 strips in no room": Bomb(lambda: claiming_numbers(tiff(tiff_page()), 273, LONG, 60_000), CorruptMedia),
    "tiff: strips that share their bytes": Bomb(lambda: tiff(tiff_page(t278=[1], extra={273: (LONG, [8] * 48), 279: (LONG, [3_000] * 48)})), CorruptMedia),
    "tiff: a strip outside of the file": Bomb(lambda: tiff(tiff_page(extra={273: (LONG, [U32 - 10])})), CorruptMedia),
    "tiff: a strip of 2^32 bytes": Bomb(lambda: tiff(tiff_page(extra={279: (LONG, [U32])})), CorruptMedia),
    "tiff: more strips than the page has": Bomb(lambda: tiff(tiff_page(blocks=9)), CorruptMedia),
    "tiff: strips of no rows": Bomb(lambda: tiff(tiff_page(t278=[0])), CorruptMedia),
    "tiff: a tile of 2^20 a side": Bomb(lambda: tiff(tiff_page(tiled=True, extra={322: (LONG, [1 << 20]), 323: (LONG, [1 << 20])})), LimitExceeded),
    "tiff: tiles that lie beside their page": Bomb(lambda: tiff(tiff_page(tiled=True, t257=[16], t322=[16], extra={256: (LONG, [16_384]), 323: (LONG, [262_144])})), LimitExceeded),
    "tiff: a tile of 7 a side": Bomb(lambda: tiff(tiff_page(tiled=True, t322=[7], t323=[7])), CorruptMedia),
    "tiff: strips and tiles": Bomb(lambda: tiff(tiff_page(t322=[64], t323=[48], extra={324: (LONG, [8]), 325: (LONG, [3_072])})), CorruptMedia),
    "tiff: rows that are not there": Bomb(lambda: tiff(tiff_page(t256=[3_000], t257=[3_000], t278=[3_000])), CorruptMedia),
    "tiff: 1,000 samples": Bomb(lambda: tiff(tiff_page(t277=[1_000])), UnsupportedFormat),
    "tiff: five samples": Bomb(lambda: tiff(tiff_page(t262=[2], t258=[8] * 5, t277=[5], t338=[0, 0])), UnsupportedFormat),
    "tiff: floating point": Bomb(lambda: tiff(tiff_page(t258=[32], t339=[3])), UnsupportedFormat),
    "tiff: 32 bits": Bomb(lambda: tiff(tiff_page(t258=[32])), UnsupportedFormat),
    "tiff: 16 bits with a sign": Bomb(lambda: tiff(tiff_page(t258=[16], t339=[2])), UnsupportedFormat),
    "tiff: Lab": Bomb(lambda: tiff(tiff_page(t262=[8], t258=[8] * 3, t277=[3])), UnsupportedFormat),
    "tiff: YCbCr that is no JPEG": Bomb(lambda: tiff(tiff_page(t262=[6], t258=[8] * 3, t277=[3])), UnsupportedFormat),
    "tiff: 16 bits in planes": Bomb(lambda: tiff(tiff_page(t262=[2], t258=[16] * 3, t277=[3], t284=[2])), UnsupportedFormat),
    "tiff: old JPEG": Bomb(lambda: tiff(tiff_page(t259=[6])), UnsupportedFormat),
    **{f"tiff: compression {n}": Bomb(lambda n=n: tiff(tiff_page(t259=[n])), UnsupportedFormat) for n in (9, 32_766, 32_809, 32_908, 34_661, 34_676, 34_712, 34_887, 34_925, 50_000, 50_001, 52_546)},  # type: ignore[misc]
    "tiff: fax of 8 bits": Bomb(lambda: tiff(tiff_page(t259=[4])), UnsupportedFormat),
    "tiff: a palette of three numbers": Bomb(lambda: tiff(tiff_page(t262=[3], t320=[1, 2, 3])), CorruptMedia),
    "tiff: a palette of 65,537 numbers": Bomb(lambda: claiming_numbers(tiff(tiff_page(t262=[3], t320=[1, 2, 3])), 320, SHORT, 65_537), LimitExceeded),
    "tiff: no width": Bomb(lambda: tiff(tiff_page(t256=[])), CorruptMedia),
    "tiff: a width of 0": Bomb(lambda: tiff(tiff_page(t256=[0])), CorruptMedia),
    "tiff: a width that is text": Bomb(lambda: tiff(tiff_page(extra={256: (2, b"64\0")})), CorruptMedia),
    "tiff: a megabyte of tables of JPEG": Bomb(lambda: tiff(tiff_page(t259=[7], extra={347: (7, bytes(1 << 20))})), CorruptMedia),
    "tiff: a JPEG of 95 scans": Bomb(lambda: jpeg_in_tiff(jpeg_with_scans(95)), LimitExceeded),
    "tiff: a JPEG of 60 scans of 49 megapixels": Bomb(lambda: jpeg_in_tiff(jpeg_with_scans(60), 7_000, 7_000), LimitExceeded),
    "tiff: 1,500 strips of 30 scans each": Bomb(lambda: tiff(tiff_page(t257=[48_000], t256=[1_000], t259=[7], t278=[32], extra={273: (LONG, [8 + 60 * n for n in range(1_500)]), 279: (LONG, [60] * 1_500), 700: (7, b"\xff\xda" * 45_000)})), LimitExceeded),
    "tiff: a scan among its tables of JPEG": Bomb(lambda: jpeg_in_tiff(jpeg_with_scans(1), tables=jpeg_with_scans(1)), CorruptMedia),
    "bigtiff": Bomb(lambda: b"II+\0\x08\0\0\0" + bytes(200), UnsupportedFormat),
    "bmp: a JPEG within": Bomb(lambda: claiming(bmp(10, 3), b"BM", 30, b"\4\0\0\0"), UnsupportedFormat),
    "bmp: masks of 6 bits": Bomb(lambda: claiming(bmp(3, 3, bits=32), b"BM", 30, b"\3\0\0\0" + bytes(20) + b"\x3f\0\0\0"), UnsupportedFormat),
    # Texts that name other files or sockets
    "sdp": Bomb(lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n", UnsupportedFormat),
    "hls": Bomb(lambda: b"#EXTM3U\n#EXTINF:5,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", UnsupportedFormat),
    "ffconcat": Bomb(lambda: b"ffconcat version 1.0\nfile '/etc/hostname'\n", UnsupportedFormat),
    "html": Bomb(lambda: b"<!DOCTYPE html><img src='http://127.0.0.1/'>", UnsupportedFormat),
    "a gif that is a script": Bomb(lambda: b"GIF89a/*" + bytes(9) + b"*/=1;alert(1)", CorruptMedia),
    "ico": Bomb(lambda: b"\0\0\1\0\1\0" + bytes(200), UnsupportedFormat),
    "psd": Bomb(lambda: b"8BPS\0\1" + bytes(200), UnsupportedFormat),
    "eps": Bomb(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n", UnsupportedFormat),
    "jpeg 2000, a bare stream": Bomb(lambda: b"\xff\x4f\xff\x51" + bytes(200), UnsupportedFormat),
    "svg": Bomb(lambda: b"<svg><image href='file:///etc/passwd'/></svg>", UnsupportedFormat),
    "dash": Bomb(lambda: b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1/</BaseURL></MPD>", UnsupportedFormat),
    "jpeg 2000": Bomb(lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200), UnsupportedFormat),
    "zip": Bomb(lambda: b"PK\3\4" + bytes(200), UnsupportedFormat),
}  # fmt: skip


def _avif_of_two(
    content: bytes, iref: bytes, *, kind: bytes = b"av01", grid: bytes = b"", second: bytes = b"av01"
) -> bytes:
    """A picture, and another that is its alpha, or from which it is put together."""
    first = grid or av1_picture(64, 64)
    return avif(
        iinf=items_of((1, kind), (2, second)),
        iloc=places((1, 1, [(0, len(first))]), (2, 1, [(len(first), len(content))])),
        idat=box(b"idat", first, content),
        iprp=properties([ispe(64, 64), box(b"auxC", bytes(4), ALPHA)], (1, [1]), (2, [1, 2])),
        iref=iref,
    )


def _avif_of_many(count: int, content: bytes) -> bytes:
    """So many pictures, of which one is shown."""
    numbers = range(1, count + 1)
    return avif(
        iinf=items_of(*[(n, b"av01") for n in numbers]),
        iloc=places(*[(n, 1, [((n - 1) * len(content), len(content))]) for n in numbers]),
        idat=box(b"idat", content * count),
        iprp=properties([ispe(6_400, 6_400)], *[(n, [1]) for n in numbers]),
    )


def _record_of(sets: int) -> bytes:
    """A record of HEVC that has its parameter set so many times."""
    at = HEIC.index(b"\x42\x01\x01")
    unit = HEIC[at - 2 : at + int.from_bytes(HEIC[at - 2 : at], "big")]
    return box(b"hvcC", bytes(22), b"\1\x21", struct.pack(">H", sets), unit * sets)


def _hidden_table() -> bytes:
    clip = made("mov h264")
    at = clip.index(b"avcC") - 4
    hidden = box(b"stsz", struct.pack(">III", 0, 1, 10**9))
    out = bytearray(clip[:at] + hidden + clip[at:])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        start = clip.index(name) - 4
        struct.pack_into(">I", out, start, struct.unpack_from(">I", clip, start)[0] + len(hidden))
    return bytes(out)


def _tags(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = element(0x67C8, data)
    return element(0x7373, data)


def _tags_behind_media() -> bytes:
    """What an index points at is read although a cluster without an end stands before it."""
    cluster, tags = element(0x1F43B675, bytes(500), open_ended=True), element(0x1254C367, _tags(1_000))

    def seek(to: int) -> bytes:
        return element(0x114D9B74, element(0x4DBB, element(0x53AB, b"\x12\x54\xc3\x67"), number(0x53AC, to)))

    before = seek(0) + INFO + tracks(track()) + cluster
    return matroska(seek(len(before)) + INFO + tracks(track()) + cluster + tags)


def _compression(algorithm: int, settings: bytes = b"") -> bytes:
    encoding = element(0x6240, element(0x5034, number(0x4254, algorithm), element(0x4255, settings)))
    return element(0x6D80, encoding)


def _lists(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = chunk(b"LIST", b"strl" + data)
    return data


def _noise_in_packets() -> bytes:
    data = np.random.default_rng(5).integers(0, 256, (2_000, 188), np.uint8)
    data[:, 0] = 0x47
    data[:, 1] |= 0x10  # no packet of the program table
    return data.tobytes()


def _long_section(body: bytes) -> list[tuple[int, bytes]]:
    """A program table as long as it takes, in packets of which the first begins it."""
    whole = section(0x00, body)
    return [(0, whole[:184]), *((0x4000, whole[at : at + 184]) for at in range(184, len(whole), 184))]


def _xing(data: bytes, frames: int) -> bytes:
    at = max(data.find(b"Xing"), data.find(b"Info"))
    return data[: at + 8] + struct.pack(">I", frames) + data[at + 12 :]
