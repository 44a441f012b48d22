"""How often a decoder passes over a JPEG's pixels: a few bytes may have it do so thousands of times."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.errors import LimitExceeded

# A scan of 49 MP takes 30 ms (two shared cores), or twice as long: the first decoder may give up after the last scan.
# libjpeg writes 10 of a photograph, 14 of one whose colours are red, green and blue, and others 12
_MAX_PASSES, _LEAST_PIXELS = 14, 50_000_000
_SCAN = re.compile(rb"\xff\xda")
_SOS, _EOI = 0xDA, 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_MAX_MARKERS = 4_096
_BLOCK_BYTES = 1 << 18


def check_scans(data: bytes, pixels: int, limits: Limits) -> None:
    """Hold the scans of a JPEG of so many pixels to the limits.

    Raises:
        LimitExceeded: too many, for any picture or for one that large; or more markers than any has.
    """
    allowed = _allowed(pixels, limits)
    scans = sum(1 for _ in itertools.islice(_SCAN.finditer(data), allowed + 1))
    if scans > allowed:
        scans = scans_of_picture(data)  # what looks like one may lie in a thumbnail, or in a film behind the picture
    _check(scans, allowed, pixels)


def check_strips(data: bytes, strips: Iterable[tuple[int, int]], pixels: int, limits: Limits) -> None:
    """Likewise the scans of a TIFF's strips or tiles, of so many pixels each: in each of them, and together.

    ``strips``: where they begin and end.
    """
    counts = [data.count(b"\xff\xda", first, end) for first, end in strips]
    _check(max(counts), _allowed(pixels, limits), pixels)
    _check(sum(counts), _passes(pixels, limits), pixels)


def scans_of_picture(data: bytes) -> int:
    """Scans from the first byte to the end of the picture, none of those that lie in segments."""
    scans, at, markers = 0, 2, 0
    for block in range(0, len(data), _BLOCK_BYTES):
        places = _markers(data, block)
        while (index := int(np.searchsorted(places, at))) < len(places):
            at, markers = int(places[index]), markers + 1
            marker = data[at + 1]
            if marker == _EOI:
                return scans
            if markers > _MAX_MARKERS:
                raise LimitExceeded(f"more than {_MAX_MARKERS} markers in one JPEG")
            scans += marker == _SOS
            at += 2 if marker in _ALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return scans


def _markers(data: bytes, start: int) -> NDArray[np.intp]:
    """Where markers may lie in a block, but for those that restart a scan. Source: ITU-T T.81, B.1.1.2."""
    levels = np.frombuffer(data, np.uint8, min(_BLOCK_BYTES + 1, len(data) - start), start)
    following = levels[1:]
    found = (levels[:-1] == 0xFF) & (following != 0) & (following != 0xFF) & (following & 0xF8 != 0xD0)
    return np.flatnonzero(found) + start


def _passes(pixels: int, limits: Limits) -> int:
    """How many scans of so many pixels are as much work as those of the largest picture."""
    return max(1, _MAX_PASSES * max(limits.max_image_pixels, _LEAST_PIXELS) // pixels)


def _allowed(pixels: int, limits: Limits) -> int:
    return min(limits.max_jpeg_scans, _passes(pixels, limits))


def _check(scans: int, allowed: int, pixels: int) -> None:
    if scans > allowed:
        raise LimitExceeded(
            f"the JPEG has {scans} scans or more of {pixels} pixels; {allowed} are allowed: see Limits.max_jpeg_scans"
        )
