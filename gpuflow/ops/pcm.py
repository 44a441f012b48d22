"""Sound as it is stored: the samples of one clip, where they lie, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.values import shown

Encoding = Literal["u8", "s16", "s24", "s32", "f32", "f64", "mulaw", "alaw"]

SAMPLE_BYTES: dict[str, int] = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8, "mulaw": 1, "alaw": 1}
"""In the order of ``enum Encoding`` of ``kernels/pcm.cuh``; s24 is packed, all are little endian."""

_BY_DTYPE: dict[str, Encoding] = {"uint8": "u8", "int16": "s16", "int32": "s32", "float32": "f32", "float64": "f64"}


@dataclass(frozen=True, slots=True, eq=False)
class StoredPcm:
    """``count`` frames of ``channels`` samples. ``samples``: their bytes and nothing else, as an object with a buffer, or as
    a CuPy array of uint8 whose first byte lies at a multiple of the sample's size.

    Raises:
        InvalidOptions: no such encoding, or bytes of another number.
    """

    samples: Any
    encoding: Encoding
    channels: int
    count: int
    sample_rate: int
    interleaved: bool = True

    def __post_init__(self) -> None:
        if self.encoding not in SAMPLE_BYTES:
            raise InvalidOptions(f"encoding is one of {', '.join(SAMPLE_BYTES)}; got {shown(self.encoding)}")
        if min(self.channels, self.sample_rate) < 1 or self.count < 0:
            raise InvalidOptions(f"a clip has channels and a rate; got {self.channels} and {self.sample_rate} Hz")
        nbytes = self.samples.nbytes if hasattr(self.samples, "nbytes") else len(self.samples)
        if nbytes != self.nbytes:
            raise InvalidOptions(
                f"{self.count} frames of {self.channels} {self.encoding} samples are {self.nbytes} bytes; got {nbytes}"
            )

    @classmethod
    def of(cls, samples: NDArray[Any], sample_rate: int) -> Self:
        """Decoded PCM on the host, ``(channels, n)`` uint8, int16, int32, float32 or float64.

        Raises:
            InvalidOptions: an array of another shape or type.
        """
        encoding = _BY_DTYPE.get(samples.dtype.name)
        if samples.ndim != 2 or encoding is None:
            raise InvalidOptions(
                f"decoded sound is (channels, n) integers or floats; got {samples.shape} {samples.dtype}"
            )
        channels, count = samples.shape
        return cls(np.ascontiguousarray(samples), encoding, channels, count, sample_rate, interleaved=False)

    @property
    def sample_bytes(self) -> int:
        """Of one sample of one channel."""
        return SAMPLE_BYTES[self.encoding]

    @property
    def nbytes(self) -> int:
        """Of all samples."""
        return self.count * self.channels * self.sample_bytes

    @property
    def strides(self) -> tuple[int, int]:
        """Bytes from frame to frame, and from channel to channel."""
        if self.interleaved:
            return self.channels * self.sample_bytes, self.sample_bytes
        return self.sample_bytes, self.count * self.sample_bytes

    @property
    def on_host(self) -> bool:
        """Whether a GPU would have to be given a copy."""
        return not hasattr(self.samples, "__cuda_array_interface__")

    @property
    def address(self) -> int:
        """Of the first sample."""
        return int(self.bytes_on_host().ctypes.data if self.on_host else self.samples.data.ptr)

    def bytes_on_host(self) -> NDArray[np.uint8]:
        """The samples as ``(nbytes,)`` uint8, without a copy."""
        return np.frombuffer(self.samples, np.uint8)

    def head(self, count: int) -> Self:
        """The first frames of a clip on the host: a view where they are interleaved."""
        if count >= self.count:
            return self
        rows = self.bytes_on_host().reshape(1 if self.interleaved else self.channels, -1)
        samples = np.ascontiguousarray(rows[:, : count * self.strides[0]]).reshape(-1)
        return replace(self, samples=samples, count=count)


def to_float(pcm: StoredPcm) -> NDArray[np.float32]:
    """A clip on the host as ``(channels, count)`` float32, full scale being the integer's largest negative value.

    Source: what libsndfile gives; mu-law and A-law as of ITU-T G.711.
    """
    raw = pcm.bytes_on_host().reshape(-1, pcm.sample_bytes)
    shape = (pcm.count, pcm.channels) if pcm.interleaved else (pcm.channels, pcm.count)
    planar = _levels(raw, pcm.encoding).reshape(shape)
    return np.ascontiguousarray(planar.T if pcm.interleaved else planar)


def _levels(raw: NDArray[np.uint8], encoding: Encoding) -> NDArray[np.float32]:
    """Of ``(n, sample_bytes)``."""
    if encoding in ("f32", "f64"):
        return raw.view(encoding.replace("f32", "<f4").replace("f64", "<f8")).astype(np.float32)
    if encoding == "u8":
        return (raw.astype(np.float32) - 128) / np.float32(128)
    if encoding in ("mulaw", "alaw"):
        codes = raw.astype(np.int32)
        return (_mu_law(codes) if encoding == "mulaw" else _a_law(codes)).astype(np.float32) / np.float32(1 << 15)
    if encoding == "s24":
        wide = np.zeros((len(raw), 4), np.uint8)
        wide[:, 1:] = raw
        raw = wide
    integers = raw.view("<i2" if encoding == "s16" else "<i4")
    return integers.astype(np.float32) / np.float32(1 << (15 if encoding == "s16" else 31))


def _mu_law(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    flipped = ~codes
    magnitude = (((flipped & 15) << 3) + 132 << (flipped >> 4 & 7)) - 132
    return np.where(flipped & 128, -magnitude, magnitude)


def _a_law(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    flipped = codes ^ 0x55
    exponent, step = flipped >> 4 & 7, ((flipped & 15) << 4) + 8
    magnitude = np.where(exponent > 0, step + 256 << np.maximum(exponent - 1, 0), step)
    return np.where(flipped & 128, magnitude, -magnitude)
