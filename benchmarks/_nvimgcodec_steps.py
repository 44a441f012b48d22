"""The questions about nvImageCodec and NVJPG that only a GPU answers; each step returns what it found as plain values.

The library is called bare, not through gpuflow's decoder: what is asked is what that is built on. ``on.PLACE`` is the GPU.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _gpu_place as on
from benchmarks import _nvimgcodec as nv
from benchmarks._gpu_place import UNTOUCHED
from benchmarks._pictures import encoded, picture

Found = dict[str, Any]
_MARGIN = 4_096  # bytes before and after a place that nobody may write
SUBSAMPLINGS = ("444", "422", "420", "440", "411", "Gray")


def photograph(quick: bool, *, large: bool = False, seed: int = 0) -> bytes:
    """A JPEG of 4:2:0; tiny where quick."""
    width, height = (96, 64) if quick else (1_920, 1_080) if large else (500, 375)
    return encoded("JPEG", width, height, seed)


def of_subsampling(quick: bool, subsampling: str) -> bytes:
    """The same picture as JPEG with other chroma, by libjpeg-turbo."""
    import simplejpeg

    pixels = picture(96, 64, 1) if quick else picture(640, 480, 1)
    if subsampling == "Gray":
        return bytes(
            simplejpeg.encode_jpeg(pixels[:, :, :1].copy(), quality=90, colorspace="Gray", colorsubsampling="Gray")
        )
    return bytes(simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling=subsampling))


def odd_jpegs(quick: bool) -> dict[str, bytes]:
    """One of each kind that a decoder may leave to another."""
    from PIL import Image

    found = {f"baseline {name}": of_subsampling(quick, name) for name in SUBSAMPLINGS}
    source = Image.fromarray(picture(96, 64, 1) if quick else picture(640, 480, 1))
    for name, mode, options in (
        ("progressive 420", "RGB", {"progressive": True}), ("CMYK", "CMYK", {}), ("restart markers", "RGB", {"restart_marker_rows": 1}),
    ):  # fmt: skip
        out = io.BytesIO()
        source.convert(mode).save(out, "JPEG", quality=90, **options)
        found[name] = out.getvalue()
    return found


def by_libjpeg(data: bytes) -> NDArray[Any]:
    """``(H, W, 3)`` by Pillow."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decoded(decoder: Any, data: bytes, *, into: Any = None, stream: Any = None, planar: bool = False) -> Any:
    """A JPEG in a place's array, by default a new one of its size; ``None`` where the decoder gives none."""
    if into is None:
        height, width = by_libjpeg(data).shape[:2]
        into = on.PLACE.empty((3, height, width) if planar else (height, width, 3))
    number = stream.ptr if stream else 0
    image = nv.image_of(into, stream=number, planar=planar)
    (source,) = nv.streams([data])
    out = decoder.decode(source, image=image, params=nv.parameters(planar=planar), cuda_stream=number)
    return None if out is None else into


def off(pixels: Any, expected: NDArray[Any]) -> Found:
    """Levels between a place's pixels and the reference."""
    levels = np.abs(on.PLACE.host(pixels).astype(int) - expected)
    values = {"mean": levels.mean(), "p99.9": np.percentile(levels, 99.9), "max": levels.max()}
    return {name: round(float(value), 4) for name, value in values.items()}


def tried(ask: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """The answer, or how asking failed."""
    try:
        return ask(*given, **named)
    except Exception as error:  # noqa: BLE001 - what it raises is the answer
        return f"{type(error).__name__}: {str(error).strip()[:160]}"


def into_the_slab(quick: bool) -> Found:
    """1: does it decode into a view of the slab, a tile of a canvas, planes; and does it write anywhere else?"""
    from gpuflow.media import lay_out
    from gpuflow.memory import Slab

    data = photograph(quick)
    decoder, expected = nv.decoder(on.PLACE.device), by_libjpeg(data)
    height, width, _ = expected.shape
    own = on.PLACE.host(decoded(decoder, data))

    def leased() -> Found:
        specs = lay_out({"pixels": ("uint8", (height, width, 3))})
        with Slab("64MiB", device=on.PLACE.device) as slab, slab.allocate(specs[0].nbytes) as lease:
            view = lease.array(specs[0])
            return {"same": bool((on.PLACE.host(decoded(decoder, data, into=view)) == own).all())}

    def within() -> Found:
        block = on.PLACE.empty((height * width * 3 + 2 * _MARGIN,))
        decoded(decoder, data, into=block[_MARGIN:-_MARGIN].reshape(height, width, 3))
        found = on.PLACE.host(block)
        return {
            "same": bool((found[_MARGIN:-_MARGIN] == own.ravel()).all()),
            "outside_untouched": bool((found[:_MARGIN] == UNTOUCHED).all() and (found[-_MARGIN:] == UNTOUCHED).all()),
        }

    def tile() -> Found:
        canvas = on.PLACE.empty((height + 32, width + 64, 3))
        decoded(decoder, data, into=canvas[8 : 8 + height, 16 : 16 + width])
        found = on.PLACE.host(canvas)
        same = bool((found[8 : 8 + height, 16 : 16 + width] == own).all())
        found[8 : 8 + height, 16 : 16 + width] = UNTOUCHED
        return {"same": same, "outside_untouched": bool((found == UNTOUCHED).all())}

    def planes() -> Found:
        found = on.PLACE.host(decoded(decoder, data, planar=True))
        return {"same": bool((found.transpose(1, 2, 0) == own).all())}

    def too_small() -> Any:
        return decoded(decoder, data, into=on.PLACE.empty((height // 2, width, 3))) is not None

    asked = {
        "lease": leased,
        "within_a_block": within,
        "tile_of_a_canvas": tile,
        "planes": planes,
        "too_small": too_small,
    }
    return {name: tried(ask) for name, ask in asked.items()} | {"off_libjpeg": off(decoded(decoder, data), expected)}


def routes(quick: bool) -> Found:
    """2: which kind of decoder takes which JPEG, how far from libjpeg, how long; and what gpuflow says of it."""
    from gpuflow.codecs._backends.nvimagecodec import NvImageCodecDecoder
    from gpuflow.codecs.probe import image_info, sniff
    from gpuflow.config import Limits

    found: Found = {}
    for name, data in odd_jpegs(quick).items():
        row = {kind: tried(_route, kind, data) for kind in on.PLACE.kinds}
        taken = NvImageCodecDecoder(0).supports(image_info(data, sniff(data), Limits()))
        found[name] = row | {"gpuflow": taken.reason or "taken"}
    return found


def _route(kind: str, data: bytes) -> Any:
    decoder, expected = nv.decoder(on.PLACE.device, kind=on.PLACE.kinds[kind]), by_libjpeg(data)
    pixels = decoded(decoder, data)
    if pixels is None:
        return None
    on.PLACE.settle()
    began = time.perf_counter()
    decoded(decoder, data, into=pixels)
    on.PLACE.settle()
    return off(pixels, expected) | {"ms": round(1e3 * (time.perf_counter() - began), 3)}


def fancy_chroma(quick: bool) -> Found:
    """3: a red and a blue half of 4:2:0, between which libjpeg interpolates chroma: how far from it, levels at most?"""
    import simplejpeg

    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32, 0], pixels[:, 32:, 2] = 255, 255
    data = bytes(simplejpeg.encode_jpeg(pixels, quality=95, colorspace="RGB", colorsubsampling="420"))
    expected = by_libjpeg(data)
    nearest = np.abs(simplejpeg.decode_jpeg(data, fastupsample=True).astype(int) - expected).max()
    found: Found = {"nearest_is_off_by": int(nearest)}
    for name, kind in on.PLACE.kinds.items():
        for options in ("", ":fancy_upsampling=1", ":fancy_upsampling=0"):
            found[f"{name} {options}".strip()] = tried(_chroma_off, kind, options, data)
    found["torchvision decode_jpeg"] = tried(_by_torchvision, data, expected)
    return found


def _chroma_off(kind: str | None, options: str, data: bytes) -> Any:
    pixels = decoded(nv.decoder(on.PLACE.device, kind=kind, options=options), data)
    return "none" if pixels is None else off(pixels, by_libjpeg(data))["max"]


def _by_torchvision(data: bytes, expected: NDArray[Any]) -> int:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    (planes,) = decode_jpeg(
        [torch.frombuffer(bytearray(data), dtype=torch.uint8)], mode=ImageReadMode.RGB, device=on.PLACE.device
    )
    return int(np.abs(planes.permute(1, 2, 0).cpu().numpy().astype(int) - expected).max())


def differences(quick: bool) -> Found:
    """4: how far from libjpeg on pictures: mean, 99.9th percentile and maximum, by kind of decoder and subsampling."""
    small = [photograph(quick, seed=seed) for seed in range(2 if quick else 8)]
    sets = {"500x375 420": small, "1920x1080 420": [photograph(quick, large=True, seed=seed) for seed in range(2)]}
    sets |= {f"640x480 {name}": [of_subsampling(quick, name)] for name in ("444", "422")}
    sets |= {name: [data] for name, data in photographs().items()}
    found: Found = {}
    for name, datas in sets.items():
        for kind in on.PLACE.kinds:
            found[f"{name}, {kind}"] = tried(_differences, kind, datas)
    return found


def _differences(kind: str, datas: Sequence[bytes]) -> Found:
    decoder = nv.decoder(on.PLACE.device, kind=on.PLACE.kinds[kind])
    each = [off(decoded(decoder, data), by_libjpeg(data)) for data in datas]
    return {
        "mean": max(one["mean"] for one in each),
        "p99.9": max(one["p99.9"] for one in each),
        "max": max(one["max"] for one in each),
    }


def photographs() -> dict[str, bytes]:
    """Real ones as JPEG, where scikit-image has brought some along."""
    import importlib

    from PIL import Image

    found = {}
    for name in ("astronaut", "coffee", "chelsea"):
        try:
            pixels = getattr(importlib.import_module("skimage.data"), name)()
        except Exception:  # noqa: BLE001 - not installed, or it would have to be downloaded
            continue
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=90, subsampling="4:2:0")
        found[name] = out.getvalue()
    return found
