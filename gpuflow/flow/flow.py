"""The engine: source -> fetch -> decode -> transform -> place, for many sources at once, bounded everywhere."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

from gpuflow.codecs.canary import Canary, canary
from gpuflow.codecs.videos import SEGMENT_THREADS, close_idle
from gpuflow.config import FetchPolicy, Limits, NvdecPolicy, VideoOptions
from gpuflow.device import Device, choose
from gpuflow.errors import Closed, DeadlineExceeded, GpuflowError, InvalidOptions, Overloaded
from gpuflow.fetch import ByteBudget, Fetcher, RangedBody
from gpuflow.flow.chunks import load_chunks
from gpuflow.flow.clip_inputs import ClipInput, GrowingClip, WholeClip
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.decode_workers import DecodeWorkers, Found
from gpuflow.flow.device_batches import DeviceBatches
from gpuflow.flow.dispatch import load_blob
from gpuflow.flow.frames import Delivery, cancelled, stream_chunks
from gpuflow.flow.image import quick_info
from gpuflow.flow.messages import all_or_none, options_of, sources_of
from gpuflow.flow.request import OptionsLike, modality_of, require_counts, resolve
from gpuflow.flow.streaming import stream_outcomes
from gpuflow.flow.turns import Turn, WorkDeadline
from gpuflow.isolation.decoding import Decoding, InProcess
from gpuflow.isolation.pool import DecoderPool
from gpuflow.isolation.remote import Isolated
from gpuflow.media import (
    Blob,
    FrameChunk,
    Media,
    Modality,
    Outcome,
    Source,
    Stage,
)
from gpuflow.memory import Slab, SlabStatistics
from gpuflow.observe import Counters, Values, log, merged
from gpuflow.workers import is_calm, worker_pool

_MAX_STREAMS = 64  # of frames: a thread each, which holds no decode worker while it waits
Isolation = Literal["none", "process"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one load may take: its limits, its time, and bytes that it shares with the other parts of its request."""

    limits: Limits
    deadline: Deadline
    budget: ByteBudget | None


class Flow:
    """Loads media. One slab a device; fetches run on the event loop, decoding on its own worker threads.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; ``auto`` may fall back to the CPU and says so on
            every result, ``cuda`` never does.
        limits: what is allowed; a mapping keeps the defaults of the fields it does not name.
        fetch: where media may come from; likewise.
        slab_bytes: size of the memory that results lie in.
        workers: decode threads; as many as the process may use cores by default.
        max_pending: loads admitted at once; further ones raise ``Overloaded``. ``None``: they wait for their deadline.
        isolation: where containers are read and media decoded on the CPU: ``"none"``, on this process's threads, or
            ``"process"``, in as many sandboxed processes (``gpuflow.isolation``), which a service wants.
        nvdec: how a GPU's video decoder is used.

    Raises:
        BackendUnavailable: ``cuda`` was asked for and cannot be used.
        InvalidOptions: an argument is out of range.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        limits: Limits | Mapping[str, Any] | None = None,
        fetch: FetchPolicy | Mapping[str, Any] | None = None,
        slab_bytes: int | str = "1GiB",
        workers: int | None = None,
        max_pending: int | None = None,
        isolation: Isolation = "none",
        nvdec: NvdecPolicy | Mapping[str, Any] | None = None,
    ) -> None:
        if isolation not in ("none", "process"):
            raise InvalidOptions(f"isolation is 'none' or 'process'; got {isolation!r}")
        require_counts(workers=workers, max_pending=max_pending)
        self.limits = limits if isinstance(limits, Limits) else Limits.from_mapping(limits)
        self.fetch_policy = fetch if isinstance(fetch, FetchPolicy) else FetchPolicy.from_mapping(fetch)
        self.nvdec = nvdec if isinstance(nvdec, NvdecPolicy) else NvdecPolicy.from_mapping(nvdec)
        self.device: Device = choose(device)
        self.counters = Counters()
        self._canary: Canary | None = canary(self.device.index) if self.device.is_cuda else None
        self._batches: DeviceBatches | None = None
        if self.device.is_cuda:
            self._batches = DeviceBatches.of(self.device.index, self.counters)
        self._fetcher = Fetcher(self.fetch_policy, self.limits)
        shared = isolation == "process"
        # on the CPU no GPU reads it: not pinned, and so no CUDA context either
        self.slab = Slab(slab_bytes, device=self.device, pin=False, shared=shared)
        self._asked = device
        self._host_slab = Slab(slab_bytes, shared=shared) if self.device.is_cuda else self.slab
        self._workers = DecodeWorkers(workers or len(os.sched_getaffinity(0)))
        self.decoders = (
            DecoderPool(
                self._host_slab,
                workers=self._workers.number,
                threads_per_worker=self._workers.number,
                counters=self.counters,
            )
            if shared
            else None
        )
        segment_threads = max(self._workers.number, SEGMENT_THREADS if self.device.is_cuda else 1)
        self._segment_pool = worker_pool(segment_threads, "gpuflow-segment")
        self._stream_pool = worker_pool(_MAX_STREAMS, "gpuflow-stream")
        self._stream_places = asyncio.Semaphore(_MAX_STREAMS)
        self._decoding: Decoding = (
            Isolated(self.decoders, self._host_slab, limits=self.limits)
            if self.decoders
            else InProcess(self._segment_pool, self._host_slab)
        )
        self._max_pending = max_pending
        self._pending_bytes = 0
        self._pending_lock = threading.Lock()
        self._deadlines: set[Deadline] = set()  # of the loads that are pending
        self._closed = False

    async def load(
        self,
        source: object,
        *,
        options: OptionsLike = None,
        modality: Modality | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Media:
        """Load one medium; release it, or use it as a context manager.

        Args:
            source: URL, ``data:`` URI, ``pathlib.Path``, bytes, binary file, OpenAI content part, or ``Source``. A
                bare string is never a path here.
            options: ``ImageOptions``, ``VideoOptions`` or ``AudioOptions``, or their JSON form.
            modality: what the bytes must be, where neither the options nor the source say; sniffed otherwise.
            limits: the request's own, by name; they only ever lower the flow's.

        Returns:
            ``Image``, ``Frames``, ``Waveform`` or ``Features``, on this flow's device.

        Raises:
            GpuflowError: one of its subclasses, see ``gpuflow.errors``.
        """
        return await self._admitted(Source.of(source, modality=modality), options, self.limits.lowered(limits))

    def load_here(
        self,
        source: object,
        *,
        options: OptionsLike = None,
        modality: Modality | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Media | None:
        """``load`` for a thread that waits, without the event loop: of bytes that are here, while a worker is free and no
        device has a part in it; ``None`` elsewhere. A thread on which torch has no others loads a small image itself;
        elsewhere there are two changes of threads instead of four.

        Raises:
            GpuflowError: as ``load``.
        """
        origin = Source.of(source, modality=modality)
        if origin.kind != "bytes" or self._batches is not None or not self._workers.permits.free:
            return None
        lowered = self.limits.lowered(limits)
        bounds = Bounds(lowered, Deadline(lowered.deadline_seconds), None)
        known, wanted = resolve(origin, options)
        with self._admission(bounds.deadline), self._holding(len(origin.value)):
            started = time.perf_counter()
            blob = self._fetcher.of_bytes(origin.value, limit=lowered.max_bytes(known))
            fetched = Stage("fetch", started, time.perf_counter() - started)
            context = self._context(bounds)
            info = quick_info(blob, wanted, lowered) if is_calm() else None
            begin = partial(load_blob, blob, known, wanted, context, info=info)
            media = self._workers.work_here(
                begin, partial(self._run, context), bounds.deadline, itself=info is not None
            )
        return None if media is None else self._finished(media, fetched)

    async def load_messages(
        self,
        messages: object,
        *,
        media_io_kwargs: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> list[Media]:
        """Load every medium of OpenAI chat messages; release each. All or none: one that fails ends the others.

        Args:
            messages: ``[{"role": ..., "content": [{"type": "image_url", ...}, {"type": "text", ...}]}]``.
            media_io_kwargs: options by modality, ``{"video": {"fps": 1.0}}``.
            limits: the request's own, by name; they only ever lower the flow's.

        Returns:
            The media in the order of their parts.

        Raises:
            TooLarge: more parts of a modality than ``Limits`` allow, known before anything is fetched; or more than
                ``Limits.max_request_bytes`` in all of them together.
            GpuflowError: as ``load``; the first to fail.
        """
        lowered, options = self.limits.lowered(limits), options_of(media_io_kwargs)
        sources, budget = sources_of(messages, lowered), ByteBudget(lowered.max_request_bytes)
        return await all_or_none(
            [self._admitted(source, options[source.modality], lowered, budget) for source in sources if source.modality]
        )

    async def _admitted(
        self, source: Source, options: OptionsLike, limits: Limits, budget: ByteBudget | None = None
    ) -> Media:
        """Load one medium if there is room for one more."""
        deadline = Deadline(limits.deadline_seconds)
        with self._admission(deadline):
            return await self._load(source, options, Bounds(limits, deadline, budget))

    @contextmanager
    def _admission(self, deadline: Deadline) -> Iterator[None]:
        """A place among the loads that are pending, if there is one; errors are counted."""
        if self._closed:
            raise Closed("the flow is closed")
        if self._max_pending is not None and len(self._deadlines) >= self._max_pending:
            raise Overloaded(f"{len(self._deadlines)} loads are pending; max_pending is {self._max_pending}")
        self._deadlines.add(deadline)
        try:
            if self._canary is not None:
                self._canary.require_alive()
            yield
        except GpuflowError as error:
            ended = isinstance(error, DeadlineExceeded) and self._closed  # by ``aclose``: no medium was slow
            self.counters.add("gpuflow_errors_total", code=Closed.code if ended else error.code)
            if ended:
                raise Closed("the flow was closed while this was loaded") from error
            raise
        finally:
            self._deadlines.discard(deadline)

    def stream(
        self,
        sources: Iterable[object] | AsyncIterable[object],
        *,
        options: OptionsLike = None,
        max_in_flight: int = 16,
        ordered: bool = False,
    ) -> AsyncIterator[Outcome]:
        """Load many: an ``Outcome`` each, in the order in which they end unless ``ordered``.

        At most ``max_in_flight`` sources are taken ahead of the consumer. An error is an outcome and stops nothing.
        Leaving the loop early cancels what is under way and releases what nobody took.

        Raises:
            InvalidOptions: ``max_in_flight`` is below 1.
        """
        if max_in_flight < 1:
            raise InvalidOptions(f"max_in_flight is 1 or more; got {max_in_flight}")

        async def load(source: object) -> Media:
            return await self.load(source, options=options)

        return stream_outcomes(load, sources, max_in_flight=max_in_flight, ordered=ordered)

    def frames(
        self,
        source: object,
        *,
        chunk: int = 16,
        options: VideoOptions | Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        ahead: int = 2,
    ) -> AsyncIterator[FrameChunk]:
        """The frames that ``load`` would give, in its order, in chunks of at most ``chunk``, each as soon as it is
        decoded and in a block of its own: release it.

        At most ``ahead`` chunks are decoded before the consumer takes them. Leaving the loop early frees everything
        that was not taken, at once where the iterator is closed (``contextlib.aclosing``). An error comes after the
        chunks before it, which stay valid. ``Limits.max_output_bytes`` is of one chunk, ``video_seconds`` of decoding
        alone; ``deadline_seconds`` runs while the consumer works, too.

        Without isolation an MP4 or MOV from the network is decoded while it comes, where its header comes first
        (``codecs.video.progressive``); then only the last chunk has a ``content_hash``, and comes when all bytes did. With
        ``FetchPolicy.range_bytes`` only the parts are fetched that the frames need, and no chunk has one.

        Raises:
            InvalidOptions: ``chunk`` or ``ahead`` is below 1; the options are not of video, or also want sound.
            GpuflowError: as ``load``, from the iterator.
        """
        require_counts(chunk=chunk, ahead=ahead)
        origin = Source.of(source, modality="video")
        _, wanted = resolve(origin, options)
        made = wanted if isinstance(wanted, VideoOptions) else VideoOptions()
        return self._frames(origin, made, chunk, ahead, self.limits.lowered(limits))

    async def _frames(
        self, source: Source, options: VideoOptions, size: int, ahead: int, limits: Limits
    ) -> AsyncIterator[FrameChunk]:
        deadline = WorkDeadline(limits.deadline_seconds)
        bounds = Bounds(limits, deadline, None)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._admission(deadline))
            await stack.enter_async_context(self._stream_place(deadline))
            started = time.perf_counter()
            source_of = await self._clip_input(source, bounds, stack)
            fetched = Stage("fetch", started, time.perf_counter() - started)

            def work(delivery: Delivery, turn: Turn) -> None:
                with self._surprises_logged():
                    load_chunks(source_of(turn), options, size, self._context(bounds), delivery, turn)

            await self._workers.acquire(deadline)
            chunks = stream_chunks(
                work, pool=self._stream_pool, permits=self._workers.permits, deadline=deadline, ahead=ahead
            )
            await stack.enter_async_context(aclosing(chunks))
            async for chunk in chunks:
                if chunk.is_first:
                    chunk.stages = (fetched, *chunk.stages)
                self._note_device(chunk, count=chunk.is_first)
                yield chunk
            self.counters.add("gpuflow_media_total", kind="frames")

    async def _clip_input(self, source: Source, bounds: Bounds, stack: AsyncExitStack) -> Callable[[Turn], ClipInput]:
        """The bytes of a clip, until ``stack`` ends. What comes over the network is decoded while it comes, unless
        workers decode: they are given all of it with their job."""
        if source.kind != "url" or not isinstance(self._decoding, InProcess):
            blob = await self._fetch(source, bounds)
            stack.enter_context(self._holding(len(blob.data)))
            return lambda _: WholeClip(blob)
        decoding, deadline = self._decoding, bounds.deadline
        body = RangedBody(lambda nbytes: stack.enter_context(self._holding(nbytes)))
        fetching = asyncio.create_task(self._fetcher.receive(source, body, limits=bounds.limits))
        stack.push_async_callback(cancelled, fetching)
        return lambda turn: GrowingClip(body, turn, decoding, deadline.check)

    def statistics(self) -> tuple[dict[str, int], SlabStatistics]:
        """Counters and the state of the result slab."""
        return self.counters.snapshot(), self.slab.statistics()

    def metrics(self) -> Values:
        """Counters, bytes by state, and whether the GPU's context is lost, under Prometheus names, for ``gpuflow.observe.exposition``."""
        slabs = {self.slab.device: self.slab, self._host_slab.device: self._host_slab}
        of_gpu = [self._canary.metrics()] if self._canary else []
        of_slabs = [slab.statistics().metrics() for slab in slabs.values()]
        return merged([self.counters.snapshot(), *of_gpu, *of_slabs])

    async def aclose(self) -> None:
        """Stop; harmless when repeated. Media that are still held stay valid until they are released."""
        if self._closed:
            return
        self._closed = True
        for deadline in tuple(self._deadlines):
            deadline.cancel()
        self.slab.close(force=True)  # wakes those that wait for room
        self._host_slab.close(force=True)
        await self._fetcher.aclose()
        await self._workers.drain()  # none is at work any more, so that nothing blocks below
        if self._batches is not None:
            await asyncio.to_thread(self._batches.close)
        await asyncio.to_thread(self._stream_pool.shutdown)  # its threads end soon, with the loop's help
        self._segment_pool.shutdown()
        if self.device.is_cuda:
            await asyncio.to_thread(close_idle)
        if self.decoders is not None:
            await asyncio.to_thread(self.decoders.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _load(self, source: Source, options: OptionsLike, bounds: Bounds) -> Media:
        modality, wanted = resolve(source, options)
        started = time.perf_counter()
        known = source if source.modality == modality else replace(source, modality=modality)
        blob = await self._fetch(known, bounds)
        fetched = Stage("fetch", started, time.perf_counter() - started)
        with self._holding(len(blob.data)):
            media = await self._decode(blob, modality, wanted, bounds)
        return self._finished(media, fetched)

    def _finished(self, media: Media, fetched: Stage) -> Media:
        media.stages = (fetched, *media.stages)
        self._note_device(media)
        self.counters.add("gpuflow_media_total", kind=media.kind)
        return media

    def _note_device(self, media: Media, *, count: bool = True) -> None:
        """Say why it is not the GPU, where nobody asked for the CPU."""
        if media.fallback is None and self._asked == "auto" and not self.device.is_cuda:
            media.fallback = self.device.reason
            if count:
                self.counters.add("gpuflow_fallback_total", modality=modality_of(media))
        if media.audio is not None:
            self._note_device(media.audio, count=count)

    @contextmanager
    def _holding(self, nbytes: int) -> Iterator[None]:
        """Fetched bytes that wait for a decoder; refused when there are too many already."""
        with self._pending_lock:
            if self._pending_bytes + nbytes > self.limits.max_pending_bytes:
                raise Overloaded(f"{self._pending_bytes} bytes are fetched and not decoded (Limits.max_pending_bytes)")
            self._pending_bytes += nbytes
        try:
            yield
        finally:
            with self._pending_lock:
                self._pending_bytes -= nbytes

    async def _fetch(self, source: Source, bounds: Bounds) -> Blob:
        if source.kind == "bytes":  # which are here: nothing is waited for
            return await self._fetcher.fetch(source, limits=bounds.limits, budget=bounds.budget)
        try:
            async with asyncio.timeout(bounds.deadline.remaining_seconds):
                return await self._fetcher.fetch(source, limits=bounds.limits, budget=bounds.budget)
        except TimeoutError as error:
            if isinstance(error, GpuflowError):
                raise
            raise DeadlineExceeded(f"not fetched after {bounds.limits.deadline_seconds:g} s") from error

    async def _decode(self, blob: Blob, modality: Modality | None, options: OptionsLike, bounds: Bounds) -> Media:
        context = self._context(bounds)
        begin = partial(load_blob, blob, modality, options, context, self._batches)
        return await self._workers.work(begin, partial(self._run, context), bounds.deadline)

    @asynccontextmanager
    async def _stream_place(self, deadline: Deadline) -> AsyncIterator[None]:
        """One of the threads that streams have: they mostly wait."""
        try:
            async with asyncio.timeout(deadline.remaining_seconds):
                await self._stream_places.acquire()
        except TimeoutError as error:
            raise Overloaded(f"{_MAX_STREAMS} streams of frames are under way") from error
        try:
            yield
        finally:
            self._stream_places.release()

    def _run(self, context: LoadContext, work: Callable[[], Found]) -> Found:
        """Do a step of a load's work, on a worker thread."""
        with self._surprises_logged():
            found = work()
        if isinstance(found, Media):
            found.stages = tuple(context.stages)
        return found

    def _context(self, bounds: Bounds) -> LoadContext:
        return LoadContext(
            device=self.device,
            slab=self.slab,
            host_slab=self._host_slab,
            limits=bounds.limits,
            deadline=bounds.deadline,
            counters=self.counters,
            device_asked=self._asked,
            decoding=self._decoding,
            nvdec=self.nvdec,
        )

    @contextmanager
    def _surprises_logged(self) -> Iterator[None]:
        """What is no error of ours is logged, and becomes one."""
        try:
            yield
        except GpuflowError:
            raise
        except Exception as error:
            if self._canary is not None:
                self._canary.examine(error)
            log.exception("unexpected error while decoding")
            raise GpuflowError(f"unexpected {type(error).__name__} while decoding") from error
