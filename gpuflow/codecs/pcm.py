"""Decoded audio, and how it is gathered: block by block, held to the limits before the first and after every one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.base import Capability, Deadline, MediaType, Support
from gpuflow.codecs.kept import Kept, Samples, mean_into
from gpuflow.codecs.probe.claims import ContainerClaims
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, NoSuchStream, SectionAfterEnd

# What comes out depends on what came before: MP3's bit reservoir, the state of Opus and SBR. Measured on files of low bit
# rates: after 1 s Opus differed in 3 of 60 places (2e-40), after 2 s in none
PREROLL_SECONDS = 2.0
MAX_LEVEL = 2.0**31  # a float file may hold unscaled int32, never more; beyond it, powers leave float32


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header claims. ``num_samples`` is per channel, ``None`` where the header does not say or only guesses.
    ``stream``: which of a container's audio streams it is, and how many there are."""

    codec: str
    channels: int
    sample_rate: int
    num_samples: int | None = None
    stream: int = 0
    num_streams: int = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """What samples were decoded from, as it came out, and by whom. ``stream``, ``num_streams``, ``begins_seconds``,
    ``filled_seconds``: as in ``AudioMetadata``."""

    codec: str
    channels: int
    sample_rate: int
    backend: str
    stream: int = 0
    num_streams: int = 1
    begins_seconds: float = 0.0
    filled_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pcm:
    """Decoded audio: ``samples`` is ``(channels, n)`` float32, C-contiguous, or ``(1, n)`` where ``mono`` was asked for. Or
    int16, where ``native`` was asked for and the source has no more than 16 bits: 2**15 times the float32."""

    samples: Samples
    origin: Origin


@dataclass(frozen=True, slots=True)
class Section:
    """The part that is wanted, in seconds after the first sample, or after ``zero_seconds`` of the container's time;
    ``duration_seconds=None`` is up to the end. ``stream``: of which audio stream, by its place among them or its language.
    ``native``: as int16 where that is exact. ``mono``: their mean, as one channel of float32."""

    start_seconds: float = 0.0
    duration_seconds: float | None = None
    stream: int | str | None = None
    native: bool = False
    mono: bool = False
    zero_seconds: float | None = None

    @property
    def exact(self) -> bool:
        """Whether int16 is wanted where that is all that there is."""
        return self.native and not self.mono

    def samples(self, sample_rate: int) -> tuple[int, int | None]:
        """First sample and the one after the last, at a rate."""
        start = round(self.start_seconds * sample_rate)
        if self.duration_seconds is None:
            return start, None
        return start, start + max(1, round(self.duration_seconds * sample_rate))


class AudioDecoder(Protocol):
    """Bytes of one file to PCM, on the CPU."""

    name: str

    def capability(self) -> Capability: ...

    def supports(self, kind: MediaType) -> Support: ...

    def info(self, data: bytes, kind: MediaType, stream: int | str | None = None) -> AudioInfo:
        """The header, of one of its audio streams. Raises ``UnsupportedFormat`` where this library does not read the file, ``CorruptMedia``, ``NoSuchStream``."""
        ...

    def decode(
        self,
        data: bytes,
        kind: MediaType,
        section: Section,
        *,
        claims: ContainerClaims,
        limits: Limits,
        deadline: Deadline,
    ) -> Pcm:
        """The section, of a file that claims this. Raises what ``info`` does, ``LimitExceeded``, ``InvalidOptions``, ``DeadlineExceeded``."""
        ...


class Gathering:
    """Takes decoded blocks in order, keeps what lies in the section, and stops a decoder at the limits.

    Raises:
        LimitExceeded: rate, channels, seconds or bytes, as claimed or as decoded.
    """

    def __init__(
        self,
        info: AudioInfo,
        section: Section,
        *,
        limits: Limits,
        deadline: Deadline,
        dtype: Literal["float32", "int16"] = "float32",
    ) -> None:
        self._dtype = np.dtype(dtype)
        check_claims(info, section, limits, self._dtype.itemsize)
        self.info = info
        self._section = section
        self._limits = limits
        self._deadline = deadline
        self._start, self._stop = section.samples(info.sample_rate)
        self._kept = Kept(1 if section.mono else info.channels, self._dtype, self._claimed())
        self._seen = self._filled = 0
        self._empty = True
        self._zero_seconds = 0.0  # when the section's zero is heard

    @property
    def seen(self) -> int:
        """Samples that came, were skipped or filled in; below 0 before the section's zero."""
        return self._seen

    @property
    def first(self) -> int:
        """The section's first sample."""
        return self._start

    @property
    def empty(self) -> bool:
        """Whether not one sample has come or was skipped."""
        return self._empty

    @property
    def found(self) -> bool:
        """Whether any sample of the section has come."""
        return self._kept.count > 0

    @property
    def missing(self) -> int | None:
        """How many samples have yet to come; ``None``: up to the end."""
        return None if self._stop is None else max(0, self._stop - self._seen)

    def begin(self, *, seconds: float, aligned: bool) -> None:
        """Before anything comes: the first sample is heard so long after the time that others count from, or, below 0,
        before it. ``aligned``: the section counts from there too: silence comes before, or what is heard before goes.

        Raises:
            LimitExceeded: more silence, or more to throw away, than the sound may be long.
        """
        if not aligned:
            self._zero_seconds = seconds
            return
        count = round(seconds * self.info.sample_rate)
        if count < 0:
            _check_amount(-count, 0, self.info, self._limits)
            self._seen = count
        else:
            self.fill(count)

    def skip(self, count: int) -> None:
        """So many samples, none of them of the section, are not decoded: they count as if they were."""
        self._empty = False
        self._seen += count
        _check_amount(min(self._seen, self._start), 0, self.info, self._limits)

    def put(self, block: Samples) -> bool:
        """Take ``(channels, n)``, integers or floats, whose memory may be used again; false once the section is complete and
        the decoder may stop. As int16 only what is int16.

        Raises:
            CorruptMedia: a sample is no number, or beyond any scale.
        """
        self._deadline.check()
        self._empty = False
        first, last = self._count(block.shape[1])
        if last > first:
            self._keep(block[:, first:last])
        return self._stop is None or self._seen < self._stop

    def fill(self, count: int) -> bool:
        """Likewise so many samples of silence, where the container has no sound."""
        first, last = self._count(count)
        if last > first:
            self._kept.room(last - first)[...] = 0
            self._filled += last - first
        return self._stop is None or self._seen < self._stop

    def _count(self, count: int) -> tuple[int, int]:
        """Which of so many samples more are of the section, once that is held to the limits."""
        first = max(0, self._start - self._seen)
        last = count if self._stop is None else min(count, self._stop - self._seen)
        self._seen += count
        nbytes = (self._kept.count + max(0, last - first)) * self.info.channels * self._dtype.itemsize
        _check_amount(min(self._seen, self._stop or self._seen), nbytes, self.info, self._limits)
        return first, last

    def _keep(self, block: Samples) -> None:
        integers = block.dtype.kind != "f"
        block = planar_float(block) if self._dtype.kind == "f" else block
        if not integers and not max(block.max(), -block.min()) <= MAX_LEVEL:  # also NaN, which both keep
            raise CorruptMedia("the audio holds samples that are infinite or no numbers")
        room = self._kept.room(block.shape[1])
        if self._section.mono:
            mean_into(room[0], block)
        else:
            room[...] = block

    def _claimed(self) -> int:
        """Samples of the section, if the header is right."""
        ends = [end for end in (self.info.num_samples, self._stop) if end is not None]
        return max(0, min(ends, default=0) - self._start)

    def finish(self, backend: str) -> Pcm:
        """Everything that was kept.

        Raises:
            NoSuchStream: the stream holds no sample.
            SectionAfterEnd: the section begins after its end.
        """
        if self._empty:
            raise NoSuchStream("the audio stream is empty: it holds no sample")
        if not self.found:
            seconds = max(0, self._seen) / self.info.sample_rate
            raise SectionAfterEnd(
                f"start_seconds={self._section.start_seconds:g} lies after the end: the audio lasts {seconds:g} s"
            )
        info, samples = self.info, self._kept.samples()
        rate = info.sample_rate
        begins_seconds = self._zero_seconds + self._start / rate
        origin = Origin(
            info.codec, info.channels, rate, backend, info.stream, info.num_streams, begins_seconds, self._filled / rate
        )
        return Pcm(samples, origin)


def check_claims(info: AudioInfo, section: Section, limits: Limits, sample_bytes: int) -> None:
    """Refuse a section whose header claims more than allowed.

    Raises:
        LimitExceeded: rate, channels, seconds or bytes.
    """
    if not limits.min_sample_rate_hz <= info.sample_rate <= limits.max_sample_rate_hz:
        raise LimitExceeded(
            f"sample rate {info.sample_rate} Hz; Limits allows {limits.min_sample_rate_hz} .. {limits.max_sample_rate_hz} Hz"
        )
    if info.channels > limits.max_audio_channels:
        raise LimitExceeded(f"{info.channels} audio channels; Limits.max_audio_channels is {limits.max_audio_channels}")
    if info.num_samples is None:
        return
    start, stop = section.samples(info.sample_rate)
    last = info.num_samples if stop is None else min(stop, info.num_samples)
    _check_amount(last, max(0, last - start) * info.channels * sample_bytes, info, limits)


def _check_amount(decoded: int, nbytes: int, info: AudioInfo, limits: Limits) -> None:
    if decoded > limits.max_audio_seconds * info.sample_rate:
        seconds = decoded / info.sample_rate
        raise LimitExceeded(
            f"{seconds:.1f} s of audio or more; Limits.max_audio_seconds is {limits.max_audio_seconds:g}"
        )
    if nbytes > limits.max_pcm_bytes:
        raise LimitExceeded(f"{nbytes} bytes of decoded audio; Limits.max_pcm_bytes is {limits.max_pcm_bytes}")


def planar_float(block: NDArray[Any]) -> NDArray[np.float32]:
    """Integer or float PCM as float32 in -1..1, full scale being the integer's largest negative value."""
    if block.dtype.kind == "f":
        return block.astype(np.float32, copy=False)
    full_scale = 2.0 ** (8 * block.itemsize - 1)
    level = block.astype(np.float32)
    if block.dtype.kind == "u":
        level -= full_scale
    level /= full_scale
    return level
