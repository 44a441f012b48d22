"""How requests go out: through the operator's proxy, not too many at a host, and once more where nothing came back."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator

import pytest

from gpuflow.config import FetchPolicy
from gpuflow.errors import FetchFailed, InvalidOptions, UnsafeURL
from gpuflow.fetch import Fetcher
from gpuflow.fetch.resolve import Resolver
from gpuflow.media import Source
from tests.flow.raw_server import (
    BODY,
    BRIEF,
    LIMITS,
    LOOPBACK,
    OK,
    OPEN,
    falls_silent,
    fetch,
    sends,
    serving,
    stays_open,
)

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Proxy:
    """A forward proxy on loopback: it notes what it is asked for, and dials one server whatever the name."""

    def __init__(self, target: str) -> None:
        self.asked: list[bytes] = []
        self._target = target.split("/")[2].rpartition(":")
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://user:s%40cret@127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        finally:
            listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        there, to_there = await asyncio.open_connection("127.0.0.1", int(self._target[2]))
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            to_there.write(head)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pipe(reader, to_there))
                both.create_task(_pipe(there, writer))
        finally:
            for end in (writer, to_there):
                end.transport.abort()
            await asyncio.sleep(0)


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()
    target.transport.abort()


def _through(proxy: str) -> FetchPolicy:
    return FetchPolicy(proxy=proxy, allowed_schemes=("http", "https"), timeout_ms=10_000)


class TestProxy:
    """The proxy looks names up; what is allowed is still checked before it is asked."""

    def test_a_plain_request_names_the_whole_url_and_no_name_is_looked_up_here(self) -> None:
        async def run() -> tuple[bytes, bytes]:
            async with serving(stays_open(BODY)) as server:
                proxy = Proxy(server.url)
                async with proxy.running() as url:
                    blob = await fetch("http://nowhere.invalid/a.png?s=1", _through(url))
                    return blob.data, proxy.asked[0]

        body, asked = asyncio.run(run())
        assert body == BODY
        assert asked.startswith(b"GET http://nowhere.invalid:80/a.png?s=1 HTTP/1.1\r\n")
        assert b"\r\nproxy-authorization: basic dxnlcjpzqgnyzxq=\r\n" in asked.lower(), "user:s@cret"
        assert b"\r\nhost: nowhere.invalid\r\n" in asked.lower()

    def test_an_encrypted_request_goes_through_a_tunnel_and_proves_the_servers_name(
        self, certificate: ssl.SSLContext
    ) -> None:
        names: list[str | None] = []
        certificate.sni_callback = lambda _, name, __: names.append(name)

        async def run(host: str) -> tuple[bytes, bytes]:
            async with serving(stays_open(BODY), tls=certificate) as server:
                proxy = Proxy(server.url)
                async with proxy.running() as url:
                    blob = await fetch(f"https://{host}/a.png", _through(url))
                    return blob.data, proxy.asked[0]

        body, asked = asyncio.run(run("localhost"))
        assert body == BODY
        assert asked == (
            b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n"
            b"Proxy-Authorization: Basic dXNlcjpzQGNyZXQ=\r\n\r\n"
        )
        assert names == ["localhost"]
        with pytest.raises(FetchFailed, match="certificate"):
            asyncio.run(run("elsewhere.invalid"))

    def test_a_proxy_that_refuses_or_talks_nonsense_is_a_failed_fetch(self) -> None:
        async def run(answer: bytes) -> None:
            async with serving(sends(answer)) as proxy:
                url = "http://" + proxy.url.split("/")[2]
                with pytest.raises(FetchFailed):
                    await fetch("https://host.invalid/a.png", _through(url))

        for answer in (b"HTTP/1.1 407 No\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"", b"x" * 100_000):
            asyncio.run(run(answer))

    @pytest.mark.parametrize("url", ["http://host.invalid:8080/", "ftp://host.invalid/", "http://10.0.0.1/"])
    def test_what_is_not_allowed_never_reaches_it(self, url: str) -> None:
        async def run() -> list[bytes]:
            async with serving(stays_open(BODY)) as server:
                proxy = Proxy(server.url)
                async with proxy.running() as way:
                    with pytest.raises((UnsafeURL, ValueError)):
                        await fetch(url, _through(way))
                return proxy.asked

        assert asyncio.run(run()) == []

    @pytest.mark.parametrize(
        "url", ["", "proxy:3128", "https://proxy:3128", "http://proxy", "socks5://proxy:1080", "http://a b:1", 5]
    )
    def test_a_proxy_that_is_none_is_told_at_once(self, url: object) -> None:
        with pytest.raises(InvalidOptions, match="proxy"):
            FetchPolicy.from_mapping({"proxy": url})


class TestHosts:
    """One slow host takes no more than its share of the connections."""

    def test_one_host_is_asked_for_so_much_at_once_and_others_are_served_meanwhile(self) -> None:
        at_once: list[int] = [0, 0]
        go_on, three = asyncio.Event(), asyncio.Event()

        async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            at_once[0] += 1
            at_once[1] = max(at_once)
            if at_once[0] == 3:
                three.set()
            await go_on.wait()
            at_once[0] -= 1
            writer.write(OK + b"Content-Length: 1\r\n\r\nx")

        async def run() -> None:
            policy = FetchPolicy(**OPEN, max_connections=8, max_connections_per_host=3, timeout_ms=10_000)
            async with (
                serving(slow) as busy,
                serving(stays_open(BODY), host="127.0.0.2") as other,
                Fetcher(policy, LIMITS) as fetcher,
            ):
                fetches = [asyncio.create_task(fetcher.fetch(Source.of(busy.url))) for _ in range(20)]
                await three.wait()
                assert (await fetcher.fetch(Source.of(other.url))).data == BODY
                for fetching in fetches[15:]:  # those that wait may leave
                    fetching.cancel()
                go_on.set()
                done = await asyncio.gather(*fetches, return_exceptions=True)
                assert [blob.data for blob in done[:15] if not isinstance(blob, BaseException)] == [b"x"] * 15
                assert at_once == [0, 3]
                assert fetcher._remote._hosts._hosts == {}

        asyncio.run(run())


class TestAgain:
    """A request is sent again only where not one byte of an answer came."""

    def test_a_kept_connection_that_the_server_closed_is_replaced(self) -> None:
        async def once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(server_of[0].heads) == 2:  # the second request of the first connection
                raise ConnectionResetError
            writer.write(OK + b"Content-Length: 2\r\n\r\nok")

        server_of = []

        async def run() -> tuple[int, int]:
            async with serving(once) as server, Fetcher(LOOPBACK, LIMITS) as fetcher:
                server_of.append(server)
                for _ in range(3):
                    assert (await fetcher.fetch(Source.of(server.url))).data == b"ok"
                return server.connections, len(server.heads)

        assert asyncio.run(run()) == (2, 4)

    @pytest.mark.parametrize("at_once", [True, False])
    def test_what_a_server_sends_beyond_its_answer_is_nobodys_answer(self, at_once: bool) -> None:
        evil = OK + b"Content-Length: 4\r\n\r\nEVIL"
        sent = asyncio.Event()

        async def more(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            good = OK + b"Content-Length: 4\r\n\r\ngood"
            writer.write(good + evil if at_once else good)
            if not at_once:
                await writer.drain()
                await read.wait()
                writer.write(evil)
                await writer.drain()
                sent.set()

        read = asyncio.Event()

        async def run() -> tuple[bytes, bytes, int]:
            async with serving(more) as server, Fetcher(LOOPBACK, LIMITS) as fetcher:
                first = await fetcher.fetch(Source.of(server.url))
                read.set()
                if not at_once:
                    await sent.wait()
                    for _ in range(20):  # until it lies in the client's buffer
                        await asyncio.sleep(0)
                second = await fetcher.fetch(Source.of(server.url))
                return first.data, second.data, server.connections

        assert asyncio.run(run()) == (b"good", b"good", 2)

    def test_a_silent_server_is_asked_once(self) -> None:
        async def run() -> int:
            async with serving(falls_silent(b"")) as server:
                with pytest.raises(FetchFailed):
                    await fetch(server.url, BRIEF)
                return server.connections

        assert asyncio.run(run()) == 1

    def test_a_server_that_always_hangs_up_is_asked_twice_and_no_more(self) -> None:
        async def run() -> int:
            async with serving(sends()) as server:
                with pytest.raises(FetchFailed):
                    await fetch(server.url)
                return len(server.heads)

        assert asyncio.run(run()) == 2

    @pytest.mark.parametrize("beginning", [b"H", b"HTTP/1.1 200 OK\r\n", OK + b"Content-Length: 9\r\n\r\nabc"])
    def test_after_the_first_byte_nothing_is_asked_again(self, beginning: bytes) -> None:
        async def run() -> int:
            async with serving(sends(beginning)) as server:
                with pytest.raises(FetchFailed):
                    await fetch(server.url)
                return len(server.heads)

        assert asyncio.run(run()) == 1


class TestNames:
    """A slow name server holds up the names of its own domain."""

    def test_names_of_one_domain_take_no_more_than_half_of_the_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        go_on, at_once, lock = threading.Event(), [0, 0], threading.Lock()

        def answer(host: str) -> list[str]:
            if host.endswith("slow.example"):
                with lock:
                    at_once[0] += 1
                    at_once[1] = max(at_once)
                go_on.wait(10.0)
                with lock:
                    at_once[0] -= 1
            return ["93.184.215.14"]

        monkeypatch.setattr("gpuflow.fetch.resolve._look_up", answer)

        async def run() -> None:
            resolver = Resolver(timeout_seconds=10.0, allowed_networks=())
            slow = [asyncio.create_task(resolver.addresses(f"{n}.slow.example")) for n in range(12)]
            for n in range(20):
                assert await resolver.addresses(f"{n}.quick.example") == ["93.184.215.14"]
            go_on.set()
            assert await asyncio.gather(*slow) == [["93.184.215.14"]] * 12
            resolver.close()

        asyncio.run(run())
        assert at_once == [0, 4]
