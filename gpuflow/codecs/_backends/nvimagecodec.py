"""JPEG on the GPU by nvImageCodec: straight into the caller's memory, with fancy chroma upsampling as libjpeg's.

Only JPEG ever reaches it: its PNG and WebP are OpenCV on the host, and its JPEG 2000 dies of 238 bytes.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np

from gpuflow.codecs.base import Capability, Encoded, Guard, ImageInfo, Support
from gpuflow.codecs.orientation import oriented
from gpuflow.device import driver
from gpuflow.errors import BackendUnavailable, CorruptMedia, GpuflowError, UnsupportedFormat

_FANCY = ":fancy_upsampling=1"  # chroma as libjpeg interpolates it; the library's default, said aloud
_PIP = "pip install 'gpuflow[cu13]'"


@functools.cache
def capability() -> Capability:
    """Whether nvImageCodec can decode on a GPU here; the library is not loaded without a driver."""
    if driver().count == 0:
        return Capability(False, driver().reason)
    return library()


def library() -> Capability:
    """Whether nvImageCodec loads here; its CPU backend needs no driver."""
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.nvimgcodec") is None:
        return Capability(False, f"nvImageCodec is not installed: {_PIP}")
    try:
        from nvidia import nvimgcodec
    except (ImportError, OSError, RuntimeError) as error:
        return Capability(False, f"nvImageCodec does not load ({error}): {_PIP}")
    return Capability(True, version=str(nvimgcodec.__version__))


class NvImageCodecDecoder:
    """``ImageDecoder`` for JPEG on one GPU; with ``device_index=None`` the same calls on the library's CPU backend.

    A library decoder breaks when threads share it: each thread has its own. Orientation is ours: the library does not
    find every EXIF block.
    """

    name = "nvimagecodec"

    def __init__(self, device_index: int | None = 0, *, guard: Guard = nullcontext) -> None:
        self.device: Literal["cpu", "cuda"] = "cpu" if device_index is None else "cuda"
        self._index = device_index
        self._guard = guard
        self._of_thread = threading.local()

    def capability(self) -> Capability:
        """Whether library and driver are there."""
        return library() if self._index is None else capability()

    def supports(self, info: ImageInfo) -> Support:
        """8-bit gray and colour JPEG; CMYK stays with libjpeg, which others compare with."""
        if info.format != "jpeg":
            return Support(False, f"nvImageCodec is not trusted with {info.format}")
        if info.bit_depth != 8 or info.channels not in (1, 3):
            return Support(False, f"no JPEG of {info.channels} channels and {info.bit_depth} bits on the GPU")
        return Support(True)

    def decode(self, data: bytes, info: ImageInfo, *, frame: int = 0, out: Any = None) -> Any:
        """See ``ImageDecoder``; ``out`` is needed on a GPU. When it returns the pixels are there.

        The hardware engine does not honour its stream: earlier work on ``out`` is waited for on the host, first on the
        current stream, and before that by the slab, which recycles no block whose events are open.
        """
        if frame:
            raise UnsupportedFormat("a JPEG has one frame")
        if self._index is None:
            return self._decode(data, info, np.empty(_shown(info), np.uint8) if out is None else out, np.empty, 0)
        if out is None:
            raise BackendUnavailable("decoding on a GPU needs a place in GPU memory to write to")
        import cupy

        with out.device, cupy.cuda.Stream.ptds as stream:
            with self._guard():
                stream.synchronize()
            self._decode(data, info, out, cupy.empty, stream.ptr)
            with self._guard():
                stream.synchronize()
        return out

    def obstacle(self, info: ImageInfo) -> str | None:
        """See ``BatchDecoder``."""
        return self.capability().reason or self.supports(info).reason or None

    def decode_batch(self, jobs: Sequence[Encoded]) -> list[GpuflowError | None]:
        """See ``BatchDecoder``. On a GPU earlier work on the places is waited for on the host, as in ``decode``."""
        if self._index is None:
            return self._decode_batch(jobs, 0)
        import cupy

        with cupy.cuda.Device(self._index), cupy.cuda.Stream.ptds as stream:
            with self._guard():
                stream.synchronize()
            try:
                return self._decode_batch(jobs, stream.ptr)
            finally:  # also after an error: nothing may write to the places any more
                with self._guard():
                    stream.synchronize()

    def _decode_batch(self, jobs: Sequence[Encoded], stream: int) -> list[GpuflowError | None]:
        found: list[GpuflowError | None] = [_header_error(job) for job in jobs]
        sound = [number for number, error in enumerate(found) if error is None]
        try:
            decoded = self._decoded([jobs[number] for number in sound], stream)
        except (RuntimeError, ValueError):  # of the whole call: one after another shows whose it is
            for number in sound:
                found[number] = self._alone(jobs[number], stream)
            return found
        for number, picture in zip(sound, decoded, strict=True):
            if picture is None or tuple(picture.shape) != jobs[number].out.shape:
                found[number] = CorruptMedia("nvImageCodec cannot decode this JPEG")
        return found

    def _decoded(self, jobs: Sequence[Encoded], stream: int) -> list[Any]:
        from nvidia import nvimgcodec

        if not jobs:
            return []
        with self._guard():
            form = nvimgcodec.SampleFormat.I_RGB
            targets = [nvimgcodec.as_image(job.out, stream, sample_format=form) for job in jobs]
            sources = [nvimgcodec.CodeStream(job.data) for job in jobs]
            found: list[Any] = self._decoder().decode(sources, images=targets, params=_parameters(), cuda_stream=stream)
            return found

    def _alone(self, job: Encoded, stream: int) -> GpuflowError | None:
        try:
            self._decode_stored(job.data, job.out, stream)
        except (CorruptMedia, UnsupportedFormat) as error:
            return error
        return None

    def _decode(self, data: bytes, info: ImageInfo, out: Any, empty: Any, stream: int) -> Any:
        if out.shape != _shown(info):
            raise ValueError(f"{_shown(info)} pixels need an array of that shape; got {out.shape}")
        stored = out if info.orientation == 1 else empty(info.stored_shape, "uint8")
        self._decode_stored(data, stored, stream)
        if stored is not out:
            out[...] = oriented(stored, info.orientation)
        return out

    def _decode_stored(self, data: bytes, pixels: Any, stream: int) -> None:
        from nvidia import nvimgcodec

        try:
            with self._guard():
                target = nvimgcodec.as_image(pixels, stream, sample_format=nvimgcodec.SampleFormat.I_RGB)
                source = nvimgcodec.CodeStream(data)
                decoded = self._decoder().decode(source, image=target, params=_parameters(), cuda_stream=stream)
                if decoded is None:
                    raise RuntimeError("no picture came out")
        except (RuntimeError, ValueError) as error:  # ValueError: the pixels need more room than the header claimed
            raise CorruptMedia("nvImageCodec cannot decode this JPEG") from error
        if tuple(decoded.shape) != pixels.shape:
            raise CorruptMedia(f"the JPEG claims {pixels.shape[1]}x{pixels.shape[0]} and holds another size")

    def _decoder(self) -> Any:
        if not hasattr(self._of_thread, "decoder"):
            self._of_thread.decoder = _new_decoder(self._index)
        return self._of_thread.decoder


def _new_decoder(device_index: int | None) -> Any:
    from nvidia import nvimgcodec

    if device_index is not None:  # never its CPU backend: what the GPU cannot decode falls back visibly
        kinds = (
            nvimgcodec.BackendKind.HW_GPU_ONLY,
            nvimgcodec.BackendKind.GPU_ONLY,
            nvimgcodec.BackendKind.HYBRID_CPU_GPU,
        )
        backends = [nvimgcodec.Backend(kind) for kind in kinds]
        return nvimgcodec.Decoder(device_id=device_index, backends=backends, options=_FANCY)
    cpu = nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)
    return nvimgcodec.Decoder(
        device_id=nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, backends=[cpu], max_num_cpu_threads=1, options=_FANCY
    )


@functools.cache
def _parameters() -> Any:
    from nvidia import nvimgcodec

    return nvimgcodec.DecodeParams(
        apply_exif_orientation=False,
        color_spec=nvimgcodec.ColorSpec.SRGB,
        sample_format=nvimgcodec.SampleFormat.I_RGB,
    )


def _header_error(job: Encoded) -> GpuflowError | None:
    """What the library's own reading of the header says: a place that is too small fails a whole batch."""
    from nvidia import nvimgcodec

    try:
        stream = nvimgcodec.CodeStream(job.data)
        size = {stream.height, stream.width}
    except (RuntimeError, ValueError) as error:
        return _caused(CorruptMedia("nvImageCodec cannot read this JPEG's header"), error)
    if job.out.shape != job.info.stored_shape or size != set(job.out.shape[:2]):
        return CorruptMedia(f"the JPEG claims {job.info.width}x{job.info.height} and holds another size")
    return None


def _caused(error: GpuflowError, cause: Exception) -> GpuflowError:
    error.__cause__ = cause
    return error


def _shown(info: ImageInfo) -> tuple[int, int, int]:
    return info.height, info.width, 3
