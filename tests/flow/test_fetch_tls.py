"""Fetching over TLS: an address is dialled, a name is what must be proven."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

from gpuflow.errors import FetchFailed, UnsafeURL
from gpuflow.media import Blob
from tests.flow.raw_server import (
    BODY,
    BRIEF,
    fetch,
    redirects,
    serving,
    stays_open,
)

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class TestTLS:
    """The name in the URL is what the certificate must hold, although an address is dialled."""

    def test_the_server_is_asked_for_by_name(self, certificate: ssl.SSLContext) -> None:
        names: list[str | None] = []
        certificate.sni_callback = lambda _, name, __: names.append(name)

        async def run() -> Blob:
            async with serving(stays_open(BODY), tls=certificate) as server:
                return await fetch(server.url)

        assert asyncio.run(run()).data == BODY
        assert names == ["localhost"]

    def test_a_certificate_for_another_name_is_refused(self, certificate: ssl.SSLContext) -> None:
        with pytest.raises(FetchFailed, match="certificate"):
            self._fetch_as("127.0.0.1", certificate)

    def test_a_certificate_that_nobody_signed_is_refused(
        self, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(FetchFailed, match="certificate"):
            self._fetch_as("localhost", certificate)

    def test_a_redirect_from_https_to_http_dials_nothing(self, certificate: ssl.SSLContext) -> None:
        async def run() -> int:
            async with (
                serving(stays_open(BODY)) as canary,
                serving(redirects(canary.url), tls=certificate) as server,
            ):
                with pytest.raises(UnsafeURL, match="https to http"):
                    await fetch(server.url)
                return canary.connections

        assert asyncio.run(run()) == 0

    @pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x16\x03\x03\x40\x00"])
    def test_a_handshake_that_fails_or_hangs_is_hung_up(self, greeting: bytes) -> None:
        async def run() -> None:
            hung_up = asyncio.Event()

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(greeting)
                with contextlib.suppress(OSError):
                    await reader.read()
                hung_up.set()
                writer.close()

            async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
                port = listener.sockets[0].getsockname()[1]
                with pytest.raises(FetchFailed):
                    await fetch(f"https://127.0.0.1:{port}/", BRIEF)
                await asyncio.wait_for(hung_up.wait(), 5.0)

        asyncio.run(run())

    def _fetch_as(self, host: str, certificate: ssl.SSLContext) -> None:
        async def run() -> None:
            async with serving(stays_open(BODY), tls=certificate) as server:
                await fetch(server.url.replace("localhost", host))

        asyncio.run(run())
