"""Every bad image gets its own error, of the client's class, and leaves no lease."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions, Limits
from gpuflow.errors import CorruptMedia, GpuflowError, LimitExceeded
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import load_image
from gpuflow.media import Media
from tests.unit.image_files import animation, blob, encoded, png, scene, with_alpha

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
    "webp animated": animation("WEBP"),
    "gif animated": animation("GIF"),
}


def _load(data: bytes, context: LoadContext, **options: int) -> Media:
    return load_image(blob(data), sniff(data), ImageOptions(**options), context)  # type: ignore[arg-type]


def _claiming(data: bytes, marker: bytes, after: int, width: int, height: int, size: int, order: str) -> bytes:
    """The same file with another size in its header."""
    at = data.index(marker) + after
    sides = (height, width) if marker == b"\xff\xc0" else (width, height)
    claim = b"".join(side.to_bytes(size, order) for side in sides)  # type: ignore[arg-type]
    return data[:at] + claim + data[at + len(claim) :]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "png", "webp", "webp lossless", "gif", "bmp", "avif"])
def test_a_truncated_image_is_corrupt_media(name: str, share: float, context: LoadContext) -> None:
    with pytest.raises(CorruptMedia):
        _load(GOOD[name][: int(share * len(GOOD[name]))], context)


def test_a_magic_number_alone_is_corrupt_media(context: LoadContext) -> None:
    for data in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\x00\x00\x00WEBP"):
        with pytest.raises(CorruptMedia):
            _load(data, context)


@pytest.mark.parametrize(
    "data",
    [
        _claiming(GOOD["jpeg"], b"\xff\xc0", 5, 65_535, 65_535, 2, "big"),
        _claiming(GOOD["png"], b"IHDR", 4, 65_535, 65_535, 4, "big"),
        _claiming(GOOD["gif"], b"GIF8", 6, 65_535, 65_535, 2, "little"),
        _claiming(GOOD["bmp"], b"BM", 18, 65_535, 65_535, 4, "little"),
        _claiming(GOOD["webp"], b"\x9d\x01\x2a", 3, 16_383, 16_383, 2, "little"),
        png(np.zeros((4, 4, 3), np.uint8), 2, depth=8, size=(2_000_000_000, 2_000_000_000)),
        png(np.zeros((4, 4, 3), np.uint8), 2, depth=8, size=(13_000, 13_000)),
    ],
    ids=["jpeg", "png", "gif", "bmp", "webp", "png of 4e18 pixels", "png bomb"],
)
def test_a_claim_of_too_many_pixels_is_refused_at_once(data: bytes, context: LoadContext) -> None:
    started = time.process_time()  # not the clock: other processes take their share of it
    with pytest.raises(LimitExceeded):
        _load(data, context)
    assert time.process_time() - started < 0.05


def test_a_png_whose_pixels_are_fewer_than_its_header_claims_is_corrupt_media(context: LoadContext) -> None:
    with pytest.raises(CorruptMedia):
        _load(png(np.zeros((4, 4, 3), np.uint8), 2, depth=8, size=(400, 400)), context)


def test_a_gif_frame_outside_its_screen_is_corrupt_media(context: LoadContext) -> None:
    data = bytearray(GOOD["gif"])
    at = data.index(b"\x2c\x00\x00\x00\x00")
    data[at + 3 : at + 5] = (60_000).to_bytes(2, "little")
    with pytest.raises(CorruptMedia, match="screen"):
        _load(bytes(data), context)


def test_too_many_frames_are_refused(context: LoadContext) -> None:
    context.limits = Limits(max_animation_frames=2)
    for name in ("webp animated", "gif animated"):
        with pytest.raises(LimitExceeded, match="frames"):
            _load(GOOD[name], context)


def test_messages_hold_no_address_and_no_bytes(context: LoadContext) -> None:
    for data in (GOOD["webp"][:90], GOOD["bmp"][:300], GOOD["gif"][:200]):
        with pytest.raises(GpuflowError) as caught:
            _load(data, context)
        assert "0x7" not in str(caught.value) + caught.value.public_message


def _code(data: bytes, context: LoadContext) -> str | None:
    """The code of the error that the image ends in; ``None`` where it is read."""
    try:
        _load(data, context).release()
    except GpuflowError as error:
        return error.code if error.http_status < 500 else f"a server error: {error.code}"
    return None


HOSTILE: dict[str, set[str | None]] = {
    "apng_segfaults_cv2_547B.png": {"media_unprocessable"},
    "apng_segfaults_opencv_646B.png": {"media_unprocessable", None},
    "gif_frame_outside_canvas_76B.gif": {"media_unprocessable"},
    "jpeg2000_kills_nvimgcodec_cpu.jp2": {"unsupported_media"},
    "png_takes_4GB_56B.png": {"media_unprocessable"},
}


@pytest.mark.media
@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_crash_other_decoders_are_refused_or_read(name: str, real_media: Path, context: LoadContext) -> None:
    file = real_media / "hostile" / name
    if not file.exists():
        pytest.skip(f"{name} is not in the folder")
    assert _code(file.read_bytes(), context) in HOSTILE[name]


@given(name=st.sampled_from(sorted(GOOD)), draw=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_raise_nothing_but_a_clients_error(name: str, draw: st.DataObject, context: LoadContext) -> None:
    data = bytearray(GOOD[name])
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    codes = {None, "media_unprocessable", "media_limit_exceeded", "unsupported_media"}
    assert _code(bytes(data), context) in codes
