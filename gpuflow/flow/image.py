"""An image from bytes to a placed ``Image``, or to the ``Features`` that a preset describes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from gpuflow.codecs.base import ImageInfo, MediaType
from gpuflow.codecs.images import GPU_FORMATS, gpu_decoder, gpu_obstacle
from gpuflow.codecs.probe import check_image, image_info
from gpuflow.config import ImageOptions
from gpuflow.errors import CorruptMedia, InvalidOptions, UnsupportedFormat
from gpuflow.flow.context import LoadContext, check_resize
from gpuflow.isolation.decoding import Decoder, Pixels
from gpuflow.media import Blob, FeatureMetadata, Features, Image, ImageMetadata, TensorSpec, block_bytes, lay_out
from gpuflow.memory import Lease
from gpuflow.ops.composite import flatten_alpha
from gpuflow.ops.transform import transform
from gpuflow.presets.image import Preset, image_preset
from gpuflow.presets.plan import ImagePlan, plan, plan_plain


@dataclass(frozen=True, slots=True)
class _Pixels:
    """``array``: ``(H, W, 3)`` or ``(H, W, 4)`` uint8, numpy or CuPy; who decoded them, and why not the GPU. ``lease``:
    the block that holds them and nothing else, if any."""

    array: Any
    backend: str
    fallback: str | None = None
    lease: Lease | None = None


def load_image(blob: Blob, kind: MediaType, options: ImageOptions, context: LoadContext) -> Image | Features:
    """Probe, decode, composite, transform, place. Without a preset an ``Image``, with one ``Features``.

    On a GPU a JPEG is decoded there and falls back to the CPU where it cannot be; no GPU decodes the other formats, so
    that they are decoded on the CPU and uploaded is no fallback.

    Raises:
        UnsupportedFormat: no image, or one that no decoder takes.
        CorruptMedia: it cannot be decoded.
        LimitExceeded: it is, or would become, larger than allowed.
        InvalidOptions: an unknown preset, a frame that the image does not have, types that contradict each other.
        BackendUnavailable: an engine or a GPU was asked for by name and cannot be used.
        GpuflowError: whatever ``LoadContext`` raises.
    """
    preset = _preset_of(options)
    with context.stage("probe"):  # our own scan, before a decoder is waited for
        info = image_info(blob.data, kind, context.limits, frame=options.frame)
        check_image(info, context.limits)
        if options.frame >= info.num_frames:
            raise InvalidOptions(f"frame {options.frame} was asked for; the {info.format} has {info.num_frames}")
        size = _size_of(info, options.region)
        wanted = _plan_of(options, preset, size)
        check_resize(size, wanted.resized, context.limits)
    metadata = ImageMetadata(
        info.format, info.width, info.height, info.orientation, info.has_alpha, options.frame, info.num_frames,
        options.region,
    )  # fmt: skip
    with (
        context.decoder(blob, kind, "image") as decoder,
        _decoded(blob.data, decoder, info, options.frame, _least_size(wanted, options), context) as pixels,
    ):
        lease, specs, engine = _placed(_cropped(pixels, options.region), wanted, options, context)
    backend = f"{pixels.backend}+{engine}" if engine else pixels.backend
    if preset is None:
        return Image(lease, specs, metadata, backend=backend, fallback=pixels.fallback, content_hash=blob.content_hash)
    features = FeatureMetadata(preset.name, metadata, num_tokens=wanted.num_tokens)
    return Features(lease, specs, features, backend=backend, fallback=pixels.fallback, content_hash=blob.content_hash)


def _preset_of(options: ImageOptions) -> Preset | None:
    preset = options.preset
    if isinstance(preset, str):
        return image_preset(preset)
    if preset is None or isinstance(preset, Preset):
        return preset
    raise InvalidOptions(f"preset is the name of an image preset or a Preset; got {type(preset).__name__}")


def _size_of(info: ImageInfo, region: tuple[int, int, int, int] | None) -> tuple[int, int]:
    """Height and width of what is taken of the image."""
    if region is None:
        return info.height, info.width
    left, top, right, bottom = region
    if right > info.width or bottom > info.height:
        raise InvalidOptions(f"region {region} does not lie in the image, which has {info.width}x{info.height} pixels")
    return bottom - top, right - left


def _least_size(wanted: ImagePlan, options: ImageOptions) -> tuple[int, int] | None:
    """The size to which all of the image is resized next, where it may be decoded smaller for that."""
    whole = options.region is None and wanted.resample != "nearest"
    return wanted.resized if options.approximate and whole else None


def _cropped(pixels: _Pixels, region: tuple[int, int, int, int] | None) -> _Pixels:
    """A view of the region. No decoder here decodes less for it: libjpeg has to pass all that stands before."""
    if region is None:
        return pixels
    left, top, right, bottom = region
    return replace(pixels, array=pixels.array[top:bottom, left:right], lease=None)


def _plan_of(options: ImageOptions, preset: Preset | None, size: tuple[int, int]) -> ImagePlan:
    if preset is None:
        return plan_plain(
            *size,
            size=options.size,
            resample=options.resample,
            layout=options.layout,
            dtype=options.dtype or "uint8",
        )
    dtype = options.dtype or ("float32" if options.normalize else "uint8")
    if (dtype == "uint8") == options.normalize:
        raise InvalidOptions(
            f"dtype {dtype!r} contradicts normalize={options.normalize}: uint8 is what is not normalised"
        )
    return plan(preset, *size, dtype=dtype, normalize=options.normalize)


@contextmanager
def _decoded(
    data: bytes,
    decoder: Decoder,
    info: ImageInfo,
    frame: int,
    least_size: tuple[int, int] | None,
    context: LoadContext,
) -> Iterator[_Pixels]:
    """The decoded image, valid inside the block: on a GPU it lies in a scratch lease."""
    if not context.device.is_cuda or info.format not in GPU_FORMATS:
        with _decoded_on_the_cpu(decoder, info, frame, least_size, context) as pixels:
            yield _Pixels(pixels.array, pixels.backend, lease=pixels.lease)
        return
    obstacle = gpu_obstacle(info, context.device.index)
    if obstacle is None:
        specs = lay_out({"pixels": ("uint8", (info.height, info.width, 3))})
        with context.slab.allocate(block_bytes(specs), timeout_seconds=context.deadline.remaining_seconds) as scratch:
            on_gpu = gpu_decoder(context.device.index)
            try:
                with context.stage("decode"):
                    array = on_gpu.decode(data, info, frame=frame, out=scratch.array(specs[0]))
            except (CorruptMedia, UnsupportedFormat) as error:
                obstacle = str(error)
            else:
                yield _Pixels(array, on_gpu.name)
                return
    # First the CPU's verdict: what it cannot read either is the sender's fault, and never a missing backend
    with _decoded_on_the_cpu(decoder, info, frame, least_size, context) as pixels:
        yield _Pixels(pixels.array, pixels.backend, context.fall_back(obstacle, modality="image"))


@contextmanager
def _decoded_on_the_cpu(
    decoder: Decoder, info: ImageInfo, frame: int, least_size: tuple[int, int] | None, context: LoadContext
) -> Iterator[Pixels]:
    with ExitStack() as stack:
        with context.stage("decode"):
            pixels = stack.enter_context(decoder.image(info, frame, least_size))
        yield pixels


def _placed(
    pixels: _Pixels, wanted: ImagePlan, options: ImageOptions, context: LoadContext
) -> tuple[Lease, tuple[TensorSpec, ...], str]:
    """The sealed lease, what lies in it, and the engine that transformed; ``""`` where the pixels are as decoded."""
    array = pixels.array
    as_decoded = options.preset is None and wanted.mean is None and wanted.resized == array.shape[:2]
    engine = transform("exact" if as_decoded else options.engine)
    specs = lay_out({name: (dtype, shape) for name, dtype, shape in wanted.outputs})
    adopt = context.adoptable(pixels.lease) if as_decoded and _lies_as(array, specs) else None
    with context.stage("place" if as_decoded else "transform"), context.placing(specs, adopt) as lease:
        if adopt is None:
            flat = flatten_alpha(array, alpha=options.alpha, background=options.background)
            engine.apply(flat, wanted, lease, specs)
    return lease, specs, "" if as_decoded else engine.label(context.device.name)


def _lies_as(array: Any, specs: tuple[TensorSpec, ...]) -> bool:
    """Whether decoded pixels are the result, byte for byte."""
    return len(specs) == 1 and specs[0].dtype == "uint8" and specs[0].shape == array.shape
