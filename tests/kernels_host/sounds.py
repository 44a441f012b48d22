"""Sound for the kernels' tests: every encoding written by hand, and what the definitions make of it by numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.pcm import SAMPLE_BYTES, StoredPcm

ENCODINGS = tuple(SAMPLE_BYTES)


def stored(encoding: Any, channels: int, count: int, *, rate: int = 44_100, interleaved: bool = True) -> StoredPcm:
    """Noise over the whole range of an encoding, the same whenever it is asked for."""
    random = np.random.default_rng((len(encoding), channels, count))
    if encoding in ("f32", "f64"):
        samples = random.standard_normal(channels * count).astype(encoding.replace("f32", "<f4").replace("f64", "<f8"))
        data = samples.view(np.uint8)
    else:
        data = random.integers(0, 256, channels * count * SAMPLE_BYTES[encoding], dtype=np.uint8)
    return StoredPcm(data, encoding, channels, count, rate, interleaved)


def levels(pcm: StoredPcm) -> NDArray[np.float32]:
    """``(channels, count)``, sample by sample: mu-law and A-law as ITU-T G.711 tabulates them."""
    data, width = bytes(pcm.bytes_on_host()), pcm.sample_bytes
    values = np.array([_level(data[at : at + width], pcm.encoding) for at in range(0, len(data), width)], np.float32)
    if pcm.interleaved:
        return np.ascontiguousarray(values.reshape(pcm.count, pcm.channels).T)
    return values.reshape(pcm.channels, pcm.count)


def mean(planar: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the channels, as the kernel's header says it."""
    if len(planar) == 1:
        return planar[0]
    total = planar[0].copy()
    for channel in planar[1:]:
        total += channel
    return total / np.float32(len(planar))


def _level(sample: bytes, encoding: str) -> Any:
    if encoding in ("f32", "f64"):
        return np.float32(np.frombuffer(sample, f"<f{len(sample)}")[0])
    if encoding == "u8":
        return (sample[0] - 128) / 128
    if encoding in ("mulaw", "alaw"):
        return (_mu_law if encoding == "mulaw" else _a_law)(sample[0]) / 32_768
    bits = 8 * len(sample)
    return np.float32(int.from_bytes(sample, "little", signed=True)) / np.float32(2 ** (bits - 1))


def _mu_law(code: int) -> int:
    """Sign, three bits of segment, four of place in it, all inverted; segments begin at 33 * 2^s - 33, times 4."""
    segment, place = (255 - code) // 16 % 8, (255 - code) % 16
    magnitude = 4 * ((2 * place + 33) * 2**segment - 33)
    return magnitude if code >= 128 else -magnitude


def _a_law(code: int) -> int:
    """Every other bit inverted; two segments of step 2, then steps double, times 8."""
    flipped = code ^ 0x55
    segment, place = flipped // 16 % 8, flipped % 16
    magnitude = 8 * (2 * place + 1 if segment == 0 else (2 * place + 33) * 2 ** (segment - 1))
    return magnitude if code >= 128 else -magnitude
