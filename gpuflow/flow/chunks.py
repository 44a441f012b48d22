"""Video from bytes to chunks of placed frames: as ``flow.video``, but block by block, on a thread that may wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from gpuflow.codecs.base import Surface
from gpuflow.codecs.video.arrival import Uncertain
from gpuflow.config import VideoOptions
from gpuflow.errors import CorruptMedia, GpuflowError, InvalidOptions, LimitExceeded, SlabExhausted
from gpuflow.flow.clip_inputs import ClipInput
from gpuflow.flow.context import LoadContext, check_resize
from gpuflow.flow.frames import Delivery
from gpuflow.flow.preload import preload
from gpuflow.flow.turns import Turn
from gpuflow.flow.video import Chosen, Placing, choose_decoder, describe_frames, frames_shape, target_size
from gpuflow.flow.video_dali import refuse_dali
from gpuflow.isolation.decoding import Clip
from gpuflow.media import FrameChunk, Stage, TensorSpec, block_bytes, lay_out
from gpuflow.memory import Lease
from gpuflow.ops.frames import settle
from gpuflow.sampling import choose_indices

_ROOM_SECONDS = 0.5


class GaveWay(GpuflowError):
    """Nobody took what was decoded, while others waited for the decoder: go on later. Never seen outside."""


def load_chunks(
    source: ClipInput, options: VideoOptions, size: int, context: LoadContext, delivery: Delivery, turn: Turn
) -> None:
    """Decode the wanted frames and deliver them in chunks of ``size``; blocking.

    The clip is read once where frames are wanted in the order of display; otherwise once a chunk. Frames that are damaged
    are left out of their chunk, or marked, and named there, unless ``strict``; a chunk may be empty then. The last one is delivered
    when all bytes have come, of a body that is fetched whole.

    Raises:
        InvalidOptions: the options name a preset, or want sound.
        GpuflowError: as ``load_video``; ``LimitExceeded`` by ``Limits.max_output_bytes`` where one chunk is too large.
    """
    if options.preset is not None:
        raise InvalidOptions("a preset makes features of all frames together: use load")
    if options.audio is not None:
        raise InvalidOptions("chunks are of frames alone: load the sound by AudioOptions, or both by load")
    preload("video", on_gpu=context.device.is_cuda, resize=options.size is not None, dali=False)
    chunks = Chunks(options, size, context, delivery, turn, source)
    try:
        while not chunks.complete:
            try:
                with source.opened(context) as clip:
                    chunks.decode_from(clip)
                source.settle()
                chunks.deliver()
            except GaveWay:
                chunks.wait_without_decoder()
            except Uncertain:
                source.complete()
        chunks.require_some()
    finally:
        chunks.close()


@dataclass(frozen=True, slots=True)
class _Block:
    """A chunk that is being filled."""

    lease: Lease
    specs: tuple[TensorSpec, ...]
    placing: Placing


class Chunks:
    """``OrderedArraySink`` that fills one block after another and delivers those that are complete.

    Blocks are begun on one thread; pictures may be put from several.
    """

    def __init__(
        self,
        options: VideoOptions,
        size: int,
        context: LoadContext,
        delivery: Delivery,
        turn: Turn,
        source: ClipInput,
    ) -> None:
        self._options = options
        self._size = size
        self._context = context
        self._delivery = delivery
        self._turn = turn
        self._bytes = source
        self._told = source.content_hash is not None
        self._lock = threading.Lock()
        self._parts: list[tuple[int, ...]] | None = None
        self._expected: list[set[int]] = []  # by chunk
        self._lost: list[set[int]] = []
        self._blocks: dict[int, _Block] = {}
        self._chosen: Chosen | None = None
        self._next = 0  # to be delivered
        self._blocked = 0  # the block that could not be begun
        self._in_order = True
        self._decoding = range(0)  # chunks: those after them may want the same frame, and are not begun for it
        self._since = time.perf_counter()

    @property
    def complete(self) -> bool:
        """Whether every chunk was delivered."""
        return self._parts is not None and self._next == len(self._parts)

    def decode_from(self, clip: Clip) -> None:
        """Decode what is expected: all of it, or the next chunk where the frames are wanted in another order.

        Raises:
            CorruptMedia: a frame did not come out, with ``strict``.
        """
        chosen = self._chosen = self._choose(clip)
        self._decoding = range(self._next, len(self._expected) if self._in_order else self._next + 1)
        expected = set[int]().union(*(self._expected[number] for number in self._decoding))
        clip.plan(sorted(expected))
        if expected:
            clip.decode_in_order(self, chosen.on_gpu)

    def require_some(self) -> None:
        """Raise ``CorruptMedia`` when no frame came out of the whole clip."""
        chosen, lost = self._of_clip(), set[int]().union(*self._lost)
        if lost.issuperset(chosen.indices):
            raise CorruptMedia(chosen.loss(sorted(lost)))

    def wait_without_decoder(self) -> None:
        """Wait until the block may be begun for which decoding gave way."""
        with self._turn.given_up():
            self._wait(self._blocked, self._context.deadline.check)

    def close(self) -> None:
        """Release what was begun and not delivered; nobody writes to it any more."""
        with self._lock:
            blocks, self._blocks = self._blocks, {}
        for block in blocks.values():
            block.lease.release()

    def make_room(self, indices: Collection[int]) -> bool:
        """See ``OrderedSink``."""
        numbers = {number for index in indices for number in self._chunks_of(index)}
        if not all(self._delivery.has_room(number) for number in numbers):
            return False
        for number in sorted(numbers):
            self._block(number)
        return True

    def put(self, index: int, surface: Surface) -> None:
        """See ``FrameSink``."""
        if surface.corrupt:
            self.mark_corrupt(index)
        for number in self._chunks_of(index):
            block = self._block(number)
            block.placing.put(index, surface)
            self._placed(number, index, block)

    def take(self, index: int, rgb: Any) -> None:
        """See ``ArraySink``."""
        for number in self._chunks_of(index):
            block = self._block(number)
            block.placing.take(index, rgb)
            self._placed(number, index, block)

    def mark_corrupt(self, index: int) -> None:
        """See ``ArraySink``."""
        if self._options.strict:
            raise CorruptMedia(self._of_clip().loss([index]))
        for number in self._chunks_of(index):
            self._block(number).placing.mark_corrupt(index)

    def give_up(self, indices: Collection[int]) -> None:
        """See ``OrderedSink``."""
        chosen = self._of_clip()
        if self._options.strict:
            raise CorruptMedia(chosen.loss(sorted(indices)))
        for index in sorted(indices):
            for number in self._chunks_of(index):
                block = self._block(number)
                self._lost[number].add(index)
                self._placed(number, index, block)

    @property
    def places(self) -> None:
        """See ``ArraySink``: blocks are begun as they are needed."""
        return None

    def repeat(self, index: int) -> None:
        """See ``ArraySink``: no frame is written to its place."""
        raise AssertionError("frames go through slots")

    def _choose(self, clip: Clip) -> Chosen:
        """What is wanted of an opened clip; of one that is opened again, the same. What its header said wrongly is chosen
        again, unless a chunk was delivered already."""
        if self._chosen is not None:
            same_frames = list(clip.pts_seconds) == list(self._chosen.clip.pts_seconds)
            if same_frames and tuple(self._indices(clip)) == self._chosen.indices:
                return replace(self._chosen, clip=clip)
            if not same_frames or self._next:
                raise CorruptMedia("the frames are others than the header said that came first")
            self.close()
        options, limits = self._options, self._context.limits
        with self._context.stage("probe"):
            indices = self._indices(clip)
            check_resize(clip.info.displayed_size, target_size(clip.info, options), limits)
            refused = refuse_dali(options, "DALI gives no chunks", self._context)
            on_gpu, fallback = choose_decoder(clip, self._context)
            chosen = Chosen(clip, tuple(indices), on_gpu, refused or fallback)
        self._in_order = indices == sorted(indices)
        self._parts = [tuple(indices[at : at + self._size]) for at in range(0, len(indices), self._size)]
        self._expected = [set(part) for part in self._parts]
        self._lost = [set() for _ in self._parts]
        self._since = time.perf_counter()
        return chosen

    def _indices(self, clip: Clip) -> list[int]:
        return choose_indices(
            self._options,
            pts_seconds=clip.pts_seconds,
            duration_seconds=clip.info.duration_seconds,
            max_frames=self._context.limits.max_video_frames,
            fps=clip.info.nominal_fps or clip.info.fps,
            key_indices=clip.key_indices,
        )

    def _of_clip(self) -> Chosen:
        if self._chosen is None:
            raise ValueError("the clip is not open")
        return self._chosen

    def _chunks_of(self, index: int) -> list[int]:
        with self._lock:
            return [number for number in self._decoding if index in self._expected[number]]

    def _block(self, number: int) -> _Block:
        if (block := self._blocks.get(number)) is not None:
            return block
        if self._delivery.must_wait(number):
            self._blocked = number
            with self._turn.given_up(self._give_way):
                self._wait(number, self._give_way)
        chosen = self._of_clip()
        info, part = chosen.clip.info, (self._parts or [])[number]
        specs = lay_out({"frames": (self._options.dtype or "uint8", frames_shape(info, self._options, len(part)))})
        lease = self._lease(block_bytes(specs))
        try:
            placing = Placing(info, self._options, part, lease, specs[0], on_host=chosen.on_gpu is None)
        except BaseException:
            lease.release()
            raise
        block = self._blocks[number] = _Block(lease, specs, placing)
        return block

    def _lease(self, nbytes: int) -> Lease:
        context = self._context
        if nbytes > context.limits.max_output_bytes:
            raise LimitExceeded(
                f"a chunk would take {nbytes} bytes; Limits.max_output_bytes is {context.limits.max_output_bytes}"
            )
        try:
            return context.slab.allocate(nbytes)
        except SlabExhausted:
            if nbytes > context.slab.nbytes:
                raise
        lease = None
        try:
            with self._turn.given_up(self._give_way):
                lease = self._lease_later(nbytes)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        return lease

    def _lease_later(self, nbytes: int) -> Lease:
        """A block once there is room. The wait is in steps: nobody wakes it when the consumer leaves."""
        slab, deadline = self._context.slab, self._context.deadline
        while True:
            try:
                return slab.allocate(nbytes, timeout_seconds=min(_ROOM_SECONDS, deadline.remaining_seconds))
            except SlabExhausted:
                if deadline.remaining_seconds == 0:
                    raise
                self._give_way()

    def _wait(self, number: int, check: Callable[[], None]) -> None:
        while self._delivery.must_wait(number):
            check()
            self._delivery.pause()

    def _give_way(self) -> None:
        """Leave the decoder to those who wait for it: one of them may hold the permit that this thread waits for."""
        self._context.deadline.check()
        on_gpu = self._of_clip().on_gpu
        if self._context.decoding.contended or (on_gpu is not None and on_gpu.contended):
            raise GaveWay

    def _placed(self, number: int, index: int, block: _Block) -> None:
        settle(block.lease)
        with self._lock:
            self._expected[number].discard(index)
        self.deliver()

    def deliver(self) -> None:
        """Deliver what is complete and next; the last chunk with the hash of all bytes."""
        with self._lock:
            while self._next in self._blocks and not self._expected[self._next]:
                if self._next == len(self._expected) - 1 and not self._bytes.settled:
                    return
                self._deliver(self._next, self._blocks.pop(self._next))
                self._next += 1

    def _deliver(self, number: int, block: _Block) -> None:
        chosen, parts, lost = self._of_clip(), self._parts or [], self._lost[number]
        is_last = number == len(parts) - 1
        came_out, specs = tuple(index for index in parts[number] if index not in lost), block.specs
        try:
            if lost:
                specs = (block.placing.close_gaps(came_out),)
            block.lease.synchronize()
            block.lease.seal()
        except BaseException:
            block.lease.release()
            raise
        self._delivery.offer(
            FrameChunk(
                block.lease,
                specs,
                describe_frames(chosen, came_out, sorted(lost), self._options, block.placing.corrupt),
                index=number,
                is_last=is_last,
                backend=chosen.backend,
                fallback=chosen.fallback,
                stages=self._stages(),
                content_hash=self._bytes.content_hash if is_last or self._told else None,
            )
        )

    def _stages(self) -> tuple[Stage, ...]:
        """What was done since the chunk before."""
        since, self._since = self._since, time.perf_counter()
        before, self._context.stages = self._context.stages, []
        return (*before, Stage("decode", since, self._since - since))
