"""Decoding in worker processes. A block that a worker writes to is given back only when that worker is done, or dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from gpuflow.codecs.base import ImageInfo, MediaType
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.ordered import decode_in_order
from gpuflow.codecs.video.plan import DecodePlan
from gpuflow.codecs.video.wholefile import WholeFile
from gpuflow.codecs.videos import PacketDecoder
from gpuflow.config import Limits
from gpuflow.errors import DeadlineExceeded, DecoderCrashed, LimitExceeded
from gpuflow.isolation import wire
from gpuflow.isolation.decoding import ArraySink, Clip, Decoder, OrderedArraySink, Pixels, Sound
from gpuflow.isolation.packets import BLOCK_BYTES, HandedStream
from gpuflow.isolation.plausible import check_clip, check_frame, check_pixels, check_plan, check_sound
from gpuflow.isolation.pool import DecoderPool
from gpuflow.isolation.process import WorkerProcess
from gpuflow.isolation.wire import AudioWanted, Clock, Disconnected
from gpuflow.media import Blob, Modality, TensorSpec, block_bytes, lay_out
from gpuflow.memory import Lease, Slab
from gpuflow.observe import log

_GRACE_SECONDS = 0.5  # for a worker that was told to stop, until it is killed
_SLOTS = 3  # one that is written, one that is read, one between
_T = TypeVar("_T")
GiveUp = Callable[[Collection[int]], None]


class Isolated:
    """``Decoding`` in the workers of a pool, into ``slab``. ``limits`` are the operator's: a request's own may be lower,
    and an input is not to blame for those."""

    def __init__(self, pool: DecoderPool, slab: Slab, *, limits: Limits | None = None) -> None:
        self._pool = pool
        self._slab = slab
        self._limits = limits or Limits()

    @property
    def contended(self) -> bool:
        """See ``Decoding``: jobs wait for a worker."""
        return self._pool.queued > 0

    @contextmanager
    def begin(
        self, blob: Blob, kind: MediaType, modality: Modality, *, limits: Limits, deadline: Clock
    ) -> Iterator[Decoder]:
        """See ``Decoding``: waits for a worker.

        Raises:
            DecoderCrashed: this input killed a worker not long ago, or does now.
            Overloaded, BackendUnavailable, DeadlineExceeded, Closed: as ``DecoderPool.worker``.
        """
        self._pool.quarantine.check(blob.content_hash)
        with self._pool.worker(deadline) as worker:
            full_seconds = self._limits.decode_seconds(modality)
            yield _RemoteDecoder(self._pool, worker, self._slab, blob, kind, limits, deadline, full_seconds)


class _RemoteDecoder:
    """``Decoder`` by one worker: each call is a conversation with it."""

    def __init__(
        self,
        pool: DecoderPool,
        worker: WorkerProcess,
        slab: Slab,
        blob: Blob,
        kind: MediaType,
        limits: Limits,
        deadline: Clock,
        full_seconds: float,
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._slab = slab
        self._blob = blob
        self._kind = kind
        self.limits = limits
        self.deadline = deadline
        self._full_seconds = full_seconds
        self._open = False  # a conversation is under way
        self._started = 0.0

    @contextmanager
    def image(
        self, info: ImageInfo, frame: int, least_size: tuple[int, int] | None = None, *, in_slab: bool = False
    ) -> Iterator[Pixels]:
        """See ``Decoder``. The pixels always lie in a lease of their own."""
        with self._conversation(wire.ImageJob(*self._common(), info, frame, least_size)):
            found = self._answer(wire.Pixels)
            check_pixels(found, info, least_size)
            spec = lay_out({"pixels": ("uint8", (found.height, found.width, found.channels))})
            with self._filled(spec) as lease:
                self._finish()
                yield Pixels(lease.array(spec[0]), found.backend, lease)

    @contextmanager
    def audio(self, wanted: AudioWanted) -> Iterator[Sound]:
        """See ``Decoder``. The samples lie in a lease of their own."""
        with self._conversation(wire.AudioJob(*self._common(), wanted)):
            found = self._answer(wire.Sound)
            check_sound(found, wanted, self.limits)
            spec = lay_out({"waveform": (found.dtype, found.shape)})
            with self._filled(spec) as lease:
                self._finish()
                yield Sound(lease.array(spec[0]), found.sample_rate, found.origin, lease)

    @contextmanager
    def clip(self) -> Iterator[Clip]:
        """See ``Decoder``."""
        with self._conversation(wire.VideoJob(*self._common())):
            found = self._answer(wire.Opened)
            check_clip(found, self.limits)
            yield _RemoteClip(self, found, self._slab)

    def plan(self, indices: Sequence[int]) -> DecodePlan:
        """What is to be decoded for these frames of an opened clip."""
        found = self.ask(wire.Plan(tuple(indices)), wire.Planned)
        check_plan(found, set(indices), self.limits)
        return DecodePlan(found.segments)

    @contextmanager
    def handed(self) -> Iterator[HandedStream]:
        """The packets of an opened clip, valid inside the block."""
        spec = lay_out({"packets": ("uint8", (BLOCK_BYTES,))})
        with self.lease(spec) as lease:
            try:
                yield HandedStream(self.ask, lease.array(spec[0]), lease.offset, len(self._blob.data))
            finally:
                self.end()

    def ask(self, order: Any, kind: type[_T]) -> _T:
        """Send an order and wait for its answer."""
        self.send(order)
        return self._answer(kind)

    def send(self, order: Any) -> None:
        """Send an order."""
        self._worker.channel.send(order, self.deadline)

    def receive(self) -> Any:
        """The next answer; ``Done`` and ``Failed`` end the conversation.

        Raises:
            GpuflowError: the worker's own.
        """
        answer = self._worker.channel.receive(self.deadline)
        if isinstance(answer, (wire.Done, wire.Failed)):
            self._open = False
        if isinstance(answer, wire.Failed):
            raise answer.error()
        return answer

    def lease(self, specs: tuple[TensorSpec, ...]) -> AbstractContextManager[Lease]:
        """A block of the shared slab.

        Raises:
            LimitExceeded: it is larger than the slab, so that waiting does not help.
        """
        if block_bytes(specs) > self._slab.nbytes:
            raise LimitExceeded(f"decoding takes {block_bytes(specs)} bytes; the slab has {self._slab.nbytes}")
        return self._slab.allocate(block_bytes(specs), timeout_seconds=self.deadline.remaining_seconds)

    def end(self) -> None:
        """Have nobody write any more: the worker ends its conversation, or is killed."""
        if not self._open:
            return
        patience = _Grace(_GRACE_SECONDS)
        try:
            self._worker.channel.send(wire.Stop(), patience)
            while not isinstance(self._worker.channel.receive(patience), (wire.Done, wire.Failed)):
                pass
        except Disconnected:
            self._kill() if self._worker.channel.torn else self._worker.bury()
        except DeadlineExceeded:
            self._kill()
        self._open = False

    def _common(self) -> tuple[int, MediaType, Limits, float]:
        return len(self._blob.data), self._kind, self.limits, self.deadline.remaining_seconds

    @contextmanager
    def _conversation(self, job: wire.Job) -> Iterator[None]:
        """From a job to ``Done``; whatever happens in between, the worker writes nothing after it."""
        self._open, self._started = True, time.monotonic()
        try:
            self._worker.channel.send(job, self.deadline, self._blob.data)
            yield
        except Disconnected as error:
            how = self._worker.bury()
            self._open = False
            self._pool.quarantine.add(self._blob.content_hash, certain=self._worker.jobs == 0)
            self._pool.counters.add("gpuflow_decode_workers_crashed_total")
            log.warning("a decode worker ended in its job (%s): %s", how, error)
            raise DecoderCrashed(f"a decode worker ended on this input ({how})") from error
        finally:
            self.end()

    def _answer(self, kind: type[_T]) -> _T:
        answer = self.receive()
        if not isinstance(answer, kind):
            raise Disconnected(f"the worker answers with {type(answer).__name__}")
        return answer

    @contextmanager
    def _filled(self, specs: tuple[TensorSpec, ...]) -> Iterator[Lease]:
        """A lease that the worker is told to write to. It is kept until the worker cannot write any more."""
        with self.lease(specs) as lease:
            try:
                self.send(wire.Put(lease.offset))
                yield lease
            finally:
                self.end()

    def _finish(self) -> None:
        self._answer(wire.Done)

    def _kill(self) -> None:
        """It does not stop when told to. An input that had all of its time and did not end is not tried again."""
        how = self._worker.kill()
        self._pool.counters.add("gpuflow_decode_workers_killed_total")
        log.warning("a decode worker did not stop in time and was ended (%s)", how)
        if time.monotonic() - self._started >= self._full_seconds:
            self._pool.quarantine.add(self._blob.content_hash)


class _RemoteClip:
    """``Clip`` whose packets lie in a worker."""

    def __init__(self, decoder: _RemoteDecoder, opened: wire.Opened, slab: Slab) -> None:
        self.info = opened.info
        self.pts_seconds: Sequence[float] = opened.pts_seconds
        self.key_indices: Sequence[int] = opened.key_indices
        self.file: WholeFile | None = None
        self._decoder = decoder
        self._slab = slab
        self._wanted: set[int] = set()
        self._missing: set[int] = set()
        self._plan: DecodePlan | None = None

    def plan(self, indices: Sequence[int]) -> None:
        """See ``Clip``."""
        self._wanted = set(indices)
        self._plan = self._decoder.plan(indices)

    def decode(self, sink: ArraySink, decoder: PacketDecoder | None) -> tuple[int, ...]:
        """See ``Clip``: in the worker, or by a decoder here to which the worker hands packets."""
        try:
            if decoder is not None:
                return self._here(sink, decoder)
            if (places := sink.places) is not None:
                self._direct(sink, places)
            else:
                self._through_slots(sink)
            return tuple(sorted(self._missing))
        finally:
            self._decoder.end()

    def decode_in_order(self, sink: OrderedArraySink, decoder: PacketDecoder | None) -> None:
        """See ``Clip``. Each frame goes through a slot: the block that it belongs to may not be there yet."""
        try:
            if decoder is None:
                self._through_slots(sink, sink.give_up)
                return
            if self._plan is None:
                raise ValueError("plan comes before decode")
            with self._decoder.handed() as stream:
                decode_in_order(
                    stream, self.info, self._plan, sink, decoder=decoder, deadline=self._decoder.deadline,
                    max_packets=self._decoder.limits.max_decoded_frames,
                )  # fmt: skip
        finally:
            self._decoder.end()

    def _here(self, sink: ArraySink, decoder: PacketDecoder) -> tuple[int, ...]:
        """Packets by way of a block to a decoder of this process, which reads no container."""
        if self._plan is None:
            raise ValueError("plan comes before decode")
        with self._decoder.handed() as stream:
            return decode_frames(
                stream, self.info, self._plan, sink, decoder=decoder, deadline=self._decoder.deadline,
                max_packets=self._decoder.limits.max_decoded_frames,
            )  # fmt: skip

    def _direct(self, sink: ArraySink, places: dict[int, int]) -> None:
        """Each frame straight to its place in the result."""
        self._decoder.send(wire.Decode(places, ()))
        for frame in self._frames():
            if frame.corrupt:
                sink.mark_corrupt(frame.index)
            sink.repeat(frame.index)

    def _through_slots(self, sink: ArraySink, give_up: GiveUp | None = None) -> None:
        """Frames by way of a few slots: what is done to one here is done while the next is decoded."""
        spec = lay_out({f"frame {n}": ("uint8", (*self.info.displayed_size, 3)) for n in range(_SLOTS)})
        with self._decoder.lease(spec) as lease:
            try:
                slots = {lease.offset + part.offset: lease.array(part) for part in spec}
                self._decoder.send(wire.Decode({}, tuple(slots), give_up is not None))
                for frame in self._frames(give_up):
                    if frame.offset not in slots:
                        raise Disconnected("the worker has written somewhere else")
                    height, width = check_frame(frame, self.info)
                    place = slots[frame.offset].reshape(-1)[: 3 * height * width]
                    if frame.corrupt:
                        sink.mark_corrupt(frame.index)
                    sink.take(frame.index, place.reshape(height, width, 3))
                    self._decoder.send(wire.Free(frame.offset))
            finally:
                self._decoder.end()

    def _frames(self, give_up: GiveUp | None = None) -> Iterator[wire.Frame]:
        """Frames as they come. With ``give_up`` they come in order, and those that do not are told of in their turn."""
        missing = self._missing = set(self._wanted)
        given_up: set[int] = set()
        while not isinstance(answer := self._decoder.receive(), wire.Done):
            if isinstance(answer, wire.Missing) and give_up is not None and missing.issuperset(answer.indices):
                given_up.update(answer.indices)
                give_up(answer.indices)
                continue
            if not isinstance(answer, wire.Frame) or answer.index not in missing:
                raise Disconnected("the worker answers with a frame that nobody asked for")
            missing.discard(answer.index)
            yield answer
        told = sorted(missing) == sorted(answer.missing) and (give_up is None or missing == given_up)
        if not told or (give_up is None and missing == self._wanted):
            raise Disconnected("the worker ends and leaves frames out")


class _Grace:
    """A clock of so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    @property
    def remaining_seconds(self) -> float:
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        if self.remaining_seconds == 0:
            raise DeadlineExceeded("the worker did not stop")
