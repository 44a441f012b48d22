"""Any source to a ``Blob``: the one way in, with the limits and the policy applied before and while bytes arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

import blake3

from gpuflow.config import FetchPolicy, Limits
from gpuflow.errors import FetchFailed, GpuflowError, InvalidSource, TooLarge
from gpuflow.fetch.budget import ByteBudget
from gpuflow.fetch.data_uri import decode_base64, decode_data_uri
from gpuflow.fetch.local import read_trusted, read_untrusted
from gpuflow.fetch.ranged import RangedBody
from gpuflow.fetch.remote import Remote
from gpuflow.media import Blob, Source, read_file_object

_NUM_THREADS = 4
_INLINE_BYTES = 256 * 1024  # 85 us of hashing: about what a hop to a thread and back costs
_T = TypeVar("_T")


class Fetcher:
    """Fetches sources under one policy, on one event loop.

    Args:
        policy: where media may come from.
        limits: how many bytes each modality may have.

    Raises:
        InvalidOptions: the policy names something that is not a network or a host.
    """

    def __init__(self, policy: FetchPolicy, limits: Limits) -> None:
        self._policy = policy
        self._limits = limits
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="gpuflow-fetch")
        self._remote = Remote(policy, self._threads)
        self._closed = False

    async def fetch(self, source: Source, *, limits: Limits | None = None, budget: ByteBudget | None = None) -> Blob:
        """The source's bytes with their BLAKE3 hash (64 hexadecimal digits), and what their sender says they are.

        Args:
            limits: those of this request; the fetcher's by default.
            budget: what the parts of the request may take together; every byte that comes is taken from it.

        Raises:
            InvalidSource: the reference is malformed, or names no readable file.
            UnsafeURL: the policy does not allow it.
            TooLarge: more bytes than ``Limits`` allow for the modality (of the largest one while it is not known), or
                than the budget has left.
            FetchFailed: the network, the server or the time.
            Overloaded: no connection became free in time.
        """
        if self._closed:
            raise GpuflowError("the fetcher is closed")
        limit, budget = (limits or self._limits).max_bytes(source.modality), budget or ByteBudget(1 << 62)
        if source.kind == "url":
            chunks, declared = await self._remote.fetch(
                source.value, modality=source.modality, limit=limit, budget=budget
            )
            size = sum(map(len, chunks))
            return await self._run(size > _INLINE_BYTES, lambda: _blob(b"".join(chunks), declared))
        if source.kind == "bytes":
            data = _within(source.value, limit)
            budget.take(len(data))
            return await self._run(len(data) > _INLINE_BYTES, lambda: _blob(data))
        if source.kind in ("data", "base64"):
            most = min(limit, budget.left)  # told from the text's length, before it is decoded
            blob = await self._run(len(source.value) > _INLINE_BYTES, lambda: _decode(source, most))
        else:
            blob = await self._run(True, lambda: self._read(source, limit))
        budget.take(len(blob.data))
        return blob

    def of_bytes(self, data: bytes, *, limit: int) -> Blob:
        """``fetch`` of bytes that are here, on the calling thread.

        Raises:
            TooLarge: more than ``limit``.
        """
        return _blob(_within(data, limit))

    async def receive(
        self, source: Source, body: RangedBody, *, limits: Limits | None = None, budget: ByteBudget | None = None
    ) -> None:
        """Fetch a URL into ``body``, which is finished, or fails, by the time this ends. Limits, checks and time are
        those of ``fetch``; what it would raise, the body's readers get.
        """
        try:
            if self._closed:
                raise GpuflowError("the fetcher is closed")
            limit, budget = (limits or self._limits).max_bytes(source.modality), budget or ByteBudget(1 << 62)
            _, declared = await self._remote.fetch(
                source.value, modality=source.modality, limit=limit, budget=budget, receiver=body
            )
        except GpuflowError as error:
            body.fail(error)
        except BaseException:
            body.fail(FetchFailed("the fetch was given up"))
            raise
        else:
            body.finish(declared)

    async def aclose(self) -> None:
        """Close connections and end the threads; harmless when repeated. A read that is under way is waited for."""
        if self._closed:
            return
        self._closed = True
        await self._remote.aclose()
        await asyncio.to_thread(self._close_threads)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _run(self, on_thread: bool, work: Callable[[], _T]) -> _T:
        if not on_thread:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _read(self, source: Source, limit: int) -> Blob:
        if source.kind == "file":
            return _blob(_within(read_file_object(source.value, limit), limit))
        if source.kind != "path":
            raise InvalidSource(f"no such kind of source: {source.kind!r}")
        if source.trusted:
            return _blob(read_trusted(source.value, limit))
        return _blob(read_untrusted(source.value, self._policy.local_roots, limit))

    def _close_threads(self) -> None:
        self._remote.close_threads()
        self._threads.shutdown(cancel_futures=True)


def _blob(data: bytes, declared_type: str | None = None) -> Blob:
    return Blob(data, blake3.blake3(data).hexdigest(), declared_type)


def _decode(source: Source, limit: int) -> Blob:
    if source.kind == "base64":
        return _blob(decode_base64(source.value, limit))
    return _blob(*decode_data_uri(source.value, limit))


def _within(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise TooLarge(f"more than the {limit} bytes that are allowed")
    return data
