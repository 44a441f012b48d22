"""Fetching over real sockets, from servers that behave and from servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import blake3
import pytest
from blockbuster import blockbuster_ctx
from pytest_httpserver import HTTPServer

from gpuflow.config import FetchPolicy, Limits
from gpuflow.errors import FetchFailed, GpuflowError, InvalidOptions, Overloaded, TooLarge, UnsafeURL
from gpuflow.fetch import Fetcher
from gpuflow.fetch.remote import Meter
from gpuflow.media import Blob, Source
from tests.flow.raw_server import (
    BODY,
    BRIEF,
    LIMIT,
    LIMITS,
    LOOPBACK,
    OK,
    OPEN,
    Handler,
    Server,
    falls_silent,
    fetch,
    fetch_from,
    keeps_sending,
    redirects,
    sends,
    serving,
    stays_open,
)

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def test_an_image_is_fetched_with_its_hash_and_declared_type(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a.png").respond_with_data(BODY, content_type="image/png")
    blob = asyncio.run(fetch(httpserver.url_for("/a.png")))
    assert blob == Blob(BODY, blake3.blake3(BODY).hexdigest(), "image/png")


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 404, 429, 500, 503])
def test_any_status_but_200_is_a_failed_fetch(httpserver: HTTPServer, status: int) -> None:
    httpserver.expect_request("/a.png").respond_with_data(b"", status=status)
    with pytest.raises(FetchFailed, match=str(status)):
        asyncio.run(fetch(httpserver.url_for("/a.png")))


def test_a_chunked_body_and_one_that_ends_with_the_connection_are_read() -> None:
    assert (
        fetch_from(sends(OK, b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n")).data
        == b"abcdefgh"
    )
    assert fetch_from(sends(OK, b"\r\n", BODY)).data == BODY


def test_what_is_sent_names_us_and_asks_for_no_encoding() -> None:
    async def run() -> bytes:
        async with serving(stays_open(BODY)) as server:
            assert (await fetch(server.url, FetchPolicy(**OPEN, user_agent="tester/1"))).declared_type == "image/png"
            return server.heads[0].lower()

    head = asyncio.run(run())
    assert head.startswith(b"get /a.png?signature=s3cret http/1.1\r\n")
    assert b"accept-encoding: identity\r\n" in head
    assert b"user-agent: tester/1\r\n" in head
    assert not any(name in head for name in (b"cookie", b"authorization", b"referer"))


class TestRedirects:
    """Each hop is checked like the first URL, and nothing is dialled that was not."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_is_followed_without_reading_its_body(self, httpserver: HTTPServer, status: int) -> None:
        httpserver.expect_request("/b.png").respond_with_data(BODY)
        assert fetch_from(redirects(httpserver.url_for("/b.png"), status=status)).data == BODY

    def test_a_relative_redirect_stays_on_its_host(self, httpserver: HTTPServer) -> None:
        moved = {"Location": "../b.png"}
        httpserver.expect_request("/x/a.png").respond_with_data("", status=302, headers=moved)
        httpserver.expect_request("/b.png").respond_with_data(BODY)
        assert asyncio.run(fetch(httpserver.url_for("/x/a.png"))).data == BODY

    def test_a_loop_ends_after_as_many_redirects_as_are_allowed(self) -> None:
        async def run() -> int:
            async with serving(redirects("/again")) as server:
                with pytest.raises(FetchFailed, match="3 redirects"):
                    await fetch(server.url)
                return len(server.heads)

        assert asyncio.run(run()) == 4

    def test_no_redirect_is_followed_where_none_is_allowed(self) -> None:
        with pytest.raises(FetchFailed, match="0 redirects"):
            fetch_from(redirects("/again"), FetchPolicy(**OPEN, max_redirects=0))

    def test_a_redirect_to_nowhere_is_a_failed_fetch(self) -> None:
        with pytest.raises(FetchFailed, match="Location"):
            fetch_from(sends(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"))

    @pytest.mark.parametrize(
        "form",
        [
            "http://127.0.0.2:{port}/",
            "//127.0.0.2:{port}/",
            "http://[::ffff:127.0.0.2]:{port}/",
            "http://2130706434:{port}/",
            "http://0x7f.2:{port}/",
            "http://127.2:{port}/",
            "http://user@127.0.0.2:{port}/",
            "http://127.0.0.1\\@127.0.0.2:{port}/",
            "http://127。0。0。2:{port}/",
            "file:///etc/passwd",
            "gopher://127.0.0.2:{port}/_",
            "http://169.254.169.254/latest/meta-data/",
        ],
    )
    def test_a_redirect_to_an_address_that_is_not_open_dials_nothing(self, form: str) -> None:
        policy = FetchPolicy(**(OPEN | {"allow_private_networks": ("127.0.0.1/32",)}))

        async def run() -> int:
            async with serving(stays_open(BODY), host="127.0.0.2") as canary:
                port = canary.url.split(":")[2].split("/")[0]
                async with serving(redirects(form.format(port=port))) as server:
                    with pytest.raises(UnsafeURL):
                        await fetch(server.url, policy)
                return canary.connections

        assert asyncio.run(run()) == 0

    def test_a_redirect_to_a_domain_that_is_not_listed_dials_nothing(self) -> None:
        policy = FetchPolicy(**OPEN, allowed_media_domains=("127.0.0.1",))

        async def run() -> int:
            async with (
                serving(stays_open(BODY), host="127.0.0.2") as canary,
                serving(redirects(canary.url)) as server,
            ):
                with pytest.raises(UnsafeURL, match="allowed_media_domains"):
                    await fetch(server.url, policy)
                return canary.connections

        assert asyncio.run(run()) == 0


class TestPrivateAddresses:
    """The default policy, against servers that are there."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1.", "LOCALHOST."])
    def test_loopback_is_not_dialled_by_default(self, host: str) -> None:
        policy = FetchPolicy(allow_direct_ip=True, allow_direct_port=True, allowed_schemes=("http", "https"))

        async def run() -> int:
            async with serving(stays_open(BODY)) as canary:
                with pytest.raises(UnsafeURL):
                    await fetch(canary.url.replace("127.0.0.1", host), policy)
                return canary.connections

        assert asyncio.run(run()) == 0

    def test_a_name_is_fetched_once_its_network_is_open(self) -> None:
        async def run() -> Blob:
            async with serving(stays_open(BODY)) as server:
                return await fetch(server.url.replace("127.0.0.1", "localhost"))

        assert asyncio.run(run()).data == BODY

    def test_a_network_that_is_none_is_told_when_the_fetcher_is_made(self) -> None:
        for policy in (FetchPolicy(allow_private_networks=("x",)), FetchPolicy(allowed_media_domains=("a b",))):
            with pytest.raises(InvalidOptions):
                Fetcher(policy, LIMITS)


class TestLimits:
    """Sizes are held while bytes arrive."""

    @pytest.mark.parametrize("length", [b"100001", b"99999999999", b"9" * 20])
    def test_a_length_beyond_the_limit_is_too_large_before_the_body(self, length: bytes) -> None:
        with pytest.raises(TooLarge):
            fetch_from(falls_silent(OK + b"Content-Length: " + length + b"\r\n\r\n"))

    @pytest.mark.parametrize("length", [b"-1", b"x", b"1, 2", b"9" * 5_000, b"10\r\nContent-Length: 20"])
    def test_a_length_that_is_none_is_a_failed_fetch(self, length: bytes) -> None:
        with pytest.raises((FetchFailed, TooLarge)):
            fetch_from(sends(OK + b"Content-Length: " + length + b"\r\n\r\n", BODY))

    def test_no_more_is_read_than_was_announced(self) -> None:
        assert fetch_from(sends(OK, b"Content-Length: 10\r\n\r\n", BODY)).data == BODY[:10]

    def test_a_body_shorter_than_announced_is_a_failed_fetch(self) -> None:
        with pytest.raises(FetchFailed):
            fetch_from(sends(OK, b"Content-Length: 5000\r\n\r\n", BODY))
        with pytest.raises(FetchFailed):
            fetch_from(sends(OK, b"Transfer-Encoding: chunked\r\n\r\n1000\r\n", BODY[:100]))

    def test_a_body_of_exactly_the_limit_is_read(self) -> None:
        assert len(fetch_from(sends(OK, b"\r\n", bytes(LIMIT))).data) == LIMIT
        with pytest.raises(TooLarge):
            fetch_from(sends(OK, b"\r\n", bytes(LIMIT + 1)))

    def test_an_endless_body_is_cut_at_the_limit(self) -> None:
        chunk = b"1000\r\n" + bytes(4_096) + b"\r\n"
        with pytest.raises(TooLarge):
            fetch_from(keeps_sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk))
        with pytest.raises(TooLarge):
            fetch_from(keeps_sending(OK + b"\r\n", bytes(4_096)))

    def test_a_flood_of_one_byte_chunks_is_refused(self) -> None:
        with pytest.raises(FetchFailed, match="chunks"):
            fetch_from(keeps_sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 100))

    def test_a_body_that_is_mostly_framing_is_refused(self) -> None:
        with pytest.raises(FetchFailed, match="on the wire"):
            fetch_from(keeps_sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 50_000 + b"\r\nx\r\n"))

    @pytest.mark.parametrize(
        "part", [b"X-Header: " + b"x" * 1_000 + b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"X: " + b"x" * 70_000]
    )
    def test_an_endless_head_is_refused(self, part: bytes) -> None:
        with pytest.raises(FetchFailed):
            fetch_from(keeps_sending(OK if part.startswith(b"X") else b"", part))

    def test_a_long_head_below_its_limit_is_read(self) -> None:
        assert fetch_from(sends(OK, b"X: %s\r\n\r\n" % (b"x" * 60_000), BODY)).data == BODY

    @pytest.mark.parametrize("encoding", [b"gzip", b"br", b"zstd", b"deflate", b"gzip, gzip", b"x"])
    def test_an_encoding_that_was_not_asked_for_is_refused(self, encoding: bytes) -> None:
        with pytest.raises(FetchFailed, match="Content-Encoding"):
            fetch_from(sends(OK + b"Content-Encoding: " + encoding + b"\r\n\r\n", BODY))

    def test_identity_is_no_encoding(self) -> None:
        assert fetch_from(sends(OK, b"Content-Encoding: identity\r\n\r\n", BODY)).data == BODY

    @pytest.mark.parametrize(
        "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00"]
    )
    def test_what_is_not_http_is_a_failed_fetch(self, answer: bytes) -> None:
        with pytest.raises(FetchFailed):
            fetch_from(sends(answer))


class TestTime:
    """Every wait ends."""

    @pytest.mark.parametrize(
        "handler",
        [
            falls_silent(b""),
            falls_silent(OK + b"\r\n"),
            keeps_sending(OK, b"X: y\r\n", pause_seconds=0.05),
            keeps_sending(b"", b"HTTP/1.1 102 Processing\r\n\r\n", pause_seconds=0.05),
            keeps_sending(OK + b"\r\n", b"x", pause_seconds=0.05),
            keeps_sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0", pause_seconds=0.05),
            redirects("/again"),
        ],
        ids=["no head", "no body", "slow head", "slow 1xx", "slow body", "slow chunk size", "loop"],
    )
    def test_a_server_that_takes_its_time_is_left_at_the_deadline(self, handler: Handler) -> None:
        started = time.monotonic()
        with pytest.raises(FetchFailed):
            fetch_from(handler, BRIEF)
        assert time.monotonic() - started < 3.0

    def test_a_body_below_the_minimum_rate_is_left_after_a_while(self) -> None:
        meter = Meter("host.example", limit=LIMIT, min_bytes_per_second=1_024, started=100.0)
        meter.add(100, 104.9)
        meter.add(6_000, 105.1)
        with pytest.raises(FetchFailed, match="bytes a second"):
            meter.add(1, 107.0)

    def test_an_unknown_name_is_a_failed_fetch(self) -> None:
        try:
            with pytest.raises(FetchFailed, match="resolved"):
                asyncio.run(fetch("https://no-such-host.invalid/a.png", FetchPolicy(dns_seconds=1.0)))
        finally:
            for thread in threading.enumerate():  # a name server that does not answer holds its thread longer
                if thread.name.startswith("gpuflow-dns"):
                    thread.join(60.0)

    def test_a_port_where_nobody_listens_is_a_failed_fetch(self) -> None:
        async def run() -> None:
            async with serving(stays_open(BODY)) as server:
                url = server.url
            await fetch(url)

        with pytest.raises(FetchFailed):
            asyncio.run(run())

    def test_a_fetch_that_finds_no_free_connection_is_told_to_come_again(self) -> None:
        policy = FetchPolicy(**OPEN, max_connections=1, timeout_ms=300)

        async def run() -> list[BaseException | Blob]:
            async with serving(falls_silent(OK)) as server, Fetcher(policy, LIMITS) as fetcher:
                source = Source.of(server.url)
                first = asyncio.ensure_future(fetcher.fetch(source))
                await server.requested.wait()
                second = asyncio.ensure_future(fetcher.fetch(source))
                third = asyncio.ensure_future(fetcher.fetch(source))
                return list(await asyncio.gather(first, second, third, return_exceptions=True))

        errors = asyncio.run(run())
        assert isinstance(errors[0], FetchFailed)
        assert any(isinstance(error, Overloaded) for error in errors[1:])


class TestIsolation:
    """One request leaves nothing for the next, nor for anybody else."""

    def test_a_connection_is_kept_and_cookies_are_not(self) -> None:
        async def run() -> Server:
            async with (
                serving(stays_open(BODY, b"Set-Cookie: tenant=1; Path=/\r\n")) as server,
                Fetcher(LOOPBACK, LIMITS) as fetcher,
            ):
                for _ in range(3):
                    await fetcher.fetch(Source.of(server.url))
                return server

        server = asyncio.run(run())
        assert (server.connections, len(server.heads)) == (1, 3)
        assert not any(b"cookie" in head.lower() for head in server.heads)

    def test_proxies_of_the_environment_are_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def run() -> int:
            async with serving(stays_open(b"proxied")) as proxy, serving(stays_open(BODY)) as server:
                for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
                    monkeypatch.setenv(name, proxy.url.split("/a.png")[0])
                assert (await fetch(server.url)).data == BODY
                return proxy.connections

        assert asyncio.run(run()) == 0

    def test_a_cancelled_fetch_hangs_up_and_frees_its_place(self) -> None:
        async def run() -> None:
            hung_up = asyncio.Event()

            async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(OK + b"Content-Length: 5000\r\n\r\n" + BODY)
                assert await reader.read() == b""
                hung_up.set()

            policy = FetchPolicy(**OPEN, max_connections=1)
            async with (
                serving(waits) as slow,
                serving(stays_open(BODY)) as good,
                Fetcher(policy, LIMITS) as fetcher,
            ):
                task = asyncio.ensure_future(fetcher.fetch(Source.of(slow.url)))
                await slow.requested.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.wait_for(hung_up.wait(), 5.0)
                assert (await fetcher.fetch(Source.of(good.url))).data == BODY

        asyncio.run(run())

    def test_cancelling_at_any_step_leaves_a_fetcher_that_works(self) -> None:
        async def run() -> int:
            policy = FetchPolicy(**OPEN, max_connections=1)
            async with serving(sends(OK, b"\r\n", BODY)) as server, Fetcher(policy, LIMITS) as fetcher:
                source = Source.of(server.url)
                for steps in range(200):
                    task = asyncio.ensure_future(fetcher.fetch(source))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    if task.done():
                        return steps
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                    assert (await fetcher.fetch(source)).data == BODY
                return 200

        assert asyncio.run(run()) > 5

    def test_the_event_loop_is_never_blocked(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        path.write_bytes(BODY * 20)

        async def run() -> None:
            async with serving(stays_open(BODY)) as server, Fetcher(LOOPBACK, Limits()) as fetcher:
                with blockbuster_ctx():
                    assert (await fetcher.fetch(Source.of(server.url))).data == BODY
                    assert (await fetcher.fetch(Source.of(path))).data == BODY * 20
                    assert (await fetcher.fetch(Source.of(BODY * 2_000))).data == BODY * 2_000
                    await fetcher.aclose()

        asyncio.run(run())

    def test_a_closed_fetcher_says_so(self) -> None:
        async def run() -> None:
            fetcher = Fetcher(LOOPBACK, LIMITS)
            await fetcher.aclose()
            await fetcher.aclose()
            with pytest.raises(GpuflowError, match="closed"):
                await fetcher.fetch(Source.of(BODY))

        asyncio.run(run())

    def test_a_client_is_told_neither_host_nor_signature(self) -> None:
        with pytest.raises(FetchFailed) as caught:
            fetch_from(sends(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        assert "s3cret" not in str(caught.value)
        assert "127" not in str(caught.value.to_dict())
