"""Every bad image gets its own error, of the client's class, and leaves no lease."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions, Limits
from gpuflow.errors import CorruptMedia, GpuflowError, LimitExceeded
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import load_image
from gpuflow.media import Media
from tests.faults.bad_images import GOOD, HOSTILE, STILL
from tests.unit.image_files import blob, png


def _load(data: bytes, context: LoadContext, **options: int) -> Media:
    return load_image(blob(data), sniff(data), ImageOptions(**options), context)  # type: ignore[arg-type]


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("name", STILL)
def test_a_truncated_image_is_corrupt_media(name: str, tenth: int, context: LoadContext) -> None:
    with pytest.raises(CorruptMedia):
        _load(GOOD[name][: tenth * len(GOOD[name]) // 10], context)


def test_a_magic_number_alone_is_corrupt_media(context: LoadContext) -> None:
    for data in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\x00\x00\x00WEBP"):
        with pytest.raises(CorruptMedia):
            _load(data, context)


def test_a_claim_of_2e9_pixels_a_side_is_refused_at_once(context: LoadContext) -> None:
    data = png(np.zeros((4, 4, 3), np.uint8), 2, depth=8, size=(2_000_000_000, 2_000_000_000))
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
