"""Names to addresses that may be dialled, on threads of its own: a slow name server must not hold up other work."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import ip_address

from gpuflow.errors import FetchFailed, UnsafeURL
from gpuflow.fetch.address import Network, refusal
from gpuflow.workers import call_soon

_NUM_THREADS = 8
_MAX_ADDRESSES = 4  # dialled one after another; a name may have hundreds


class Resolver:
    """Looks names up once and checks every answer.

    Args:
        timeout_seconds: how long one look-up may take, the wait for a thread included.
        allowed_networks: networks that may be dialled although they are not public.
    """

    def __init__(self, *, timeout_seconds: float, allowed_networks: tuple[Network, ...]) -> None:
        self._timeout_seconds = timeout_seconds
        self._allowed_networks = allowed_networks
        self._pool = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="gpuflow-dns")
        self._running: dict[Future[list[str]], str] = {}

    async def addresses(self, host: str) -> list[str]:
        """Addresses of a checked host name or IP literal, in the order to dial them.

        Raises:
            FetchFailed: the name is unknown, or was not answered in time.
            UnsafeURL: one of the answers must not be dialled; then none is.
        """
        answers = [host] if _is_address(host) else await self._look_up(host)
        return vetted(host, answers, self._allowed_networks)

    async def operators_addresses(self, host: str) -> list[str]:
        """Addresses of a host that the operator named: they are not checked.

        Raises:
            FetchFailed: as ``addresses``.
        """
        answers = [host] if _is_address(host) else await self._look_up(host)
        return list(dict.fromkeys(answers))[:_MAX_ADDRESSES]

    def close(self) -> None:
        """End the threads. One that still waits for a name server ends by itself; it is not waited for."""
        self._pool.shutdown(wait=not self._running, cancel_futures=True)

    async def _look_up(self, host: str) -> list[str]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                domain = ".".join(host.split(".")[-2:])
                await self._turn(domain)
                future = self._pool.submit(_look_up, host)
                self._running[future] = domain
                future.add_done_callback(self._running.pop)
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise FetchFailed(f"{host} was not resolved in {self._timeout_seconds:g} s") from error
        except (OSError, UnicodeError) as error:
            raise FetchFailed(f"{host} cannot be resolved: {error}") from error

    async def _turn(self, domain: str) -> None:
        """Wait while names of one domain take half of the threads: a slow name server must not take them all. A thread
        is taken until its look-up ends, however long ago nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        while len(busy := [future for future, of in self._running.copy().items() if of == domain]) >= _NUM_THREADS // 2:
            freed = asyncio.Event()
            for future in busy:
                future.add_done_callback(lambda _, freed=freed: call_soon(loop, freed.set))  # type: ignore[misc]
            await freed.wait()


def vetted(host: str, answers: Iterable[str], allowed_networks: Iterable[Network]) -> list[str]:
    """The answers without repetition, if every one of them may be dialled.

    Raises:
        UnsafeURL: one may not. A name with one bad answer among good ones is an attack, or will be one.
    """
    addresses, networks = list(dict.fromkeys(answers)), tuple(allowed_networks)
    for address in addresses:
        why = refusal(address, networks)
        if why is not None:
            raise UnsafeURL(f"{host} leads to {address}, which is {why} (FetchPolicy.allow_private_networks)")
    return addresses[:_MAX_ADDRESSES]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _look_up(host: str) -> list[str]:
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in answers]
