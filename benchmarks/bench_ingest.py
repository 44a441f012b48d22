"""Guarded fetching against a shared bare httpx client, and strict base64 against the standard library.

The server is a process of its own on loopback, and keeps connections. gpuflow's fetch resolves, checks, meters and
hashes (BLAKE3) what comes; httpx only collects it. Eight fetches at once stand for a request of eight images.

    python -m benchmarks.bench_ingest [--rounds N] [--quick]
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import multiprocessing as mp
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import httpx

from benchmarks._harness import Contender, Row, arguments, measure, save
from gpuflow.config import FetchPolicy, Limits
from gpuflow.fetch import Fetcher
from gpuflow.fetch.data_uri import decode_base64
from gpuflow.media import Source

KIB, MIB = 1 << 10, 1 << 20
POLICY = FetchPolicy(
    allowed_schemes=("http",), allow_private_networks=("127.0.0.0/8",), allow_direct_ip=True, allow_direct_port=True
)


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    sizes = [2 * KIB] if wanted.quick else [2 * KIB, 200 * KIB, 4 * MIB, 20 * MIB]
    with _server() as url, asyncio.Runner() as runner:
        fetcher, client = runner.run(_clients())
        rows = [_fetch_row(runner, fetcher, client, url, size, at_once) for size in sizes for at_once in (1, 8)]
        rows += [_base64_row(size) for size in ([200 * KIB] if wanted.quick else [200 * KIB, 15 * MIB])]
        measured = measure(rows, rounds=wanted.rounds)
        runner.run(fetcher.aclose())
        runner.run(client.aclose())
    print(save("ingest", measured, out=wanted.out, note="from a server on loopback; gpuflow also hashes what comes"))


async def _clients() -> tuple[Fetcher, httpx.AsyncClient]:
    return Fetcher(POLICY, Limits()), httpx.AsyncClient(trust_env=False)


def _fetch_row(
    runner: asyncio.Runner, fetcher: Fetcher, client: httpx.AsyncClient, url: str, size: int, at_once: int
) -> Row:
    where = f"{url}/{size}"

    async def guarded() -> int:
        return len((await fetcher.fetch(Source.of(where))).data)

    async def bare() -> int:
        return len((await client.get(where)).content)

    def contender(name: str, fetch: Callable[[], Awaitable[int]]) -> Contender:
        async def all_of_them() -> list[int]:
            return list(await asyncio.gather(*(fetch() for _ in range(at_once))))

        return Contender(name, lambda: runner.run(all_of_them()))

    def check(name: str, result: list[int]) -> None:
        assert result == [size] * at_once, name

    contenders = [contender("gpuflow", guarded), contender("httpx, shared client", bare)]
    return Row(f"fetch {_label(size)}, {at_once} at once", contenders, check)


def _base64_row(size: int) -> Row:
    data = bytes(range(256)) * (size // 256)
    text = base64.b64encode(data).decode()

    def check(name: str, result: bytes) -> None:
        assert result == data, name

    contenders = [
        Contender("gpuflow", lambda: decode_base64(text, size)),
        Contender("base64.b64decode", lambda: base64.b64decode(text)),
        Contender("binascii, strict", lambda: binascii.a2b_base64(text, strict_mode=True)),
    ]
    return Row(f"base64 of {_label(size)}", contenders, check)


@contextmanager
def _server() -> Iterator[str]:
    here, there = mp.get_context("spawn").Pipe()
    process = mp.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.kill()
        process.join()


def _serve(pipe: Connection) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = bytes(int(head.split(b" ", 2)[1][1:]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body))
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async def run() -> None:
        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(listener.sockets[0].getsockname()[1])
        await listener.serve_forever()

    asyncio.run(run())


def _label(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


if __name__ == "__main__":
    main()
