"""Images in batches: nvImageCodec's own CPU backend and the exact engine stand where a GPU's decoder and kernels do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from gpuflow.codecs._backends.nvimagecodec import NvImageCodecDecoder
from gpuflow.codecs.base import Encoded, ImageInfo
from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions
from gpuflow.errors import Closed, CorruptMedia, DeadlineExceeded, GpuflowError
from gpuflow.flow.audio_batches import AudioBatches
from gpuflow.flow.context import LoadContext
from gpuflow.flow.device_batches import DeviceBatches
from gpuflow.flow.flow import Flow
from gpuflow.flow.image import load_image
from gpuflow.flow.image_batches import ImageBatches, ImageJob
from gpuflow.flow.image_steps import image_steps
from gpuflow.flow.suspended import Suspended, advance
from gpuflow.media import Features, Image, ImageMetadata
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from gpuflow.ops.audio_gpu import place_on_gpu
from gpuflow.ops.transform import transform
from tests.parity.tolerances import TOLERANCES
from tests.unit.image_files import blob, encoded, scene, turned, with_alpha
from tests.waiting import LONGEST_SECONDS, wait_until

SIZES = ((48, 64), (33, 77), (100, 50), (21, 20))
PHOTOS = tuple(encoded(scene(*size), "JPEG") for size in SIZES)
CMYK = encoded(Picture.fromarray(scene()).convert("CMYK"), "JPEG")


class Gated(NvImageCodecDecoder):
    """The real decoder, whose calls wait until they are let through."""

    def __init__(self) -> None:
        super().__init__(None)
        self.sizes: list[int] = []
        self.gate = threading.Event()

    def decode_batch(self, jobs: Sequence[Encoded]) -> list[GpuflowError | None]:
        self.sizes.append(len(jobs))
        assert self.gate.wait(LONGEST_SECONDS)
        return super().decode_batch(jobs)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def batches(counters: Counters) -> Iterator[ImageBatches]:
    made = ImageBatches(NvImageCodecDecoder(None), counters)
    yield made
    made.close()


@pytest.fixture
def gated(counters: Counters) -> Iterator[tuple[Gated, ImageBatches]]:
    decoder = Gated()
    made = ImageBatches(decoder, counters)
    yield decoder, made
    decoder.gate.set()
    made.close()


def _begun(data: bytes, context: LoadContext, batches: ImageBatches, **options: Any) -> Any:
    return advance(image_steps(blob(data), sniff(data), ImageOptions(**options), context, batches))


def _finished(found: Any) -> Image | Features:
    while isinstance(found, Suspended):
        found.future.exception(LONGEST_SECONDS)
        found = found.resume()
    assert isinstance(found, (Image, Features))
    return found


def _assert_same(found: Image | Features, data: bytes, context: LoadContext, **options: Any) -> None:
    with found, load_image(blob(data), sniff(data), ImageOptions(**options), context) as expected:
        assert found.metadata == expected.metadata
        assert [spec.name for spec in found.specs] == [spec.name for spec in expected.specs]
        for spec in found.specs:
            np.testing.assert_array_equal(found._lease.array(spec), expected._lease.array(spec))


@pytest.mark.parametrize(
    "options",
    [{}, {"preset": "clip-224"}, {"preset": "qwen2.5-vl", "dtype": "bfloat16"}, {"size": 40, "layout": "CHW"}],
    ids=["plain", "clip", "qwen", "resized"],
)
def test_what_comes_of_a_batch_is_what_comes_of_each_image(
    options: dict[str, Any], context: LoadContext, batches: ImageBatches
) -> None:
    images = [*PHOTOS, *(turned("JPEG", number) for number in range(2, 9)), encoded(with_alpha(), "PNG"), CMYK]
    begun = [_begun(data, context, batches, **options) for data in images]
    for data, found in zip(images, begun, strict=True):
        _assert_same(_finished(found), data, context, **options)


def test_a_photo_as_it_is_decoded_is_decoded_straight_into_its_result(
    context: LoadContext, gated: tuple[Gated, ImageBatches]
) -> None:
    decoder, batches = gated
    found = _begun(PHOTOS[0], context, batches)
    assert context.slab.statistics().live_leases == 1  # the result's own: no scratch beside it
    decoder.gate.set()
    media = _finished(found)
    assert media.backend == "nvimagecodec"
    _assert_same(media, PHOTOS[0], context)


def test_what_waits_while_a_batch_is_at_work_is_the_next_batch(
    context: LoadContext, gated: tuple[Gated, ImageBatches], counters: Counters
) -> None:
    decoder, batches = gated
    begun = [_begun(PHOTOS[0], context, batches, preset="clip-224")]
    wait_until(lambda: len(decoder.sizes) == 1)
    begun.append(_begun(PHOTOS[1], context, batches, preset="clip-224"))
    wait_until(lambda: len(decoder.sizes) == 2)  # the other thread's
    begun += [_begun(data, context, batches, preset="clip-224") for data in PHOTOS]
    decoder.gate.set()
    for data, found in zip((*PHOTOS[:2], *PHOTOS), begun, strict=True):
        _assert_same(_finished(found), data, context, preset="clip-224")
    assert decoder.sizes[:2] == [1, 1]
    assert sum(decoder.sizes) == 6
    assert len(decoder.sizes) <= 4
    assert counters.snapshot()["gpuflow_image_batch_images_total"] == 6


def test_a_bad_image_in_a_batch_is_its_own_senders_error(
    context: LoadContext, gated: tuple[Gated, ImageBatches]
) -> None:
    decoder, batches = gated
    cut = encoded(scene(240, 320), "JPEG")[:3000]
    images = [PHOTOS[0], cut, PHOTOS[1], PHOTOS[2]]
    begun = [_begun(data, context, batches, preset="clip-224") for data in images]
    decoder.gate.set()
    with pytest.raises(CorruptMedia):
        _finished(begun[1])
    for number in (0, 2, 3):
        _assert_same(_finished(begun[number]), images[number], context, preset="clip-224")
    assert context.slab.statistics().live_leases == 0


def test_what_the_device_does_not_take_falls_back_visibly(context: LoadContext, batches: ImageBatches) -> None:
    with _finished(_begun(CMYK, context, batches, preset="clip-224")) as media:
        assert media.fallback is not None
        assert "4 channels" in media.fallback
        assert media.backend.endswith("+exact")
    with _finished(_begun(encoded(scene(), "PNG"), context, batches, preset="clip-224")) as media:
        assert media.fallback is None  # no GPU decodes PNG


def test_steps_that_are_abandoned_leave_the_memory_to_the_batch_until_it_is_done(
    context: LoadContext, gated: tuple[Gated, ImageBatches]
) -> None:
    decoder, batches = gated
    found = _begun(PHOTOS[0], context, batches, preset="clip-224")
    wait_until(lambda: len(decoder.sizes) == 1)
    found.abandon()
    assert context.slab.statistics().live_leases == 2  # result and scratch: a decoder may still write to them
    decoder.gate.set()
    wait_until(lambda: context.slab.statistics().live_leases == 0)


def test_what_nobody_wants_any_more_is_left_out_of_its_batch(
    context: LoadContext, gated: tuple[Gated, ImageBatches]
) -> None:
    decoder, batches = gated
    held = [_begun(PHOTOS[0], context, batches)]
    wait_until(lambda: len(decoder.sizes) == 1)
    held.append(_begun(PHOTOS[0], context, batches))
    wait_until(lambda: len(decoder.sizes) == 2)
    _begun(PHOTOS[1], context, batches).abandon()
    decoder.gate.set()
    for found in held:
        _finished(found).release()
    batches.close()
    assert sum(decoder.sizes) == 2
    assert context.slab.statistics().live_leases == 0


def test_a_decoder_that_fails_as_a_whole_is_told_to_all_of_its_batch(context: LoadContext, counters: Counters) -> None:
    class Broken(NvImageCodecDecoder):
        def decode_batch(self, jobs: Sequence[Encoded]) -> list[GpuflowError | None]:
            raise MemoryError("for the test")

    batches = ImageBatches(Broken(None), counters)
    begun = [_begun(data, context, batches) for data in PHOTOS]
    for found in begun:
        with pytest.raises(MemoryError):
            _finished(found)
    batches.close()
    assert context.slab.statistics().live_leases == 0


def test_a_transform_that_fails_is_its_own_jobs_error(context: LoadContext, gated: tuple[Gated, ImageBatches]) -> None:
    decoder, batches = gated
    begun = [_begun(data, context, batches, preset="clip-224") for data in PHOTOS]
    lease = context.slab.allocate(64)

    def fail(pixels: Any) -> Any:
        raise ValueError("for the test")

    wrong = batches.submit(
        ImageJob(
            ImageInfo("png", 8, 8), np.zeros((8, 8, 3), np.uint8), engine=transform(), finish=fail, leases=(lease,)
        )
    )
    decoder.gate.set()
    assert isinstance(wrong.exception(LONGEST_SECONDS), ValueError)
    for data, found in zip(PHOTOS, begun, strict=True):
        _assert_same(_finished(found), data, context, preset="clip-224")
    lease.release()


def test_closed_batches_do_what_waits_and_take_nothing_more(context: LoadContext, counters: Counters) -> None:
    batches = ImageBatches(NvImageCodecDecoder(None), counters)
    begun = [_begun(data, context, batches) for data in PHOTOS]
    batches.close()
    batches.close()
    for data, found in zip(PHOTOS, begun, strict=True):
        _assert_same(_finished(found), data, context)
    with pytest.raises(Closed):
        batches.submit(ImageJob(ImageInfo("jpeg", 1, 1), np.zeros((1, 1, 3), np.uint8), b"", done=Future()))


def test_one_that_lies_about_its_size_harms_no_other() -> None:
    decoder = NvImageCodecDecoder(None)
    jobs = [
        Encoded(data, ImageInfo("jpeg", width, height), np.zeros((height, width, 3), np.uint8))
        for data, (height, width) in zip(PHOTOS, (SIZES[0], (8, 8), SIZES[2], SIZES[3]), strict=True)
    ]
    errors = decoder.decode_batch(jobs)
    assert [type(error) for error in errors] == [type(None), CorruptMedia, type(None), type(None)]
    assert not jobs[1].out.any()


def _with_batches(flow: Flow, decoder: NvImageCodecDecoder) -> Flow:
    flow._batches = DeviceBatches(ImageBatches(decoder, flow.counters), AudioBatches(place_on_gpu, flow.counters))
    return flow


def test_a_flow_has_more_images_under_way_than_it_has_threads() -> None:
    decoder = Gated()

    async def run() -> None:
        async with _with_batches(Flow(device="cpu", workers=1), decoder) as flow:
            loads = [asyncio.ensure_future(flow.load(data, options={"preset": "clip-224"})) for data in PHOTOS * 8]
            await asyncio.to_thread(wait_until, lambda: flow.slab.statistics().live_leases == 2 * len(loads))
            decoder.gate.set()
            for data, media in zip(PHOTOS * 8, await asyncio.gather(*loads), strict=True):
                assert isinstance(media, Features)
                source = media.metadata.source
                assert isinstance(source, ImageMetadata)
                assert (source.width, source.height) == scene_size(data)
                assert [stage.name for stage in media.stages] == ["fetch", "probe", "batch"]
                media.release()
            assert flow.slab.statistics().live_leases == 0
            assert flow.counters.snapshot()["gpuflow_image_batches_total"] < len(loads)

    def scene_size(data: bytes) -> tuple[int, int]:
        height, width = SIZES[PHOTOS.index(data)]
        return width, height

    asyncio.run(run())


@pytest.mark.parametrize("how", ["cancelled", "too slow"])
def test_a_load_that_ends_while_a_device_has_it_frees_its_memory(how: str) -> None:
    decoder = Gated()

    async def run() -> None:
        async with _with_batches(Flow(device="cpu", limits={"deadline_seconds": 1.0}), decoder) as flow:
            load = asyncio.ensure_future(flow.load(PHOTOS[0], options={"preset": "clip-224"}))
            await asyncio.to_thread(wait_until, lambda: bool(decoder.sizes))
            if how == "cancelled":
                load.cancel()
            with pytest.raises(asyncio.CancelledError if how == "cancelled" else DeadlineExceeded):
                await load
            decoder.gate.set()
            await asyncio.to_thread(wait_until, lambda: flow.slab.statistics().live_leases == 0)
            (await flow.load(PHOTOS[1])).release()  # and the flow goes on

    asyncio.run(run())


def test_a_flow_that_closes_ends_its_batches() -> None:
    async def run() -> Slab:
        flow = _with_batches(Flow(device="cpu"), NvImageCodecDecoder(None))
        (await flow.load(PHOTOS[0])).release()
        await flow.aclose()
        with pytest.raises(Closed):
            await flow.load(PHOTOS[0])
        return flow.slab

    assert asyncio.run(run()).statistics().live_leases == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpuflow-images")]


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"preset": "clip-224"}, {"preset": "llava-next"}], ids=str)
def test_on_a_gpu_many_at_once_come_out_as_on_the_cpu(options: dict[str, Any]) -> None:
    bad = encoded(scene(240, 320), "JPEG")[:3000]
    images = [*PHOTOS * 4, *(turned("JPEG", number) for number in range(1, 9)), encoded(with_alpha(), "PNG"), CMYK]
    images.insert(7, bad)
    levels = TOLERANCES["image/nvjpeg"].max_abs

    async def run(device: str) -> list[Any]:
        async with Flow(device=device) as flow:
            return [
                outcome.error or outcome.media
                async for outcome in flow.stream(images, options=options, max_in_flight=64, ordered=True)
            ]

    for number, (there, here) in enumerate(zip(asyncio.run(run("auto")), asyncio.run(run("cpu")), strict=True)):
        if number == 7:
            assert isinstance(there, CorruptMedia)
            assert isinstance(here, CorruptMedia)
            continue
        with there, here:
            assert there.device.startswith("cuda")
            for spec in here.specs:
                off = np.abs(there._lease.array(spec).get().astype(float) - here._lease.array(spec).astype(float))
                assert off.max() <= (levels if spec.dtype == "uint8" else levels / 255 / 0.26)
