"""The synchronous twin: one event loop in one daemon thread, and blocking calls into it."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar

from gpuflow.config import FetchPolicy, Limits, NvdecPolicy, VideoOptions
from gpuflow.errors import Closed
from gpuflow.flow.flow import Flow, Isolation
from gpuflow.flow.request import OptionsLike
from gpuflow.media import FrameChunk, Media, Modality, Outcome, Source
from gpuflow.memory import Slab

_T = TypeVar("_T")


class SyncFlow:
    """``Flow`` for code without an event loop: the same arguments, blocking methods. Not for use inside a coroutine."""

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
        async def make() -> Flow:
            return Flow(
                device=device,
                limits=limits,
                fetch=fetch,
                slab_bytes=slab_bytes,
                workers=workers,
                max_pending=max_pending,
                isolation=isolation,
                nvdec=nvdec,
            )

        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gpuflow-loop", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            self.flow: Flow = self._run(make())
        except BaseException:
            self._stop_loop()
            raise

    @property
    def slab(self) -> Slab:
        """The memory that results lie in: publish from it."""
        return self.flow.slab

    def load(
        self,
        source: object,
        *,
        options: OptionsLike = None,
        modality: Modality | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Media:
        """``Flow.load``, blocking."""
        self._require_usable()
        here = self.flow.load_here(source, options=options, modality=modality, limits=limits)
        if here is not None:
            return here
        return self._run(self.flow.load(source, options=options, modality=modality, limits=limits))

    def load_messages(
        self,
        messages: object,
        *,
        media_io_kwargs: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> list[Media]:
        """``Flow.load_messages``, blocking."""
        return self._run(self.flow.load_messages(messages, media_io_kwargs=media_io_kwargs, limits=limits))

    def stream(
        self,
        sources: Iterable[object],
        *,
        options: OptionsLike = None,
        max_in_flight: int = 16,
        ordered: bool = False,
    ) -> Iterator[Outcome]:
        """``Flow.stream``, as a blocking generator."""
        outcomes: Any = self.flow.stream(sources, options=options, max_in_flight=max_in_flight, ordered=ordered)
        yield from self._drained(outcomes)

    def frames(
        self,
        source: object,
        *,
        chunk: int = 16,
        options: VideoOptions | Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        ahead: int = 2,
    ) -> Iterator[FrameChunk]:
        """``Flow.frames``, as a blocking generator. Chunks may be used on any threads, but only one thread at a time may
        take the next: ``ValueError`` where two do, as of any generator."""
        chunks: Any = self.flow.frames(source, chunk=chunk, options=options, limits=limits, ahead=ahead)
        return self._drained(chunks)

    def _drained(self, items: Any) -> Iterator[Any]:
        try:
            while (item := self._run(_next(items))) is not None:
                yield item
        finally:
            if not self._closed:
                self._run(items.aclose())

    def close(self) -> None:
        """Stop; harmless when repeated."""
        if self._closed or self._process != os.getpid():
            return
        self._closed = True
        self._run(self.flow.aclose(), closing=True)
        self._run(self._loop.shutdown_default_executor(), closing=True)
        self._stop_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _require_usable(self, *, closing: bool = False) -> None:
        if self._process != os.getpid():
            raise RuntimeError(
                "this flow was made before a fork, which took its threads away: make one in this process"
            )
        if self._closed and not closing:
            raise Closed("the flow is closed")
        if threading.current_thread() is self._thread:
            raise RuntimeError("this is the flow's own event loop: await Flow.load instead")

    def _run(self, work: Coroutine[Any, Any, _T], *, closing: bool = False) -> _T:
        try:
            self._require_usable(closing=closing)
        except BaseException:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting: nobody takes the result any more
            raise

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def load(
    source: object,
    *,
    options: OptionsLike = None,
    modality: Modality | None = None,
    device: str = "auto",
    isolation: Isolation = "none",
) -> Media:
    """Load one medium with the default limits; a string may be a path, for here the caller is the library's own user.

    The first call on a device makes a flow that lives until the process ends; a service makes its own ``Flow``, with
    its own limits, and passes requests' strings to that.

    Args:
        source: path, URL, ``data:`` URI, bytes, binary file, OpenAI content part, or ``Source``.
        options: ``ImageOptions``, ``VideoOptions`` or ``AudioOptions``, or their JSON form.
        modality: what the bytes must be; sniffed by default.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        isolation: ``"process"`` decodes in sandboxed processes, for bytes that are not your own.

    Returns:
        ``Image``, ``Frames``, ``Waveform`` or ``Features``: a context manager over its memory.

    Raises:
        GpuflowError: one of its subclasses, see ``gpuflow.errors``.
    """
    with _making:
        flow = _default(device, isolation, os.getpid())
    return flow.load(Source.of(source, modality=modality, trusted=True), options=options)


def frames(
    source: object,
    *,
    chunk: int = 16,
    options: VideoOptions | Mapping[str, Any] | None = None,
    ahead: int = 2,
    device: str = "auto",
    isolation: Isolation = "none",
) -> Iterator[FrameChunk]:
    """The frames of one clip in chunks, each as soon as it is decoded, with the flow that ``load`` uses; arguments as
    there and in ``Flow.frames``.

    Raises:
        GpuflowError: one of its subclasses, see ``gpuflow.errors``.
    """
    with _making:
        flow = _default(device, isolation, os.getpid())
    return flow.frames(Source.of(source, modality="video", trusted=True), chunk=chunk, options=options, ahead=ahead)


_making = threading.Lock()  # two first calls at once make one flow


@functools.cache
def _default(device: str, isolation: Isolation, process: int) -> SyncFlow:
    policy = FetchPolicy(allowed_schemes=("http", "https"))  # who names a URL here is the library's own user
    return SyncFlow(
        device=device, fetch=policy, isolation=isolation
    )  # its thread is a daemon: it ends with the process


async def _next(items: Any) -> Any:
    return await anext(items, None)
