"""How nvImageCodec behaves under load: streams, bad pictures, batches, threads, and memory over many decodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import _gpu_place as on
from benchmarks import _nvimgcodec as nv
from benchmarks._nvimgcodec_steps import Found, by_libjpeg, decoded, photograph, tried
from benchmarks._pictures import encoded

_LEVEL = 7


def stream_hazard(quick: bool) -> Found:
    """5: work that is queued on the stream and writes the buffer late: does the decode that is queued after it wait?

    ``overtaken``: the late write came after the picture. ``waited``: the host waits for the stream before it decodes.
    ``slab``: the block was released under that work and leased again, as gpuflow does.
    """
    milliseconds, times = (1.0, 2) if quick else (30.0, 20)
    data = photograph(quick)
    found: Found = {}
    for name, kind in on.PLACE.kinds.items():
        for waits in (False, True):
            key = f"{name}, {'waited' if waits else 'not waited'}"
            found[key] = tried(_hazard, kind, data, milliseconds, times, waits=waits)
    found["slab"] = tried(_slab_hazard, data, milliseconds, times)
    return found


def _hazard(kind: str | None, data: bytes, milliseconds: float, times: int, *, waits: bool) -> Found:
    decoder, stream = nv.decoder(on.PLACE.device, kind=kind), on.PLACE.stream()
    warm = decoded(decoder, data, stream=stream)
    if warm is None:
        return {"decodes": False}
    expected = on.PLACE.host(warm).copy()
    overtaken, calls = 0, []
    for _ in range(times):
        buffer = on.PLACE.empty(expected.shape)
        on.PLACE.overwrite_late(buffer, stream, level=_LEVEL, milliseconds=milliseconds)
        if waits:
            stream.synchronize()
        began = time.perf_counter()
        decoded(decoder, data, into=buffer, stream=stream)
        calls.append(time.perf_counter() - began)
        stream.synchronize()
        overtaken += not np.array_equal(on.PLACE.host(buffer), expected)
    return {
        "overtaken": overtaken,
        "of": times,
        "call_ms": round(1e3 * float(np.median(calls)), 3),
        "late_ms": milliseconds,
    }


def _slab_hazard(data: bytes, milliseconds: float, times: int) -> Found:
    from gpuflow.media import lay_out
    from gpuflow.memory import Slab

    decoder, stream = nv.decoder(on.PLACE.device), on.PLACE.stream()
    expected = on.PLACE.host(decoded(decoder, data)).copy()
    specs = lay_out({"pixels": ("uint8", expected.shape)})
    wrong, room = 0, 2 * specs[0].nbytes - 1  # for one block: the next lease is of the same bytes
    with Slab(room, device=on.PLACE.device) as slab:
        for _ in range(times):
            first = slab.allocate(specs[0].nbytes)
            on.PLACE.overwrite_late(first.array(specs[0]), stream, level=_LEVEL, milliseconds=milliseconds)
            if on.PLACE.device != "cpu":
                first.record_stream(stream)
            first.release()
            with slab.allocate(specs[0].nbytes, timeout_seconds=5.0) as lease:
                pixels = decoded(decoder, data, into=lease.array(specs[0]))
                wrong += not np.array_equal(on.PLACE.host(pixels), expected)
    return {"wrong": wrong, "of": times}


def bad_sample(quick: bool) -> Found:
    """6: a bad picture in the middle of a batch: what becomes of it, and of its neighbours?"""
    good = [photograph(quick, seed=seed) for seed in range(2)]
    whole = good[0]
    bad = {"cut short": whole[: len(whole) // 2], "header only": whole[:200], "not a JPEG": b"GIF89a" + bytes(100)}
    found: Found = {}
    for name, kind in on.PLACE.kinds.items():
        for fault, data in bad.items():
            found[f"{name}, {fault}"] = tried(_beside, kind, [good[0], data, good[1]])
    return found


def _beside(kind: str | None, datas: Sequence[bytes]) -> Any:
    decoder = nv.decoder(on.PLACE.device, kind=kind)
    images = decoder.decode(nv.streams(datas), params=nv.parameters())
    on.PLACE.settle()
    return [_verdict(image, data) for image, data in zip(images, datas, strict=True)]


def _verdict(image: Any, data: bytes) -> str:
    if image is None:
        return "none"
    pixels = np.asarray(image.cpu() if on.PLACE.device != "cpu" else image)
    expected = tried(by_libjpeg, data)
    if isinstance(expected, str):
        return "pixels, where libjpeg has none"
    return f"mean off by {np.abs(pixels.astype(int) - expected).mean():.3f}"


def batches(quick: bool) -> Found:
    """7: engines, and images a second of decoding alone by kind, size and batch; the first is what one request costs."""
    found: Found = {"engines": nv.engines()}
    for name, kind in on.PLACE.kinds.items():
        for large in (False, True):
            datas = [photograph(quick, large=large, seed=seed) for seed in range(2 if quick else 16)]
            for batch in (1, 2) if quick else (1, 2, 4, 7, 8, 14, 16, 32, 35, 64):
                key = f"{name}, {'1920x1080' if large else '500x375'}, batches of {batch}"
                seconds = 0.05 if quick else 0.7
                found[key] = tried(nv.decode_rate, on.PLACE.device, datas, batch, kind=kind, seconds=seconds)
    return found


def decoders_and_threads(quick: bool) -> Found:
    """8: a decoder a thread, one image a call into a buffer of the thread's own: images a second, CPU, pictures wrong."""
    counts = (1, 2) if quick else (1, 2, 4, 8, 16)
    return {f"{count} threads": _threads(quick, count, shared=False) for count in counts}


def shared_decoder(quick: bool) -> Found:
    """9: the same with one decoder for all threads, which on the CPU loses pictures; it may end the process."""
    return {f"{count} threads": _threads(quick, count, shared=True) for count in ((2,) if quick else (2, 4, 8))}


def _threads(quick: bool, count: int, *, shared: bool) -> Found:
    data = photograph(quick)
    one = nv.decoder(on.PLACE.device)
    expected = on.PLACE.host(decoded(one, data)).copy()
    ready, seconds = threading.Barrier(count), 0.2 if quick else 3.0

    def run(_: int) -> tuple[int, int, int, float]:
        decoder, stream = one if shared else nv.decoder(on.PLACE.device), on.PLACE.stream()
        buffer = decoded(decoder, data, stream=stream)
        buffer = on.PLACE.empty(expected.shape) if buffer is None else buffer
        ready.wait(60)
        began, done, none, wrong = time.perf_counter(), 0, 0, 0
        while (spent := time.perf_counter() - began) < seconds:
            out = decoded(decoder, data, into=buffer, stream=stream)
            stream.synchronize()
            none += out is None
            if out is not None and done % 50 == 0:
                wrong += not np.array_equal(on.PLACE.host(out), expected)
            done += 1
        return done, none, wrong, spent

    cpu = time.process_time()
    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(run, range(count)))
    total = sum(done for done, *_ in results)
    return {
        "images_per_second": round(sum(done / spent for done, _, _, spent in results)),
        "cpu_ms_an_image": round(1e3 * (time.process_time() - cpu) / max(1, total), 4),
        "none": sum(none for _, none, _, _ in results),
        "wrong_of_those_compared": sum(wrong for _, _, wrong, _ in results),
    }


def memory_growth(quick: bool) -> Found:
    """10: memory of the GPU and of the process over many decodes of changing sizes, into the library's own memory."""
    rng = np.random.default_rng(0)
    sizes = [(96, 64), (64, 96)] if quick else [tuple(8 * rng.integers(8, 250, 2)) for _ in range(24)]
    datas = [encoded("JPEG", int(width), int(height), 0) for width, height in sizes]
    decoder, found = nv.decoder(on.PLACE.device), []
    for number in range(40 if quick else 6_001):
        image = decoder.decode(nv.streams([datas[number % len(datas)]])[0], params=nv.parameters())
        if number % (20 if quick else 1_000) == 0:
            on.PLACE.settle()
            found.append(
                {"decodes": number, "gpu_mib": on.PLACE.used_bytes() >> 20, "host_mib": _resident_bytes() >> 20}
            )
        del image
    return {"growth": found}


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4_096
