"""A URL to its bytes: redirects, limits and time; what a hostile server may do to us ends here."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gpuflow.config import FetchPolicy
from gpuflow.errors import FetchFailed, GpuflowError, Overloaded, TooLarge
from gpuflow.fetch.address import parse_networks
from gpuflow.fetch.budget import ByteBudget
from gpuflow.fetch.ranges import AT_ONCE, Part
from gpuflow.fetch.resolve import Resolver
from gpuflow.fetch.url import CheckedURL, check_redirect, check_url, domain_allowed
from gpuflow.media import Modality

if TYPE_CHECKING:
    from gpuflow.fetch._http import Answer, Client

REDIRECTS = frozenset({301, 302, 303, 307, 308})
RATE_AFTER_SECONDS = 5.0
FLOOD_AFTER_CHUNKS = 1_024
FLOOD_CHUNK_BYTES = 256  # one-byte chunks kept the event loop 100 % busy for 5 s; a TCP segment has 536 and more
_MAX_DIGITS = 18
_FRAMING_BYTES = 64 * 1024
_MEDIA_TYPE = re.compile(r"\s*([A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64})\s*(?:;|$)")


class Remote:
    """Fetches http(s) URLs. At most ``max_connections`` at once; further ones wait, as long as a fetch may take.

    Raises:
        InvalidOptions: the policy names something that is not a network or a host.
    """

    def __init__(self, policy: FetchPolicy, threads: Executor) -> None:
        self._policy = policy
        self._threads = threads
        domain_allowed("", policy.allowed_media_domains)
        self._resolver = Resolver(
            timeout_seconds=policy.dns_seconds, allowed_networks=parse_networks(policy.allow_private_networks)
        )
        self._permits = asyncio.Semaphore(policy.max_connections)
        self._hosts = HostPermits(policy.max_connections_per_host)
        self._opening = asyncio.Lock()
        self._client: Client | None = None

    async def fetch(
        self, url: str, *, modality: Modality | None, limit: int, budget: ByteBudget, receiver: Receiver | None = None
    ) -> tuple[list[bytes], str | None]:
        """The body in pieces, and the media type that the server declares. A ``receiver`` is given the pieces as they
        come, and then they are not returned; of a body in parts, those that it wants.

        Raises:
            InvalidSource, UnsafeURL: the URL, or one that it redirects to, is wrong or not allowed.
            TooLarge: the body is, or claims to be, larger than ``limit`` bytes, or than the budget.
            FetchFailed: anything that went wrong on the way, time included.
            Overloaded: no connection became free in time.
        """
        checked = check_url(url, self._policy)
        seconds = self._policy.total_seconds(modality)
        client = await self._open()
        try:
            async with asyncio.timeout(None) as timer:
                return await self._follow(checked, _Fetch(client, limit, budget, timer, seconds, receiver))
        except TimeoutError as error:
            if isinstance(error, GpuflowError):
                raise
            raise FetchFailed(f"{checked.host}: not done after {seconds:g} s") from error

    async def aclose(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()

    def close_threads(self) -> None:
        """End the threads that look names up; blocking."""
        self._resolver.close()

    @asynccontextmanager
    async def _admitted(self, host: str, seconds: float) -> AsyncIterator[None]:
        """A place among the host's requests, and then one among all: who waits for a slow host keeps no other waiting."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(seconds):
                    await stack.enter_async_context(self._hosts.one_of(host))
                    await stack.enter_async_context(self._permits)
            except TimeoutError as error:
                raise Overloaded(
                    f"{self._policy.max_connections} fetches are under way, or {self._policy.max_connections_per_host} from "
                    "this host (FetchPolicy.max_connections, max_connections_per_host)"
                ) from error
            yield

    async def _open(self) -> Client:
        async with self._opening:
            if self._client is None:
                loop = asyncio.get_running_loop()
                self._client = await loop.run_in_executor(self._threads, _make_client, self._policy, self._resolver)
            return self._client

    async def _follow(self, url: CheckedURL, fetch: _Fetch) -> tuple[list[bytes], str | None]:
        size = self._policy.range_bytes
        first = None if size is None else (0, size - 1)
        for _ in range(self._policy.max_redirects + 1):
            found = await self._ask(url, fetch, first)
            if isinstance(found, str):
                url = check_redirect(url, found, self._policy)
                continue
            if found.chunks is None:  # parts that could not be told from those of another version: all at once, then
                found = await self._ask(url, fetch, None)
                if isinstance(found, str) or found.chunks is None:
                    raise FetchFailed(f"{url.host} has changed what it serves while it was fetched")
            rest = found.part.rest(size) if found.part is not None and size is not None else []
            if found.part is not None and rest and fetch.receiver is not None:
                fetch.receiver.begin_parts(found.part, rest)
                await self._wanted_parts(url, fetch, fetch.receiver)
                return [], found.media_type
            return found.chunks + await self._parts(url, fetch, rest), found.media_type
        raise FetchFailed(f"more than {self._policy.max_redirects} redirects (FetchPolicy.max_redirects)")

    async def _ask(self, url: CheckedURL, fetch: _Fetch, wanted: tuple[int, int] | None) -> _Body | str:
        """The body, or its first part; or where the server sends us."""
        async with self._admitted(url.host, fetch.seconds):
            fetch.begin()
            async with aclosing(await fetch.client.get(url, part=wanted)) as answer:
                if answer.status in REDIRECTS:
                    location = answer.header("Location")
                    if location is None:
                        raise FetchFailed(f"{url.host} redirects without a Location")
                    return location
                if wanted is None or answer.status != 206:
                    return _Body(await self._read(answer, url.host, fetch.limit, fetch), _media_type(answer))
                part = _part(answer, url.host)
                part.require_first(wanted[1] + 1, fetch.limit, host=url.host)
                if part.version is None and part.last + 1 < part.total:
                    return _Body(None, None)
                chunks = await self._read(answer, url.host, part.nbytes, fetch, part=part)
                return _Body(chunks, _media_type(answer), part)

    async def _parts(self, url: CheckedURL, fetch: _Fetch, parts: list[Part]) -> list[bytes]:
        """The parts, a few at once; each is of the same version, or none is taken."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(part: Part) -> list[bytes]:
            async with places:
                return await self._one_part(url, fetch, part)

        tasks = [asyncio.create_task(one(part)) for part in parts]
        try:
            return [chunk for chunks in await asyncio.gather(*tasks) for chunk in chunks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wanted_parts(self, url: CheckedURL, fetch: _Fetch, receiver: Receiver) -> None:
        """Parts as they are wanted, a few at once, until all were or nobody wants any more. Each has the time of a
        fetch; how long nobody wants one does not count."""
        fetch.timer.reschedule(None)

        async def some() -> None:
            while (part := await receiver.next_wanted()) is not None:
                async with asyncio.timeout(fetch.seconds):
                    receiver.put(part, b"".join(await self._one_part(url, fetch, part)))

        tasks = [asyncio.create_task(some()) for _ in range(AT_ONCE)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one_part(self, url: CheckedURL, fetch: _Fetch, part: Part) -> list[bytes]:
        async with self._admitted(url.host, fetch.seconds):
            asking = fetch.client.get(url, part=(part.first, part.last), version=part.version)
            async with aclosing(await asking) as answer:
                if answer.status != 206 or _part(answer, url.host) != part:
                    raise FetchFailed(f"{url.host} has changed what it serves while it was fetched")
                return await self._read(answer, url.host, part.nbytes, fetch, part=part)

    async def _read(
        self, answer: Answer, host: str, limit: int, fetch: _Fetch, *, part: Part | None = None
    ) -> list[bytes]:
        _check_head(answer, host, limit, status=206 if part else 200)
        receiver = fetch.receiver if part is None or part.first == 0 else None
        if receiver is not None:
            receiver.begin(part.total if part else _length(answer), in_parts=bool(part and part.nbytes < part.total))
        answer.expect(limit + limit // 8 + _FRAMING_BYTES)
        meter = Meter(host, limit=limit, min_bytes_per_second=self._policy.min_bytes_per_second)
        chunks: list[bytes] = []
        keep, nbytes = chunks.append if receiver is None else receiver.add, 0
        async with aclosing(answer.chunks()) as body:
            async for chunk in body:
                meter.add(len(chunk), time.monotonic())
                fetch.budget.take(len(chunk))
                nbytes += len(chunk)
                keep(chunk)
        if part is not None and nbytes != part.nbytes:
            raise FetchFailed(f"{host} sends fewer bytes than the part has")
        return chunks


class Receiver(Protocol):
    """Takes a body while it comes."""

    def begin(self, announced: int | None, *, in_parts: bool) -> None:
        """The head came, which says how many bytes there will be, or does not, and whether only the first part comes."""
        ...

    def add(self, chunk: bytes) -> None:
        """The next bytes."""
        ...

    def begin_parts(self, first: Part, rest: list[Part]) -> None:
        """The first part has come; these are left, and fetched when they are wanted."""
        ...

    def put(self, part: Part, data: bytes) -> None:
        """One of them."""
        ...

    async def next_wanted(self) -> Part | None:
        """The part to fetch next, once one is wanted; ``None`` when all were. Called by several at once."""
        ...


@dataclass(frozen=True, slots=True)
class _Fetch:
    """What one fetch may take. Its ``seconds`` run from when it is first admitted."""

    client: Client
    limit: int
    budget: ByteBudget
    timer: asyncio.Timeout
    seconds: float
    receiver: Receiver | None = None

    def begin(self) -> None:
        """It is admitted; harmless when repeated."""
        if self.timer.when() is None:
            self.timer.reschedule(asyncio.get_running_loop().time() + self.seconds)


@dataclass(frozen=True, slots=True)
class _Body:
    """A body, or its first ``part``; ``chunks`` is ``None`` where that part is of no use alone."""

    chunks: list[bytes] | None
    media_type: str | None
    part: Part | None = None


class HostPermits:
    """At most ``limit`` requests to one host at once; further ones wait for theirs."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._hosts: dict[str, tuple[asyncio.Semaphore, int]] = {}  # and how many hold or want a permit

    @asynccontextmanager
    async def one_of(self, host: str) -> AsyncIterator[None]:
        """Hold a permit of the host's."""
        permits, users = self._hosts.get(host) or (asyncio.Semaphore(self._limit), 0)
        self._hosts[host] = permits, users + 1
        try:
            async with permits:
                yield
        finally:
            users = self._hosts[host][1] - 1
            if users:
                self._hosts[host] = permits, users
            else:
                del self._hosts[host]


class Meter:
    """Holds a body against its limit, a minimum rate and floods of tiny chunks, as it comes."""

    def __init__(self, host: str, *, limit: int, min_bytes_per_second: int, started: float | None = None) -> None:
        self._host = host
        self._limit = limit
        self._min_bytes_per_second = min_bytes_per_second
        self._started = time.monotonic() if started is None else started
        self._num_bytes = 0
        self._num_chunks = 0

    def add(self, num_bytes: int, now: float) -> None:
        """One more chunk, at time ``now`` (``time.monotonic``).

        Raises:
            TooLarge: the limit is passed.
            FetchFailed: too slow, or in too small pieces.
        """
        self._num_bytes += num_bytes
        self._num_chunks += 1
        if self._num_bytes > self._limit:
            raise TooLarge(f"{self._host} sends more than the {self._limit} bytes that are allowed")
        if self._num_chunks > FLOOD_AFTER_CHUNKS and self._num_bytes < self._num_chunks * FLOOD_CHUNK_BYTES:
            raise FetchFailed(f"{self._host} sends {self._num_chunks} chunks of less than {FLOOD_CHUNK_BYTES} bytes")
        elapsed = now - self._started
        if elapsed > RATE_AFTER_SECONDS and self._num_bytes < elapsed * self._min_bytes_per_second:
            raise FetchFailed(
                f"{self._host} sends {self._num_bytes / elapsed:.0f} bytes a second;"
                f" FetchPolicy.min_bytes_per_second is {self._min_bytes_per_second}"
            )


def _length(answer: Answer) -> int | None:
    length = answer.header("Content-Length")
    return int(length) if length is not None and length.isdecimal() and len(length) <= _MAX_DIGITS else None


def _part(answer: Answer, host: str) -> Part:
    return Part.of(answer.header("Content-Range"), answer.header("ETag"), host=host)


def _check_head(answer: Answer, host: str, limit: int, *, status: int = 200) -> None:
    if answer.status != status:
        raise FetchFailed(f"{host} answers with status {answer.status}")
    encoding = answer.header("Content-Encoding")
    if encoding and encoding.strip().lower() != "identity":
        raise FetchFailed(f"{host} answers with Content-Encoding {encoding[:40]!r}; identity was asked for")
    length = answer.header("Content-Length")
    if length is not None and length.isdecimal() and int(length) > limit:
        raise TooLarge(f"{host} announces {length} bytes; {limit} are allowed")


def _media_type(answer: Answer) -> str | None:
    match = _MEDIA_TYPE.match(answer.header("Content-Type") or "")
    return match[1].lower() if match else None


def _make_client(policy: FetchPolicy, resolver: Resolver) -> Client:
    from gpuflow.fetch._http import Client

    return Client(policy, resolver)
