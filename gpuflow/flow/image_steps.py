"""An image on a GPU, in steps: between them no worker thread is held while a batch has the image."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import partial

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.images import GPU_FORMATS
from gpuflow.config import ImageOptions
from gpuflow.errors import CorruptMedia, UnsupportedFormat
from gpuflow.flow.batches import waited_for
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import Wanted, decoded, prepare
from gpuflow.flow.image_batches import ImageBatches, ImageJob
from gpuflow.media import Blob, Features, Image, block_bytes, lay_out
from gpuflow.memory import Lease
from gpuflow.ops.transform import transform

Steps = Generator[Future[None], None, Image | Features]
MakeJob = Callable[..., ImageJob]
"""``ImageJob`` of one image, of which its pixels, data and blocks are still to be said."""


def image_steps(
    blob: Blob, kind: MediaType, options: ImageOptions, context: LoadContext, batches: ImageBatches
) -> Steps:
    """As ``load_image``; what is yielded is to be waited for, whatever it ends with, before the next step.

    A JPEG is decoded by the device's decoder and falls back to the CPU where it cannot be; no GPU decodes the other
    formats, so that they are decoded on the CPU and uploaded is no fallback.
    """
    wanted = prepare(blob, kind, options, context)
    engine = transform("exact" if wanted.as_decoded else options.engine)
    backend, fallback = batches.decoder.name, None
    with context.placing(wanted.specs) as lease:
        finish = partial(wanted.work, lease=lease, options=options)
        made = partial(ImageJob, wanted.info, engine=engine, finish=finish)
        obstacle = batches.decoder.obstacle(wanted.info) if wanted.info.format in GPU_FORMATS else ""
        if obstacle is None:
            try:
                yield from _on_device(blob, wanted, made, lease, context, batches)
            except (CorruptMedia, UnsupportedFormat) as error:
                obstacle = str(error)
        if obstacle is not None:
            backend = yield from _by_way_of_the_cpu(blob, kind, wanted, options, made, lease, context, batches)
        # After the CPU's verdict: what it cannot read either is the sender's fault, never a missing backend
        if obstacle:
            fallback = context.fall_back(obstacle, modality="image")
    label = "" if wanted.as_decoded else f"+{engine.label(context.device.name)}"
    return wanted.media(lease, blob, backend=f"{backend}{label}", fallback=fallback)


def _on_device(
    blob: Blob, wanted: Wanted, made: MakeJob, lease: Lease, context: LoadContext, batches: ImageBatches
) -> Generator[Future[None], None, None]:
    """Decode and transform there; straight into the result where that is the image as it is decoded."""
    info, region = wanted.info, wanted.metadata.region
    with context.stage("batch"):
        if wanted.as_decoded and region is None and info.orientation == 1 and wanted.plan.layout == "HWC":
            straight = ImageJob(info, lease.array(wanted.specs[0]), blob.data, leases=(lease,))
            yield from waited_for(batches.submit(straight))
            return
        specs = lay_out({"pixels": ("uint8", info.stored_shape)})
        with context.slab.allocate(block_bytes(specs), timeout_seconds=context.deadline.remaining_seconds) as scratch:
            job = made(scratch.array(specs[0]), data=blob.data, region=region, leases=(lease, scratch))
            yield from waited_for(batches.submit(job))


def _by_way_of_the_cpu(
    blob: Blob,
    kind: MediaType,
    wanted: Wanted,
    options: ImageOptions,
    made: MakeJob,
    lease: Lease,
    context: LoadContext,
    batches: ImageBatches,
) -> Generator[Future[None], None, str]:
    """Decode on this thread, or in a worker, and have the device transform it; who decoded."""
    with context.decoder(blob, kind, "image") as decoder, decoded(decoder, wanted, options, context) as pixels:
        with context.stage("transform"):
            leases = (lease, pixels.lease) if pixels.lease else (lease,)
            yield from waited_for(batches.submit(made(pixels.array, leases=leases)))
        return pixels.backend
