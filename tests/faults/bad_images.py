"""Images that are none, lie, break off or explode, as a request brings them, and the codes of the errors they end in."""

from __future__ import annotations

import base64
import functools
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from tests.faults.bomb_parts import chunk, riff, webp
from tests.faults.bombs import BOMBS
from tests.unit.image_files import animation, encoded, png, scene, with_alpha
from tests.unit.tiff_files import page, tiff

UNREADABLE, TOO_LARGE, UNKNOWN = "media_unprocessable", "media_limit_exceeded", "unsupported_media"
QUANTIZED = Picture.fromarray(scene(240, 320)).quantize(64)
GOOD: dict[str, bytes] = {
    "jpeg": encoded(scene(240, 320), "JPEG"),
    "jpeg progressive": encoded(scene(240, 320), "JPEG", progressive=True),
    "png": encoded(scene(240, 320), "PNG"),
    "png alpha": encoded(with_alpha(), "PNG"),
    "webp": encoded(scene(240, 320), "WEBP"),
    "webp lossless": encoded(scene(240, 320), "WEBP", lossless=True),
    "gif": encoded(QUANTIZED, "GIF"),
    "bmp": encoded(scene(240, 320), "BMP"),
    "avif": encoded(scene(240, 320), "AVIF", speed=10),
    "tiff": encoded(scene(240, 320), "TIFF"),
    "tiff lzw": encoded(scene(240, 320), "TIFF", compression="tiff_lzw"),
    "tiff in tiles": tiff(page(scene(240, 320), 2, tile=64, compression=8)),
    "webp animated": animation("WEBP"),
    "gif animated": animation("GIF"),
}
STILL = tuple(name for name in GOOD if "animated" not in name)
HOSTILE: dict[str, set[str | None]] = {
    "apng_segfaults_cv2_547B.png": {UNREADABLE},
    "apng_segfaults_opencv_646B.png": {UNREADABLE, None},
    "gif_frame_outside_canvas_76B.gif": {UNREADABLE},
    "jpeg2000_kills_nvimgcodec_cpu.jp2": {UNKNOWN},
    "png_takes_4GB_56B.png": {UNREADABLE},
}
_OF_IMAGES = (
    "jpeg", "png", "gif", "webp", "bmp", "avif", "heic", "heif", "tiff", "bigtiff", "svg", "html", "ico", "psd", "eps",
    "zip", "a gif",
)  # fmt: skip
_ERRORS = {"CorruptMedia": UNREADABLE, "LimitExceeded": TOO_LARGE, "UnsupportedFormat": UNKNOWN}


def uri(kind: str, data: bytes) -> str:
    """A ``data:`` URI of that type, whatever the bytes are."""
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def flat(width: int, height: int) -> bytes:
    """A JPEG of one gray, whose pixels are all there: 270 of them a byte."""
    return encoded(Picture.new("L", (width, height), 90), "JPEG", quality=20)


def bad(media: Path) -> dict[str, tuple[bytes | str, set[str | None]]]:
    """What is wrong: what is sent, and the codes that are right."""
    files = _made() | {
        name: (bomb.make(), {_ERRORS[bomb.error.__name__]})
        for name, bomb in BOMBS.items()
        if name.startswith(_OF_IMAGES)
    }
    for name, codes in HOSTILE.items():
        if (file := media / "hostile" / name).exists():
            files[name] = (file.read_bytes(), codes)
    return files


@functools.cache
def _made() -> dict[str, tuple[bytes | str, set[str | None]]]:
    files: dict[str, tuple[bytes | str, set[str | None]]] = {
        "no bytes": (b"", {UNREADABLE}),
        "a magic number alone": (b"\xff\xd8\xff", {UNREADABLE}),
        "HTML that is called a JPEG": (uri("image/jpeg", b"<html>"), {UNKNOWN}),
        "a picture of 51 megapixels": (flat(8_000, 6_400), {TOO_LARGE}),
        "a header of 280 megapixels and a megabyte": (_claimed(flat(5_000, 5_000), 16_400, 17_100), {TOO_LARGE}),
        "webp: 65,535^2": (webp(chunk(b"VP8X"), width=65_535, height=65_535, flags=0), {UNREADABLE, TOO_LARGE}),
        "avif: 65,535^2": (GOOD["avif"].replace(_sides(320, 240), _sides(65_535, 65_535)), {TOO_LARGE}),
        "png: 65,535^2": (png(np.zeros((4, 4, 3), np.uint8), 2, depth=8, size=(65_535, 65_535)), {TOO_LARGE}),
        "bmp: 65,535^2": (GOOD["bmp"][:18] + (65_535).to_bytes(4, "little") * 2 + GOOD["bmp"][26:], {TOO_LARGE}),
        "gif: 65,535^2": (GOOD["gif"][:6] + b"\xff" * 4 + GOOD["gif"][10:], {TOO_LARGE}),
        "jpeg: 65,535^2": (_claimed(GOOD["jpeg"], 65_535, 65_535), {TOO_LARGE}),
        "png whose pixels are fewer than it claims": (png(np.zeros((4, 4, 3), np.uint8), 2, depth=8, size=(400, 400)), {UNREADABLE}),
        "a WebP in a RIFF of nothing": (riff(b"WEBP"), {UNREADABLE}),
    }  # fmt: skip
    for name in STILL:
        for tenth in range(1, 10):
            cut = GOOD[name][: tenth * len(GOOD[name]) // 10]
            files[f"{name}, cut at {tenth} tenths"] = (cut, {UNREADABLE})
    return files


def _sides(width: int, height: int) -> bytes:
    return width.to_bytes(4, "big") + height.to_bytes(4, "big")


def _claimed(data: bytes, width: int, height: int) -> bytes:
    """A baseline JPEG that claims another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]
