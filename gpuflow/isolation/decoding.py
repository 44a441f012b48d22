"""Where decoding runs, seen from a loader: the same calls whether it is this thread or a worker process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.audio import decode_audio
from gpuflow.codecs.base import Deadline, FrameSink, ImageInfo, MediaType, VideoInfo
from gpuflow.codecs.images import decode_image
from gpuflow.codecs.pcm import Origin
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.ordered import OrderedSink, decode_in_order
from gpuflow.codecs.video.plan import DecodePlan
from gpuflow.codecs.video.source import PacketSource
from gpuflow.codecs.video.wholefile import WholeFile, whole_file
from gpuflow.codecs.videos import PacketDecoder, cpu_decoder
from gpuflow.config import Limits
from gpuflow.isolation.wire import AudioWanted, Clock
from gpuflow.media import Blob, Modality, block_bytes, lay_out
from gpuflow.memory import Lease, Slab
from gpuflow.ops.audio import to_rate


@dataclass(frozen=True, slots=True)
class Pixels:
    """``array``: ``(H, W, 3)`` or ``(H, W, 4)`` uint8. ``lease``: the block that holds it and nothing else, if any."""

    array: Any
    backend: str
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Sound:
    """``samples``: ``(channels, n)`` float32 at ``sample_rate``, int16 where ``AudioWanted.native`` gives that. ``lease``: the
    block that holds them and nothing else, if any."""

    samples: NDArray[Any]
    sample_rate: int
    origin: Origin
    lease: Lease | None = None


def decode_sound(data: bytes, kind: MediaType, wanted: AudioWanted, *, limits: Limits, deadline: Deadline) -> Sound:
    """Decode a section and bring it into the form that is wanted, wherever this runs; raises what ``decode_audio`` and
    ``to_rate`` do."""
    pcm = decode_audio(
        data, kind, limits=limits, deadline=deadline,
        start_seconds=wanted.start_seconds, duration_seconds=wanted.duration_seconds, stream=wanted.stream,
        native=wanted.native, mono=wanted.mono, zero_seconds=wanted.zero_seconds,
    )  # fmt: skip
    rate = pcm.origin.sample_rate
    samples = to_rate(pcm.samples, rate, wanted.sample_rate, mono=wanted.mono, limits=limits)
    return Sound(samples[:, : wanted.max_samples], wanted.sample_rate or rate, pcm.origin)


class Clip(Protocol):
    """An opened clip: ``plan`` once, then ``decode``."""

    info: VideoInfo
    pts_seconds: Sequence[float]
    key_indices: Sequence[int]
    file: WholeFile | None
    """The file, where it is here as a whole: not under isolation, nor while its bytes come."""

    def plan(self, indices: Sequence[int]) -> None:
        """Choose frames. Raises ``LimitExceeded``."""
        ...

    def decode(self, sink: ArraySink, decoder: PacketDecoder | None) -> tuple[int, ...]:
        """Decode them into ``sink``, by libavcodec or by a decoder that takes packets here, on this thread. When it ends,
        well or not, nobody writes to the sink's memory any more. Returns the frames that did not come out, ascending.

        Raises:
            CorruptMedia: not one came out.
        """
        ...

    def decode_in_order(self, sink: OrderedArraySink, decoder: PacketDecoder | None) -> None:
        """Likewise, in the order of display: the sink may have the decoding wait."""
        ...


class ArraySink(FrameSink, Protocol):
    """A ``FrameSink`` that also takes pictures as arrays, and may show where they belong."""

    @property
    def places(self) -> dict[int, int] | None:
        """Where frame ``n`` lies in the host slab, if it can be written there as ``(H, W, 3)`` uint8; else ``None``."""
        ...

    def take(self, index: int, rgb: NDArray[np.uint8]) -> None:
        """A picture that is an array, valid inside the call."""
        ...

    def repeat(self, index: int) -> None:
        """A picture was written to its place; copy it to where it is wanted again."""
        ...

    def mark_corrupt(self, index: int) -> None:
        """The picture that comes next by ``take`` or ``repeat`` is damaged; of one that is ``put`` its surface says so."""
        ...


class OrderedArraySink(ArraySink, OrderedSink, Protocol):
    """An ``ArraySink`` whose ``put`` and ``take`` may wait."""


class Decoder(Protocol):
    """Decodes one input. What it yields is valid inside the block."""

    def image(
        self, info: ImageInfo, frame: int, least_size: tuple[int, int] | None = None, *, in_slab: bool = False
    ) -> AbstractContextManager[Pixels]:
        """``in_slab``: the pixels are wanted in a lease of the host slab; others may lie anywhere."""
        ...

    def audio(self, wanted: AudioWanted) -> AbstractContextManager[Sound]: ...
    def clip(self) -> AbstractContextManager[Clip]: ...


class Decoding(Protocol):
    """A place where inputs are decoded."""

    @property
    def contended(self) -> bool:
        """Whether others wait for what a ``Decoder`` holds while it is not at work."""
        ...

    def begin(
        self, blob: Blob, kind: MediaType, modality: Modality, *, limits: Limits, deadline: Clock
    ) -> AbstractContextManager[Decoder]:
        """Everything that an input's decoding waits for before its own time runs. Raises what decoding raises."""
        ...


class InProcess:
    """``Decoding`` on the calling thread; the parts of a clip side by side on ``pool``, where there is one. ``slab``: for
    images that are wanted in one."""

    def __init__(self, pool: Executor | None = None, slab: Slab | None = None) -> None:
        self._pool = pool
        self._slab = slab

    @property
    def contended(self) -> bool:
        """Never: an open clip keeps nobody waiting; what decodes it may (see ``VideoDecoder``)."""
        return False

    @contextmanager
    def begin(
        self, blob: Blob, kind: MediaType, modality: Modality, *, limits: Limits, deadline: Clock
    ) -> Iterator[Decoder]:
        """See ``Decoding``."""
        yield _InProcessDecoder(blob.data, kind, limits, deadline, self._pool, self._slab)

    def clip_of(self, source: PacketSource, *, limits: Limits, deadline: Clock) -> Clip:
        """A clip that was opened already, of bytes that may still come."""
        return _InProcessClip(source, limits, deadline, self._pool)


class _InProcessDecoder:
    """``Decoder`` by the codecs themselves."""

    def __init__(
        self,
        data: bytes,
        kind: MediaType,
        limits: Limits,
        deadline: Clock,
        pool: Executor | None,
        slab: Slab | None,
    ) -> None:
        self._slab = slab
        self._data = data
        self._kind = kind
        self._limits = limits
        self._deadline = deadline
        self._pool = pool

    @contextmanager
    def image(
        self, info: ImageInfo, frame: int, least_size: tuple[int, int] | None = None, *, in_slab: bool = False
    ) -> Iterator[Pixels]:
        with ExitStack() as stack:
            leases: list[Lease] = []

            def place(shape: tuple[int, int, int]) -> Any:
                assert self._slab is not None
                specs = lay_out({"pixels": ("uint8", shape)})
                seconds = self._deadline.remaining_seconds
                leases.append(stack.enter_context(self._slab.allocate(block_bytes(specs), timeout_seconds=seconds)))
                return leases[0].array(specs[0])

            wanted = place if in_slab and self._slab is not None else None
            decoded = decode_image(self._data, info, frame=frame, least_size=least_size, place=wanted)
            yield Pixels(decoded.pixels, decoded.backend, leases[0] if leases else None)

    @contextmanager
    def audio(self, wanted: AudioWanted) -> Iterator[Sound]:
        yield decode_sound(self._data, self._kind, wanted, limits=self._limits, deadline=self._deadline)

    @contextmanager
    def clip(self) -> Iterator[Clip]:
        source = PacketSource.open(self._data, self._kind, limits=self._limits, deadline=self._deadline)
        yield _InProcessClip(source, self._limits, self._deadline, self._pool)


class _InProcessClip:
    """``Clip`` whose packets lie here."""

    def __init__(self, source: PacketSource, limits: Limits, deadline: Clock, pool: Executor | None) -> None:
        self.info = source.info
        self.pts_seconds: Sequence[float] = source.pts_seconds
        self.key_indices: Sequence[int] = source.key_indices
        self.file: WholeFile | None = whole_file(source.demuxed)
        self._source = source
        self._limits = limits
        self._deadline = deadline
        self._pool = pool
        self._plan: DecodePlan | None = None

    def plan(self, indices: Sequence[int]) -> None:
        """See ``Clip``."""
        self._plan = self._source.plan(indices, limits=self._limits)

    def decode(self, sink: ArraySink, decoder: PacketDecoder | None) -> tuple[int, ...]:
        """See ``Clip``."""
        if self._plan is None:
            raise ValueError("plan comes before decode")
        demuxed, info = self._source.demuxed, self._source.info
        return decode_frames(
            demuxed, info, self._plan, sink, decoder=decoder or cpu_decoder, deadline=self._deadline, pool=self._pool,
            max_packets=self._limits.max_decoded_frames,
        )  # fmt: skip

    def decode_in_order(self, sink: OrderedArraySink, decoder: PacketDecoder | None) -> None:
        """See ``Clip``."""
        if self._plan is None:
            raise ValueError("plan comes before decode")
        demuxed, info = self._source.demuxed, self._source.info
        decode_in_order(
            demuxed, info, self._plan, sink, decoder=decoder or cpu_decoder, deadline=self._deadline, pool=self._pool,
            max_packets=self._limits.max_decoded_frames, arrival=demuxed.arrival,
        )  # fmt: skip
