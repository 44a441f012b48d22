"""The media of one chat request: counted before anything is fetched, bounded together, all or none."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image as PillowImage

from gpuflow import Flow, SyncFlow
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError, InvalidOptions, InvalidSource, LimitExceeded, TooLarge
from tests.cancelling import cancelled_after
from tests.flow.raw_server import BODY, OPEN, serving, stays_open


def _png(value: int) -> bytes:
    out = io.BytesIO()
    PillowImage.fromarray(np.full((8, 8, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def _sound() -> str:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(1600, np.float32), 16_000, format="WAV")
    return base64.b64encode(out.getvalue()).decode()


def _image(value: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": _uri(_png(value))}}


def _uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _remote(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


SOUND = {"type": "input_audio", "input_audio": {"data": _sound(), "format": "wav"}}
TEXT = {"type": "text", "text": "what is this?"}


def _load(messages: object, *, flow_limits: Mapping[str, Any] | None = None, **arguments: Any) -> list[Any]:
    """The arrays of a request's media; nothing of it stays in the slab once the workers are done."""
    flow = SyncFlow(device="cpu", slab_bytes="64MiB", limits=flow_limits, fetch=OPEN)
    try:
        media = flow.load_messages(messages, **arguments)
        arrays = [medium.numpy().copy() for medium in media]
        for medium in media:
            medium.release()
        return arrays
    finally:
        flow.close()
        assert flow.slab.statistics().live_leases == 0


def test_media_come_in_the_order_of_their_parts_through_all_messages() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [TEXT, _image(10), SOUND, _image(20)]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": (_image(30), TEXT)},
    ]
    arrays = _load(messages)
    assert [array.shape for array in arrays] == [(8, 8, 3), (1, 1600), (8, 8, 3), (8, 8, 3)]
    assert [int(array.flat[0]) for array in arrays] == [10, 0, 20, 30]


def test_options_are_given_by_modality() -> None:
    messages = [{"role": "user", "content": [_image(10), SOUND]}]
    wanted = {"image": {"layout": "CHW"}, "audio": {"sample_rate": 8000}}
    assert [array.shape for array in _load(messages, media_io_kwargs=wanted)] == [(3, 8, 8), (1, 800)]


def test_a_request_without_media_has_none() -> None:
    assert _load([]) == _load([{"role": "user", "content": "hello"}]) == _load([{"role": "user", "content": [TEXT]}])


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ("text", InvalidSource),
        (None, InvalidSource),
        ({"role": "user"}, InvalidSource),
        (["text"], InvalidSource),
        ([{"role": "user", "content": 5}], InvalidSource),
        ([{"role": "user", "content": ["part"]}], InvalidSource),
        ([{"role": "user", "content": [{"type": ["x"]}]}], InvalidSource),
        ([{"role": "user", "content": [{"type": {}}]}], InvalidSource),
        ([{"role": "user", "content": [{"type": None}]}], InvalidSource),
        ([None], InvalidSource),
        ([{"role": "user", "content": [{"type": "file", "file": {}}]}], InvalidSource),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}], InvalidSource),
    ],
)
def test_what_is_no_request_is_refused(messages: object, error: type[GpuflowError]) -> None:
    with pytest.raises(error):
        _load(messages)


@pytest.mark.parametrize(
    "wanted",
    [
        "x",
        [1],
        5,
        {"image": 3},
        {"image": "x"},
        {5: {}},
        {"text": {}},
        {"image": {"colour": 1}},
        {"video": {"fps": "fast"}},
    ],
)
def test_options_that_are_none_are_named(wanted: Any) -> None:
    with pytest.raises(InvalidOptions):
        _load([], media_io_kwargs=wanted)


def test_parts_are_counted_before_anything_is_fetched() -> None:
    async def run(parts: int) -> int:
        async with (
            serving(stays_open(BODY)) as server,
            Flow(device="cpu", slab_bytes="16MiB", fetch=OPEN, limits={"max_images": 3}) as flow,
        ):
            messages = [{"role": "user", "content": [_remote(server.url)]} for _ in range(parts)]
            with pytest.raises(TooLarge if parts > 3 else GpuflowError):
                await flow.load_messages(messages)
            return server.connections

    assert asyncio.run(run(4)) == 0
    assert asyncio.run(run(3)) > 0


def test_a_request_lowers_the_number_of_its_parts_and_never_raises_it() -> None:
    messages = [{"role": "user", "content": [_image(1), _image(2), _image(3)]}]
    with pytest.raises(TooLarge, match="more than 2 parts of image"):
        _load(messages, limits={"max_images": 2})
    with pytest.raises(TooLarge, match="more than 2 parts of image"):
        _load(messages, flow_limits={"max_images": 2}, limits={"max_images": 50})


def test_the_bytes_of_all_parts_are_counted_together() -> None:
    size = len(_png(1))
    messages = [{"role": "user", "content": [_image(1), _image(1), _image(1)]}]
    assert len(_load(messages, limits={"max_request_bytes": 3 * size})) == 3
    with pytest.raises(TooLarge):
        _load(messages, limits={"max_request_bytes": 3 * size - 1})


def test_the_bytes_of_remote_parts_are_counted_as_they_come() -> None:
    async def run() -> None:
        async with (
            serving(stays_open(bytes(50_000))) as server,
            Flow(device="cpu", slab_bytes="16MiB", fetch=OPEN) as flow,
        ):
            messages = [{"role": "user", "content": [_remote(server.url)] * 4}]
            with pytest.raises(TooLarge, match="max_request_bytes"):
                await flow.load_messages(messages, limits={"max_request_bytes": 20_000})

    asyncio.run(run())


def test_a_part_that_fails_takes_the_others_with_it_and_holds_nothing() -> None:
    broken = {"type": "image_url", "image_url": {"url": _uri(_png(1)[:45])}}
    with pytest.raises(CorruptMedia):
        _load([{"role": "user", "content": [_image(1), SOUND, broken, _image(2)]}])


def test_a_cancelled_request_holds_nothing() -> None:
    async def run(steps: int) -> bool:
        async with Flow(device="cpu", slab_bytes="16MiB") as flow:
            request = flow.load_messages([{"role": "user", "content": [_image(1), SOUND, _image(2)]}])
            media = await cancelled_after(steps, request) or []
            for medium in media:
                medium.release()
        assert flow.slab.statistics().live_leases == 0
        return bool(media)

    for steps in range(25):
        asyncio.run(run(steps))


def test_a_request_may_lower_any_limit_of_one_load() -> None:
    with SyncFlow(device="cpu", slab_bytes="16MiB", limits={"max_image_pixels": 100}) as flow:
        flow.load(_png(1)).release()
        with pytest.raises(LimitExceeded, match="max_image_pixels is 63"):
            flow.load(_png(1), limits={"max_image_pixels": 63})
        with pytest.raises(TooLarge):
            flow.load(_png(1), limits={"max_image_bytes": 20})
        out = io.BytesIO()
        PillowImage.new("RGB", (20, 20)).save(out, "PNG")
        with pytest.raises(LimitExceeded, match="max_image_pixels is 100"):
            flow.load(out.getvalue(), limits={"max_image_pixels": 1_000_000})
        with pytest.raises(InvalidOptions, match="max_pixels"):
            flow.load(_png(1), limits={"max_pixels": 5})


def test_limits_are_only_ever_lowered() -> None:
    own = Limits(max_images=5, image_seconds=2.0, min_sample_rate_hz=8_000)
    assert own.lowered(None) is own
    assert own.lowered({}) == own
    assert own.lowered({"max_images": 9, "image_seconds": 1.0}) == Limits(
        max_images=5, image_seconds=1.0, min_sample_rate_hz=8_000
    )
    assert own.lowered({"min_sample_rate_hz": 4_000}).min_sample_rate_hz == 8_000
    assert own.lowered({"min_sample_rate_hz": 16_000}).min_sample_rate_hz == 16_000
    for wrong in ({"max_images": 0}, {"max_images": "2"}, {"nothing": 1}):
        with pytest.raises(InvalidOptions):
            own.lowered(wrong)
