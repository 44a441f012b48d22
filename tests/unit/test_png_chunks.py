"""A PNG's chunks that do not show: no decoder is given them, and the pixels are the same with and without."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from gpuflow.codecs._backends.pillow import PillowDecoder
from gpuflow.codecs._backends.pyav_png import PyAvPngDecoder
from gpuflow.codecs._backends.torchvision import TorchvisionDecoder
from gpuflow.codecs.images import decode_image
from gpuflow.codecs.probe import image_info, sniff
from gpuflow.codecs.probe.png import shown_parts
from gpuflow.errors import CorruptMedia
from tests.unit.image_files import animation, by_pillow, encoded, png, scene
from tests.unit.image_variants import VARIANTS, variant

PNGS = [name for name in VARIANTS if name.startswith(("png", "apng"))]
DECODERS = (TorchvisionDecoder(), PyAvPngDecoder(), PillowDecoder())


def chunk(name: bytes, body: bytes) -> bytes:
    """A whole chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


HIDDEN = (
    chunk(b"gAMA", struct.pack(">I", 100_000)),
    chunk(b"cHRM", struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)),
    chunk(b"sRGB", b"\2"),
    chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000))),
    chunk(b"pHYs", struct.pack(">IIB", 9, 9, 1)),
    chunk(b"tIME", b"\x07\xe8\1\1\1\1\1"),
    chunk(b"tEXt", b"Title\0nothing"),
    chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"nothing" * 99)),
    chunk(b"iTXt", b"Title\0\1\0\0\0" + zlib.compress(b"nothing" * 99)),
    chunk(b"sPLT", b"palette\0\x08" + bytes(6)),
    chunk(b"prVt", bytes(500)),
)


def with_hidden(data: bytes) -> bytes:
    """The same picture with all of those chunks before its pixels, and texts before its end."""
    end = data.rindex(b"IEND") - 4
    return data[:33] + b"".join(HIDDEN) + data[33:end] + HIDDEN[7] + HIDDEN[6] + data[end:]


def names(data: bytes) -> list[bytes]:
    """The names of a PNG's chunks."""
    found, at = [], 8
    while at < len(data):
        found.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return found


@pytest.mark.parametrize("torch_free", [False, True], ids=["here", "in a worker"])
@pytest.mark.parametrize("name", PNGS)
def test_what_does_not_show_changes_no_pixel(name: str, torch_free: bool) -> None:
    made = variant(name)
    data = with_hidden(made.data)
    info = image_info(data, sniff(data))
    plain = image_info(made.data, sniff(made.data))
    decoded = decode_image(data, info, frame=made.frame, torch_free=torch_free)
    expected = decode_image(made.data, plain, frame=made.frame, torch_free=torch_free)
    assert np.array_equal(decoded.pixels, expected.pixels)
    assert decoded.backend == expected.backend
    assert np.array_equal(
        by_pillow(data, made.frame), by_pillow(made.data, made.frame)
    )  # to which it is nothing either


@pytest.mark.parametrize("name", PNGS)
def test_every_decoder_that_takes_a_png_gives_the_same_with_and_without(name: str) -> None:
    made = variant(name)
    data = with_hidden(made.data)
    info = image_info(data, sniff(data))
    takers = [decoder for decoder in DECODERS if decoder.supports(info)]
    assert takers
    for decoder in takers:
        assert np.array_equal(decoder.decode(data, info), decoder.decode(made.data, info)), decoder.name


def test_a_decoder_is_given_what_shows() -> None:
    data = with_hidden(encoded(scene(), "PNG", transparency=(1, 2, 3)))
    assert set(names(data)) > {b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"gAMA"}
    assert names(b"".join(shown_parts(data))) == [b"IHDR", b"tRNS", b"IDAT", b"IEND"]


def test_a_later_frame_keeps_what_is_of_the_animation() -> None:
    data = with_hidden(animation("PNG"))
    assert {b"acTL", b"fcTL", b"fdAT"}.isdisjoint(names(b"".join(shown_parts(data))))
    kept = names(b"".join(shown_parts(data, 1)))
    assert kept == [name for name in names(animation("PNG")) if name[0] < 97 or name in (b"acTL", b"fcTL", b"fdAT")]


def test_where_all_is_kept_nothing_is_copied() -> None:
    data = encoded(scene(), "PNG")
    assert b"".join(shown_parts(data)) is data


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_a_checksum_that_is_wrong_is_still_wrong(decoder: PillowDecoder) -> None:
    depth = 16 if decoder.name == "pyav" else 8
    data = bytearray(with_hidden(png(np.zeros((40, 40, 3), np.uint16), 2, depth=depth)))
    data[data.rindex(b"IDAT") + 12] ^= 0xFF
    with pytest.raises(CorruptMedia):
        decoder.decode(bytes(data), image_info(bytes(data), sniff(bytes(data))))
