"""nvImageCodec as the GPU benchmark and the checklist call it: bare, not through gpuflow's decoder."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CPU_KIND = "CPU_ONLY"
_NVJPEG = "libnvjpeg.so.13"


def decoder(device: str, *, kind: str | None = None, options: str = "") -> Any:
    """A ``Decoder`` on ``"cpu"`` or ``"cuda"``; ``kind``: the one ``BackendKind`` that it may use."""
    from nvidia import nvimgcodec

    if device == "cpu":
        kind = kind or CPU_KIND
    backends = [nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind))] if kind else None
    index, threads = (nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, 1) if device == "cpu" else (0, 0)  # 0: one a core
    return nvimgcodec.Decoder(device_id=index, backends=backends, max_num_cpu_threads=threads, options=options)


@functools.cache
def parameters(*, planar: bool = False) -> Any:
    """RGB as it is stored, whatever EXIF says."""
    from nvidia import nvimgcodec

    return nvimgcodec.DecodeParams(
        apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB, sample_format=sample_format(planar=planar)
    )


def sample_format(*, planar: bool = False) -> Any:
    """Interleaved or planar RGB."""
    from nvidia import nvimgcodec

    return nvimgcodec.SampleFormat.P_RGB if planar else nvimgcodec.SampleFormat.I_RGB


def streams(datas: Sequence[bytes]) -> list[Any]:
    """What a decoder takes."""
    from nvidia import nvimgcodec

    return [nvimgcodec.CodeStream(data) for data in datas]


def image_of(array: Any, *, stream: int = 0, planar: bool = False) -> Any:
    """The caller's memory, numpy or CuPy, to decode into."""
    from nvidia import nvimgcodec

    return nvimgcodec.as_image(array, stream, sample_format=sample_format(planar=planar))


def decode_rate(device: str, datas: Sequence[bytes], batch: int, *, kind: str | None, seconds: float) -> float:
    """Images a second of decoding alone, batch after batch into the library's memory.

    Raises:
        RuntimeError: a picture did not come out.
    """
    using = decoder(device, kind=kind)
    sources = streams([datas[place % len(datas)] for place in range(batch)])
    images = using.decode(sources, params=parameters())
    if any(image is None for image in images):
        raise RuntimeError(f"{sum(image is None for image in images)} of {batch} did not come out")
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        images = using.decode(sources, images=images, params=parameters())
        settle(device)
        done += batch
    return round(done / (time.perf_counter() - began), 1)


def settle(device: str) -> None:
    """Wait for all that a GPU does."""
    if device != "cpu":
        import cupy

        cupy.cuda.Device().synchronize()


def engines() -> dict[str, Any]:
    """How many NVJPG engines there are, by ``nvjpegGetHardwareDecoderInfo``; ``{"unknown": why}`` where it cannot be asked.

    Source: nvjpeg.h; a status other than 0 is an error.
    """
    try:
        library = _nvjpeg()
    except OSError as error:
        return {"unknown": f"libnvjpeg does not load: {error}"}
    handle = ctypes.c_void_p()
    if status := library.nvjpegCreateSimple(ctypes.byref(handle)):
        return {"unknown": f"nvjpegCreateSimple gives status {status}"}
    counts = (ctypes.c_uint(), ctypes.c_uint())
    status = library.nvjpegGetHardwareDecoderInfo(handle, *(ctypes.byref(count) for count in counts))
    library.nvjpegDestroy(handle)
    if status:
        return {"unknown": f"nvjpegGetHardwareDecoderInfo gives status {status}"}
    return {"engines": counts[0].value, "cores_per_engine": counts[1].value}


def _nvjpeg() -> ctypes.CDLL:
    """libnvjpeg, where Python's packages have put it, else where the loader looks."""
    import nvidia

    found = [str(path) for place in nvidia.__path__ for path in Path(place).glob(f"*/lib/{_NVJPEG}")]
    return ctypes.CDLL(found[0] if found else _NVJPEG)
