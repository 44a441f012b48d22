"""An image from bytes to a placed ``Image``, or to the ``Features`` that a preset describes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from gpuflow.codecs.base import ImageInfo, MediaType
from gpuflow.codecs.probe import check_image, image_info, sniff
from gpuflow.config import ImageOptions, Limits
from gpuflow.errors import InvalidOptions
from gpuflow.flow.context import LoadContext, check_resize
from gpuflow.isolation.decoding import Decoder, Pixels
from gpuflow.media import Blob, FeatureMetadata, Features, Image, ImageMetadata, TensorSpec, block_bytes, lay_out
from gpuflow.memory import Lease
from gpuflow.ops.transform import transform
from gpuflow.ops.views import Picture
from gpuflow.ops.work import Work
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Passes, Preset, Reference
from gpuflow.presets.plan import ImagePlan, plan, plan_plain

Region = tuple[int, int, int, int]
QUICK_FORMATS = ("jpeg", "png", "webp")
QUICK_PIXELS = 8 << 20  # of which JPEG took 23 to 156 ms, WebP 128 to 147, PNG 132 to 220 (one core)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image's facts and what is to become of it, before anything is decoded."""

    info: ImageInfo
    plan: ImagePlan
    preset: Preset | None
    metadata: ImageMetadata
    specs: tuple[TensorSpec, ...]

    @property
    def as_decoded(self) -> bool:
        """Whether nothing is to become of it but its pixels."""
        view = self.plan.views[0]
        return self.preset is None and self.plan.mean is None and view.resized == self.plan.size

    def work(self, pixels: Any, lease: Lease, options: ImageOptions) -> Work:
        """What an engine is to do with the pixels as they are shown."""
        background = options.background if options.alpha == "composite" else None
        return Work(Picture(pixels, background), self.plan, lease, self.specs)

    def media(self, lease: Lease, blob: Blob, *, backend: str, fallback: str | None = None) -> Image | Features:
        """What lies in the sealed lease."""
        of_blob = blob.content_hash
        if self.preset is None:
            return Image(lease, self.specs, self.metadata, backend=backend, fallback=fallback, content_hash=of_blob)
        facts = FeatureMetadata(self.preset.name, self.metadata, num_tokens=self.plan.num_tokens)
        return Features(lease, self.specs, facts, backend=backend, fallback=fallback, content_hash=of_blob)


def quick_info(blob: Blob, options: object, limits: Limits) -> ImageInfo | None:
    """The header's facts of an image that is decoded long before its time is over, so that nobody has to end it; ``None``
    of all else. Raises what ``image_info`` does."""
    kind = sniff(blob.data)
    frame = options.frame if isinstance(options, ImageOptions) else 0
    if kind.modality != "image" or kind.name not in QUICK_FORMATS or frame:
        return None
    info = image_info(blob.data, kind, limits)
    return info if info.width * info.height <= QUICK_PIXELS and not info.progressive else None


def load_image(
    blob: Blob, kind: MediaType, options: ImageOptions, context: LoadContext, info: ImageInfo | None = None
) -> Image | Features:
    """Probe, decode, composite, transform, place, on the CPU. Without a preset an ``Image``, with one ``Features``.
    ``info``: the header's facts of the first frame, where they were read before.

    Raises:
        UnsupportedFormat: no image, or one that no decoder takes.
        CorruptMedia: it cannot be decoded.
        LimitExceeded: it is, or would become, larger than allowed.
        InvalidOptions: an unknown preset, a frame that the image does not have, types that contradict each other.
        BackendUnavailable: an engine was asked for by name and cannot be used.
        GpuflowError: whatever ``LoadContext`` raises.
    """
    wanted = prepare(blob, kind, options, context, info)
    engine = transform("exact" if wanted.as_decoded else options.engine)
    with context.decoder(blob, kind, "image") as decoder, decoded(decoder, wanted, options, context) as pixels:
        adopt = context.adoptable(pixels.lease) if wanted.as_decoded and _lies_as(pixels.array, wanted.specs) else None
        with (
            context.stage("place" if wanted.as_decoded else "transform"),
            context.placing(wanted.specs, adopt) as lease,
        ):
            if adopt is None:
                engine.apply([wanted.work(pixels.array, lease, options)])
    label = "" if wanted.as_decoded else f"+{engine.label(context.device.name)}"
    return wanted.media(lease, blob, backend=f"{pixels.backend}{label}")


def prepare(
    blob: Blob, kind: MediaType, options: ImageOptions, context: LoadContext, info: ImageInfo | None = None
) -> Wanted:
    """Read the header, hold it to the limits, and plan; nothing is decoded.

    Raises:
        UnsupportedFormat, CorruptMedia, LimitExceeded, InvalidOptions: as ``load_image``.
    """
    with context.stage("probe"):  # our own scan, before a decoder is waited for
        info = info or image_info(blob.data, kind, context.limits, frame=options.frame)
        check_image(info, context.limits)
        wanted = plan_of(options, info, context.limits)
    metadata = ImageMetadata(
        info.format, info.width, info.height, info.orientation, info.has_alpha, options.frame, info.num_frames,
        options.region,
    )  # fmt: skip
    specs = lay_out({name: (dtype, shape) for name, dtype, shape in wanted.outputs})
    context.require_room(block_bytes(specs))
    return Wanted(info, wanted, _preset_of(options), metadata, specs)


def plan_of(options: ImageOptions, info: ImageInfo, limits: Limits) -> ImagePlan:
    """What becomes of an image of which the header is known.

    Raises:
        InvalidOptions: an unknown preset, a frame or region that the image does not have, types that contradict each other.
        LimitExceeded: it would become larger than allowed, or the family refuses its shape.
    """
    if options.frame >= info.num_frames:
        raise InvalidOptions(f"frame {options.frame} was asked for; the {info.format} has {info.num_frames}")
    plan = _plan_of(options, _preset_of(options), _size_of(info, options.region))
    _check_views(plan, limits)
    return plan


def _preset_of(options: ImageOptions) -> Preset | None:
    preset = image_preset(options.preset) if isinstance(options.preset, str) else options.preset
    if preset is None:
        return None
    if isinstance(preset, Preset):
        return preset if options.reference in (None, preset.reference) else _referring(preset, options.reference)
    raise InvalidOptions(f"preset is the name of an image preset or a Preset; got {type(preset).__name__}")


@functools.lru_cache(maxsize=64)
def _referring(preset: Preset, reference: Reference) -> Preset:
    passes: Passes = "pillow" if reference == "pillow" else "horizontal_first"
    return replace(preset, reference=reference, passes=passes)


def _size_of(info: ImageInfo, region: Region | None) -> tuple[int, int]:
    """Height and width of what is taken of the image."""
    if region is None:
        return info.height, info.width
    left, top, right, bottom = region
    if right > info.width or bottom > info.height:
        raise InvalidOptions(f"region {region} does not lie in the image, which has {info.width}x{info.height} pixels")
    return bottom - top, right - left


def cropped(pixels: Any, region: Region | None) -> Any:
    """A view of the region of ``(H, W, C)`` pixels."""
    if region is None:
        return pixels
    left, top, right, bottom = region
    return pixels[top:bottom, left:right]


def _least_size(plan: ImagePlan, options: ImageOptions) -> tuple[int, int] | None:
    """A size that covers all that the whole image is resized to next, where it may be decoded smaller for that."""
    whole = options.region is None and all(view.box is None for view in plan.views)
    if not (options.approximate and whole and plan.resample != "nearest"):
        return None
    firsts = [(*view.via, view.resized)[0] for view in plan.views]
    return max(height for height, _ in firsts), max(width for _, width in firsts)


def _plan_of(options: ImageOptions, preset: Preset | None, size: tuple[int, int]) -> ImagePlan:
    if preset is None:
        return plan_plain(
            *size,
            size=options.size,
            resample=options.resample,
            reference=options.reference or "torchvision",
            layout=options.layout,
            dtype=options.dtype or "uint8",
        )
    dtype = options.dtype or (preset.dtype if options.normalize else "uint8")
    if (dtype == "uint8") == options.normalize:
        raise InvalidOptions(
            f"dtype {dtype!r} contradicts normalize={options.normalize}: uint8 is what is not normalised"
        )
    return _planned(preset, *size, dtype, options.normalize)


@functools.lru_cache(maxsize=256)
def _planned(preset: Preset, height: int, width: int, dtype: str, normalize: bool) -> ImagePlan:
    return plan(preset, height, width, dtype=dtype, normalize=normalize)


def _check_views(wanted: ImagePlan, limits: Limits) -> None:
    """Hold every size that the image passes through to the limits."""
    for view in wanted.views:
        size = wanted.size if view.box is None else view.box[2:]
        check_resize(wanted.size, size, limits)  # a square about a strip is larger than it
        for resized in (*view.via, view.resized):
            check_resize(size, resized, limits)
            size = resized


@contextmanager
def decoded(decoder: Decoder, wanted: Wanted, options: ImageOptions, context: LoadContext) -> Iterator[Pixels]:
    """The image, or its region, decoded on the CPU, valid inside the block."""
    with ExitStack() as stack:
        with context.stage("decode"):
            least_size = _least_size(wanted.plan, options)
            result = wanted.as_decoded and options.region is None and not wanted.info.has_alpha
            in_slab = result or context.device.is_cuda  # from pinned memory it is uploaded without a copy
            pixels = stack.enter_context(decoder.image(wanted.info, options.frame, least_size, in_slab=in_slab))
        # No decoder here decodes less for a region: libjpeg has to pass all that stands before
        if options.region is not None:
            pixels = replace(pixels, array=cropped(pixels.array, options.region), lease=None)
        yield pixels


def _lies_as(array: Any, specs: tuple[TensorSpec, ...]) -> bool:
    """Whether decoded pixels are the result, byte for byte."""
    return len(specs) == 1 and specs[0].dtype == "uint8" and specs[0].shape == array.shape
