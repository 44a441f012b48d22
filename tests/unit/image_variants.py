"""Every variant of every image format: bytes, the pixels that they stand for by another way than ours, and the facts that
a header has. Where Pillow is right it is the other way, else the levels that were encoded."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Picture

from tests.unit.image_files import Pixels, animation, by_pillow, encoded, scene, with_alpha
from tests.unit.raw_images import bmp, bmp_rows, png_file
from tests.unit.tiff_files import Numbers, Page, page, tiff

SCENE, ALPHA = scene(37, 53), with_alpha(37, 53)
PICTURE = Picture.fromarray(SCENE)
GRAY = np.array(PICTURE.convert("L"))[:, :, None]
RNG = np.random.default_rng(7)
DEEP = RNG.integers(0, 65_536, (13, 19, 4), dtype=np.uint16)
TREE = np.array(PICTURE.quantize(16))[:, :, None]
PALETTE = np.array(PICTURE.quantize(16).getpalette()[:48], np.uint8).reshape(16, 3)  # type: ignore[index]
# Written by libjpeg-turbo 3.2 with arith_code set, which no Python library offers
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//yQAR"
    "CAAYACADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwB0GA8dHd4CW8sGXY6bBWs801CRQVx7wYCM113I27CDGtFSe7hRSaY1SqrxhLUv"
    "Umu/ebVxfBxQHoryRz6a6Z94/oEKjnrtYC133GdwHVRLjyZ+nHFtJsGR/iRGWSyv49fda1kCea+xHhVafY18KHlpybZ0Q5gREbge52Tsi5Iv2zrFcfCu"
    "QP/Z"
)


@dataclass(frozen=True, slots=True)
class Variant:
    """``pixels``: ``(H, W, 3)`` or with alpha ``(H, W, 4)`` of ``frame``; ``facts``: fields of its ``ImageInfo``;
    ``tolerance``: levels, where another decoder rounds otherwise."""

    data: bytes
    pixels: NDArray[Any]
    facts: dict[str, Any]
    frame: int = 0
    tolerance: int = 0


def shown(levels: NDArray[Any]) -> Pixels:
    """Samples of 8 or 16 bits, gray or colours, with alpha or not, as the pixels that they stand for."""
    pixels = np.round(levels / 257).astype(np.uint8) if levels.dtype == np.uint16 else levels.astype(np.uint8)
    if pixels.shape[2] < 3:
        pixels = np.concatenate([np.repeat(pixels[:, :, :1], 3, axis=2), pixels[:, :, 1:]], axis=2)
    return pixels


def _by_pillow(data: bytes, frame: int = 0, **facts: Any) -> Variant:
    return Variant(data, by_pillow(data, frame), facts, frame)


def _jpeg(sampling: str, **facts: Any) -> Variant:
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(SCENE), 90, "RGB", sampling)
    return _by_pillow(data, chroma=sampling, color="ycbcr", channels=3, **facts)


def _ycck() -> Variant:
    """A CMYK file whose Adobe marker says that three of its channels are luma and chroma."""
    data = encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)
    at = data.index(b"Adobe") + 11
    stored = 255.0 - np.array(_inverted(data))
    luma, blue, red, black = (stored[:, :, n] for n in range(4))
    inks = [
        luma + 1.402 * (red - 128),
        luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        luma + 1.772 * (blue - 128),
    ]
    levels = np.stack([255 - np.clip(ink, 0, 255) for ink in inks], axis=2)
    expected = levels * (black / 255)[:, :, None]
    return Variant(
        data[:at] + b"\2" + data[at + 1 :], expected, {"color": "ycck", "channels": 4, "chroma": "444"}, tolerance=3
    )


def _inverted(data: bytes) -> Picture.Image:
    """The four channels of a CMYK JPEG as Pillow gives them: Adobe's inversion undone."""
    return Picture.open(io.BytesIO(data))


def _png(levels: NDArray[Any], color: int, depth: int, pixels: NDArray[Any] | None = None, **options: Any) -> Variant:
    name = {0: "gray", 2: "rgb", 3: "palette", 4: "gray", 6: "rgb"}[color]
    wanted = shown(levels) if pixels is None else pixels
    facts = {"color": name, "bit_depth": depth, "has_alpha": wanted.shape[2] == 4}
    return Variant(png_file(levels, color, depth, **options), wanted, facts)


def _png_keyed(levels: NDArray[Any], color: int, depth: int) -> Variant:
    """One colour of it, that of the first pixel, is transparent."""
    levels = levels.copy()
    levels[5, 7] = levels[0, 0]
    near = levels[0, 1].astype(int)
    near[...] = levels[0, 0]
    near[-1] ^= 1  # a colour that differs by one step of the whole depth is not
    levels[0, 1] = near
    opacity = np.where((levels == levels[0, 0]).all(axis=2), 0, 255).astype(np.uint8)
    key = (b"tRNS", levels[0, 0].astype(">u2").tobytes())
    return _png(levels, color, depth, np.dstack([shown(levels), opacity]), chunks=(key,))


def _png_palette(depth: int, *, alpha: bool = False, interlaced: bool = False) -> Variant:
    indices = RNG.integers(0, 1 << depth, (21, 29, 1))
    colors = RNG.integers(0, 256, (1 << depth, 4)).astype(np.uint8)
    chunks = [(b"PLTE", colors[:, :3].tobytes())]
    colors[(1 << depth) // 2 :, 3] = 255  # entries that tRNS leaves out are opaque
    if alpha:
        chunks.append((b"tRNS", colors[: (1 << depth) // 2, 3].tobytes()))
    pixels = colors[indices[:, :, 0]][:, :, : 4 if alpha else 3]
    return _png(indices, 3, depth, pixels, interlaced=interlaced, chunks=tuple(chunks))


def apng(*, default: bool = True) -> bytes:
    """Frames that cover parts, leave what was there or clear it, over or instead of it; with ``default=False`` the
    picture that is no frame comes first."""
    frames = [Picture.new("RGBA", (32, 24), (200, 10, 30, 255)), *(Picture.new("RGBA", (32, 24)) for _ in range(3))]
    for number, frame in enumerate(frames[1:]):
        frame.paste((40 * number, 200, 90, 120), (3 + 5 * number, 4, 20 + 4 * number, 19))
    options: dict[str, Any] = {"disposal": [0, 1, 2, 0], "blend": [0, 1, 0, 1]}
    if not default:
        options = {"default_image": True, "disposal": [0, 1, 2], "blend": [0, 1, 0]}
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=40, **options)


def _bmp_variants() -> dict[str, Callable[[], Variant]]:
    height, width = SCENE.shape[:2]
    colors = b"".join(bytes((*color[::-1], 0)) for color in PALETTE)
    flat = TREE[:, :, 0]
    fours = np.pad(flat, ((0, 0), (0, width % 2)))
    packed = (fours[:, ::2] << 4 | fours[:, 1::2]).astype(np.uint8)
    runs = b"".join(b"".join(bytes((1, index)) for index in row) + b"\0\0" for row in flat[::-1]) + b"\0\1"
    runs_4 = b"".join(b"".join(bytes((1, index << 4)) for index in row) + b"\0\0" for row in flat[::-1]) + b"\0\1"
    five = SCENE >> 3
    word = (five[:, :, 0].astype(np.uint16) << 10 | five[:, :, 1].astype(np.uint16) << 5 | five[:, :, 2]).astype("<u2")
    blue_first = np.dstack([SCENE[:, :, ::-1], np.zeros((height, width), np.uint8)])
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)

    def made(bits: int, rows: bytes, pixels: NDArray[Any], **options: Any) -> Callable[[], Variant]:
        tall = -height if options.pop("top_down", False) else height
        depth = bits if bits < 8 else 8
        facts = {"color": "palette" if bits <= 8 else "rgb", "bit_depth": depth, "has_alpha": pixels.shape[2] == 4}
        return lambda: Variant(bmp(bits, rows, width, tall, **options), pixels, facts)

    return {
        "bmp 24": made(24, bmp_rows(SCENE[:, :, ::-1]), SCENE),
        "bmp 24 top down": made(24, bmp_rows(SCENE[::-1, :, ::-1]), SCENE, top_down=True),
        "bmp 32": made(32, bmp_rows(blue_first), SCENE),
        "bmp 32 alpha": made(32, bmp_rows(ALPHA[:, :, [2, 1, 0, 3]]), ALPHA, masks=masks, compression=3),
        "bmp 32 alpha top down": made(
            32, bmp_rows(ALPHA[::-1, :, [2, 1, 0, 3]]), ALPHA, masks=masks, compression=3, top_down=True
        ),
        "bmp 16": made(16, bmp_rows(word), (five.astype(int) * 255 // 31).astype(np.uint8)),
        "bmp 8": made(8, bmp_rows(flat), PALETTE[flat], palette=colors + bytes(4 * 240)),
        "bmp 4": made(4, bmp_rows(packed), PALETTE[flat], palette=colors),
        "bmp 1": made(
            1, bmp_rows(np.packbits(flat > 7, axis=1)), PALETTE[:2][(flat > 7).astype(int)], palette=colors[:8]
        ),
        "bmp run lengths": made(8, runs, PALETTE[flat], palette=colors + bytes(4 * 240), compression=1),
        "bmp run lengths of 4 bits": made(4, runs_4, PALETTE[flat], palette=colors, compression=2),
    }


def _tiff(levels: NDArray[Any], photometric: int, pixels: NDArray[Any] | None = None, **options: Any) -> Variant:
    wanted = shown(levels) if pixels is None else pixels
    name = {0: "gray", 1: "gray", 2: "rgb", 3: "palette", 5: "cmyk", 6: "ycbcr"}[photometric]
    facts = {"color": name, "bit_depth": options.get("bits", 8), "has_alpha": wanted.shape[2] == 4}
    order = options.get("order", "<")
    return Variant(tiff(page(levels, photometric, **options), order=order), wanted, facts)


def _tiff_by_pillow(picture: Picture.Image, pixels: NDArray[Any], **options: Any) -> Variant:
    return Variant(encoded(picture, "TIFF", **options), pixels, {"has_alpha": pixels.shape[2] == 4})


def jpeg_in_tiff() -> Variant:
    """A strip that is a whole JPEG."""
    strip = simplejpeg.encode_jpeg(np.ascontiguousarray(SCENE), 92, "RGB", "420")
    tags: dict[int, Numbers] = {
        256: [53],
        257: [37],
        258: [8, 8, 8],
        259: [7],
        262: [6],
        277: [3],
        278: [37],
        530: [2, 2],
    }
    facts = {"color": "ycbcr", "chroma": "420", "bit_depth": 8}
    return Variant(tiff(Page([strip], tags)), by_pillow(strip), facts)


_STORAGE: dict[str, dict[str, Any]] = {"strips": {"rows": 5}, "tiles": {"tile": 16}, "planes": {"planar": True}}


def _tiff_variants() -> dict[str, Callable[[], Variant]]:
    bits = (GRAY > 128).astype(np.uint8)
    inks = np.array(PICTURE.convert("CMYK"))
    from_inks = np.array(Picture.fromarray(inks, "CMYK").convert("RGB"))
    made: dict[str, Callable[[], Variant]] = {}
    for order in ("<", ">"):
        for compression in (1, 8, 32_773):
            for name, storage in _STORAGE.items():
                options: dict[str, Any] = {"order": order, "compression": compression, **storage}
                made[f"tiff {order} {compression} {name}"] = functools.partial(_tiff, SCENE, 2, **options)
        for name, levels, photometric, extra in (
            ("gray", DEEP[:, :, :1], 1, None), ("rgb", DEEP[:, :, :3], 2, None), ("alpha", DEEP, 2, 2)
        ):  # fmt: skip
            options = {"order": order, "bits": 16, "compression": 8, "predictor": True, "tile": 16}
            tags = {} if extra is None else {338: [extra]}
            made[f"tiff {order} 16-bit {name}"] = functools.partial(_tiff, levels, photometric, tags=tags, **options)
    numbers = RNG.integers(0, 16, (37, 53, 1))
    made |= {
        "tiff gray": lambda: _tiff(GRAY, 1),
        "tiff white is 0": lambda: _tiff(GRAY, 0, shown(255 - GRAY)),
        "tiff gray, alpha": lambda: _tiff(ALPHA[:, :, 2:], 1, tags={338: [2]}),
        "tiff alpha": lambda: _tiff(ALPHA, 2, tags={338: [2]}),
        "tiff premultiplied alpha": lambda: _tiff(np.dstack([SCENE, GRAY * 0 + 255]), 2, tags={338: [1]}),
        "tiff a fourth sample that is nothing": lambda: _tiff(ALPHA, 2, SCENE, tags={338: [0]}),
        "tiff 16-bit, a fourth sample that is nothing": lambda: _tiff(
            DEEP, 2, shown(DEEP[:, :, :3]), bits=16, tags={338: [0]}
        ),
        "tiff 4 bits": lambda: _tiff(numbers, 1, shown(numbers * 17), bits=4),
        "tiff palette": lambda: _tiff(
            numbers,
            3,
            PALETTE[numbers[:, :, 0]],
            bits=4,
            tags={320: (PALETTE.T.reshape(-1).astype(int) * 257).tolist()},
        ),
        "tiff 1 bit": lambda: _tiff(bits, 1, shown(bits * 255), bits=1, rows=7),
        "tiff cmyk": lambda: _tiff(inks, 5, from_inks),
        "tiff cmyk in planes": lambda: _tiff(inks, 5, from_inks, planar=True),
        "tiff lzw": lambda: _tiff_by_pillow(PICTURE, SCENE, compression="tiff_lzw"),
        "tiff jpeg": jpeg_in_tiff,
        "tiff jpeg by libtiff": lambda: _tiff_by_pillow(
            Picture.fromarray(np.full_like(SCENE, 77)), np.full_like(SCENE, 77), compression="jpeg"
        ),
        "tiff lzw, predicted": lambda: _tiff_by_pillow(PICTURE, SCENE, compression="tiff_lzw", tiffinfo={317: 2}),
        "tiff orientation 6": lambda: _tiff(SCENE, 2, np.rot90(SCENE, -1), tags={274: [6]}),
    }
    for name in ("group3", "group4", "tiff_ccitt"):
        black = Picture.fromarray(bits[:, :, 0] * 255).convert("1")
        made[f"tiff {name}"] = functools.partial(_tiff_by_pillow, black, shown(bits * 255), compression=name)
    return made


def pages() -> bytes:
    """A TIFF of three pages that differ in size, depth and colours."""
    return tiff(page(SCENE, 2), page(GRAY[:20], 1, compression=8), page(DEEP[:, :, :3], 2, bits=16))


def avif_of_10_bits() -> bytes:
    """A gray AVIF by FFmpeg and an AV1 encoder: its chroma is there, and the same everywhere."""
    out = io.BytesIO()
    with av.open(out, "w", format="avif") as output:
        settings = {"preset": "12", "crf": "10", "svtav1-params": "avif=1"}
        stream: Any = output.add_stream("libsvtav1", rate=1, options=settings)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        gray = shown(np.array(Picture.fromarray(scene(64, 96)).convert("L"))[:, :, None])
        for item in (av.VideoFrame.from_ndarray(gray, format="rgb24"), None):
            output.mux(stream.encode(item))
    return out.getvalue()


def _avif_deep() -> Variant:
    """Against the formula, of the planes that FFmpeg decodes: luma of 64..940 to 0..255, chroma of 512 is none."""
    data = avif_of_10_bits()
    with av.open(io.BytesIO(data), format="mov") as container:
        planes = next(container.decode(video=0)).planes
        luma, *chroma = (
            np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, : plane.width].astype(float) for plane in planes
        )
    assert all(np.abs(plane - 512).max() <= 2 for plane in chroma)
    levels = np.clip((luma - 64) * 255 / 876, 0, 255)
    facts = {"bit_depth": 10, "color": "ycbcr", "chroma": "420"}
    return Variant(data, np.repeat(levels[:, :, None], 3, axis=2), facts, tolerance=2)


def _later_frames() -> dict[str, Callable[[], Variant]]:
    def of(data: Callable[[], bytes], frame: int, **facts: Any) -> Callable[[], Variant]:
        return lambda: _by_pillow(data(), frame, **facts)

    made = {
        f"{name} frame {frame}": of(functools.partial(animation, name.upper(), 4), frame, num_frames=4)
        for name in ("gif", "webp", "png", "avif")
        for frame in (1, 3)
    }
    return made | {
        **{f"apng frame {frame}": of(apng, frame, num_frames=4) for frame in range(4)},
        **{
            f"apng with another first picture {frame}": of(functools.partial(apng, default=False), frame, num_frames=4)
            for frame in range(4)
        },
        "tiff page 0": lambda: Variant(pages(), SCENE, {"num_frames": 3, "animated": False}),
        "tiff page 1": lambda: Variant(pages(), shown(GRAY[:20]), {"num_frames": 3, "color": "gray", "height": 20}, 1),
        "tiff page 2": lambda: Variant(pages(), shown(DEEP[:, :, :3]), {"bit_depth": 16, "width": 19}, 2),
    }


VARIANTS: dict[str, Callable[[], Variant]] = {
    "jpeg progressive": lambda: _by_pillow(encoded(SCENE, "JPEG", progressive=True), progressive=True, color="ycbcr"),
    **{f"jpeg {sampling}": functools.partial(_jpeg, sampling) for sampling in ("444", "422", "420", "440", "411")},
    "jpeg gray": lambda: _by_pillow(encoded(PICTURE.convert("L"), "JPEG"), color="gray", channels=1, chroma=""),
    "jpeg rgb": lambda: _by_pillow(encoded(SCENE, "JPEG", keep_rgb=True), color="rgb", channels=3, chroma=""),
    "jpeg cmyk": lambda: _by_pillow(encoded(PICTURE.convert("CMYK"), "JPEG"), color="cmyk", channels=4, chroma=""),
    "jpeg ycck": _ycck,
    "jpeg arithmetic": lambda: _by_pillow(ARITHMETIC, color="ycbcr", chroma="420"),
    "jpeg profile": lambda: _by_pillow(encoded(SCENE, "JPEG", icc_profile=b"x" * 200), icc=True),
    "jpeg and a zip behind it": lambda: _by_pillow(encoded(SCENE, "JPEG") + b"PK\3\4<html>", icc=False),
    **{f"png gray {depth}": functools.partial(_png, GRAY >> 8 - depth, 0, depth, shown((GRAY >> 8 - depth) * (255 // ((1 << depth) - 1)))) for depth in (1, 2, 4, 8)},
    **{f"png gray {depth} interlaced": functools.partial(_png, GRAY >> 8 - depth, 0, depth, shown((GRAY >> 8 - depth) * (255 // ((1 << depth) - 1))), interlaced=True) for depth in (1, 8)},
    **{f"png palette {depth}{', alpha' * alpha}{', interlaced' * between}": functools.partial(_png_palette, depth, alpha=alpha, interlaced=between) for depth in (1, 2, 4, 8) for alpha in (False, True) for between in (False, True)},
    **{f"png {color}, {depth} bits{', interlaced' * between}": functools.partial(_png, (DEEP if depth == 16 else (DEEP >> 8).astype(np.uint8))[:, :, :channels], kind, depth, interlaced=between) for color, kind, channels in (("rgb", 2, 3), ("gray and alpha", 4, 2), ("rgb and alpha", 6, 4)) for depth in (8, 16) for between in (False, True)},
    "png gray, 16 bits": lambda: _png(DEEP[:, :, :1], 0, 16),
    **{f"png {name} key, {depth} bits": functools.partial(_png_keyed, (DEEP if depth == 16 else (DEEP >> 8).astype(np.uint8))[:, :, :channels], kind, depth) for name, kind, channels in (("gray", 0, 1), ("rgb", 2, 3)) for depth in (8, 16)},
    "png profile": lambda: _by_pillow(encoded(SCENE, "PNG", icc_profile=b"x" * 200), icc=True),
    "webp lossy": lambda: _by_pillow(encoded(SCENE, "WEBP"), color="ycbcr", chroma="420"),
    "webp lossless": lambda: Variant(encoded(SCENE, "WEBP", lossless=True), SCENE, {"color": "rgb", "chroma": ""}),
    "webp alpha": lambda: _by_pillow(encoded(ALPHA, "WEBP"), color="ycbcr", has_alpha=True, channels=4),
    "webp lossless alpha": lambda: Variant(
        encoded(ALPHA, "WEBP", lossless=True, exact=True), ALPHA, {"color": "rgb", "has_alpha": True}
    ),
    "webp animated": lambda: _by_pillow(animation("WEBP"), num_frames=3, animated=True),
    "webp profile": lambda: _by_pillow(encoded(SCENE, "WEBP", icc_profile=b"x" * 200), icc=True),
    "gif": lambda: Variant(encoded(PICTURE.quantize(16), "GIF"), PALETTE[TREE[:, :, 0]], {"color": "palette"}),
    "gif interlaced": lambda: Variant(encoded(PICTURE.quantize(16), "GIF", interlace=1), PALETTE[TREE[:, :, 0]], {}),
    "gif transparent": lambda: _by_pillow(encoded(PICTURE.quantize(16), "GIF", transparency=3), has_alpha=True, channels=4),
    **_bmp_variants(),
    **_tiff_variants(),
    "avif": lambda: _by_pillow(encoded(SCENE, "AVIF", speed=10), color="ycbcr", chroma="420", bit_depth=8),
    "avif 4:4:4": lambda: _by_pillow(encoded(SCENE, "AVIF", speed=10, subsampling="4:4:4"), chroma="444"),
    "avif gray": lambda: _by_pillow(encoded(PICTURE.convert("L"), "AVIF", speed=10, subsampling="4:0:0"), color="gray", channels=1),
    "avif alpha": lambda: _by_pillow(encoded(ALPHA, "AVIF", speed=10), has_alpha=True, channels=4),
    "avif 10 bits": _avif_deep,
    **_later_frames(),
}  # fmt: skip


@functools.cache
def variant(name: str) -> Variant:
    """The variant of that name, encoded once."""
    return VARIANTS[name]()
