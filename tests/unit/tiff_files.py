"""TIFFs written tag by tag, and so in every layout that there is, by no library; strips and tiles of known bytes."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["<", ">"]
Numbers = Sequence[int] | bytes
SHORT, LONG, UNDEFINED = 3, 4, 7
_LONGS = {256, 257, 273, 278, 279, 324, 325}


def packbits(data: bytes) -> bytes:
    """Runs of one byte, as PackBits has them."""
    out = bytearray()
    for byte, run in itertools.groupby(data):
        length = len(list(run))
        while length:
            part = min(length, 128)
            out += bytes([257 - part, byte] if part > 1 else [0, byte])
            length -= part
    return bytes(out)


COMPRESS: dict[int, Callable[[bytes], bytes]] = {1: bytes, 8: zlib.compress, 32_946: zlib.compress, 32_773: packbits}


@dataclass
class Page:
    """One page: ``blocks`` are its strips or tiles, ``tags`` all others."""

    blocks: list[bytes]
    tags: dict[int, Numbers]
    tiled: bool = False
    extra: dict[int, tuple[int, Numbers]] = field(default_factory=dict)  # type and numbers, for what no tag should be


def tiff(*pages: Page, order: Order = "<") -> bytes:
    """A file of these pages."""
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link = 4
    for page in pages:
        places = []
        for block in page.blocks:
            places.append(len(out))
            out += block + bytes(len(block) & 1)
        tags = {tag: (UNDEFINED if isinstance(numbers, bytes) else LONG if tag in _LONGS else SHORT, numbers) for tag, numbers in page.tags.items()}  # fmt: skip
        tags |= {324 if page.tiled else 273: (LONG, places), 325 if page.tiled else 279: (LONG, [len(b) for b in page.blocks])}  # fmt: skip
        tags |= page.extra
        entries = b"".join(_entry(out, order, tag, *tags[tag]) for tag in sorted(tags))
        struct.pack_into(f"{order}I", out, link, len(out))
        out += struct.pack(f"{order}H", len(tags)) + entries
        link = len(out)
        out += bytes(4)
    return bytes(out)


def _entry(out: bytearray, order: Order, tag: int, kind: int, numbers: Numbers) -> bytes:
    """An entry; what does not fit in it is appended to ``out``."""
    form = {1: "B", SHORT: "H", LONG: "I"}.get(kind, "B")
    body = numbers if isinstance(numbers, bytes) else struct.pack(f"{order}{len(numbers)}{form}", *numbers)
    if len(body) > 4:
        place = len(out)
        out += body + bytes(len(body) & 1)
        body = struct.pack(f"{order}I", place)
    return struct.pack(f"{order}HHI", tag, kind, len(numbers)) + body.ljust(4, b"\0")


def page(
    levels: NDArray[Any],
    photometric: int,
    *,
    order: Order = "<",
    bits: int = 8,
    compression: int = 1,
    rows: int | None = None,
    tile: int = 0,
    planar: bool = False,
    predictor: bool = False,
    tags: dict[int, Numbers] | None = None,
) -> Page:
    """A page of ``levels``, ``(H, W, samples)``, in strips of ``rows`` or square tiles; ``predictor``: as differences."""
    height, width, samples = levels.shape
    planes = [levels[:, :, [n]] for n in range(samples)] if planar else [levels]
    wide, high = (tile, tile) if tile else (width, rows or height)
    blocks = [
        COMPRESS[compression](_block(plane[top : top + high, left : left + wide], wide, high if tile else 0, bits, order, predictor))
        for plane in planes
        for top in range(0, height, high)
        for left in range(0, width, wide)
    ]  # fmt: skip
    described: dict[int, Numbers] = {
        256: [width], 257: [height], 258: [bits] * samples, 259: [compression], 262: [photometric], 277: [samples],
        284: [2 if planar else 1], 317: [2 if predictor else 1],
        **({322: [tile], 323: [tile]} if tile else {278: [high]}),
    }  # fmt: skip
    return Page(blocks, described | (tags or {}), bool(tile))


def _block(levels: NDArray[Any], wide: int, high: int, bits: int, order: Order, predictor: bool) -> bytes:
    """Rows as they are stored, padded to a tile."""
    rows = max(high, levels.shape[0])
    levels = np.pad(levels, ((0, rows - levels.shape[0]), (0, wide - levels.shape[1]), (0, 0)))
    if predictor:
        levels = np.diff(levels, axis=1, prepend=0)
    if bits == 16:
        return levels.astype(f"{order}u2").tobytes()
    if bits == 8:
        return levels.astype(np.uint8).tobytes()
    flat = levels.reshape(rows, -1).astype(np.uint8)
    if bits == 1:
        return np.packbits(flat, axis=1).tobytes()
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    return (flat[:, ::2] << 4 | flat[:, 1::2]).astype(np.uint8).tobytes()
