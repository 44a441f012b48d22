"""What a request's URL may not lead to: every form that others let through, and no connection for any of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from gpuflow.config import FetchPolicy, Limits
from gpuflow.errors import FetchFailed, GpuflowError, InvalidSource, UnsafeURL
from gpuflow.fetch import Fetcher, resolve
from gpuflow.media import Source
from tests.tally import Tally

OPEN = {
    "allow_direct_ip": True,
    "allow_direct_port": True,
    "allowed_schemes": ["http", "https"],
}  # so that the address itself is what is refused
IPV4 = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.127.127.127",
    "2130706433",
    "0x7f000001",
    "0x7F000001",
    "0x7f.1",
    "0x7f.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "0",
    "0.0.0.0",
    "00000000",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "4294967297",
    "127.0.0.0x1",
    "127.0.0.1.0",
    "256.0.0.1",
    "127.0.0.256",
    "1.2.3",
    "0x",
]
IPV6 = [
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:0:127.0.0.1]",
    "[::127.0.0.1]",
    "[::169.254.169.254]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::]",
    "[2001::1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[4000::1]",
    "[1::1]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[100::1]",
    "[2001:470:0:1:0:5efe:7f00:1]",
    "[2001:470:0:1:200:5efe:7f00:1]",
    "[::1%25lo]",
    "[v1.::1]",
    "[127.0.0.1]",
    "[::1",
    "::1]",
    "[[::1]]",
]
NAMES = [
    "localhost", "LOCALHOST", "localhost.", "LocalHost.", "ip6-localhost", "127。0。0。1", "127．0．0．1",
    "①②⑦.⓪.⓪.①", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "0x7f。1", "%6c%6f%63%61%6c%68%6f%73%74", "127%2e0%2e0%2e1", "loc\u00adalhost", "localhost%00.a.example",
    "-localhost", "local_host", "a..b", ".", "..", "xn--", "xn--a", "a" * 64 + ".example", ".".join(["a" * 60] * 5), "exa mple.com",
    "example.com\t", "exam\nple.com", "\u202elocalhost", "localhost\u3002", "*", "a*b", "a,b", "a;b", "a'b", "a$b",
]  # fmt: skip
WHOLE = [
    "http://a.example@{canary}/", "http://{canary}@a.example/", "http://a.example:b@{canary}/", "http://{canary}\\@a.example/",
    "http://a.example\\@{canary}/", "http://a.example#@{canary}/../", "http://a.example?@{canary}/",
    "http://{canary}%2f@a.example/", "http://{canary}%00.a.example/", "http:///{canary}/", "http:/{canary}/", "http:{canary}/",
    "//{canary}/", "{canary}/", "http:\\\\{canary}\\", "http:/\\{canary}/", "ht\ttp://{canary}/", " http://{canary}/", "http://{canary}/ x",
    "http://{canary}/\r\nHost: a.example", "http://[::1", "http://::1/", "http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://127.0.0.1:-1/",
    "http://127.0.0.1:+80/", "http://127.0.0.1:80:80/", "http://127.0.0.1:8O/", "http://127.0.0.1:\u0668\u0660/", "http://", "http://:80/",
    "HTTP://{canary}/", "https://{canary}/", "ftp://{canary}/", "gopher://{canary}/_x", "dict://{canary}/info", "ldap://{canary}/",
    "tftp://{canary}/", "ws://{canary}/", "unix:///run/x.sock", "http+unix://%2Frun%2Fx.sock/", "jar:http://{canary}!/", "netdoc:///etc/passwd",
    "javascript:fetch('http://{canary}')", "file:///etc/passwd", "file://{canary}/etc/passwd", "FILE:/etc/passwd", "file:///proc/self/environ",
    "concat:http://{canary}/|x", "subfile,,start,0,end,0,,:/etc/passwd", "rtsp://{canary}/", "srt://{canary}", "udp://{canary}", "tcp://{canary}",
    "pipe:0", "crypto:http://{canary}/", "hls+http://{canary}/x.m3u8", "/etc/passwd", "../../etc/passwd", "~/.ssh/id_rsa", "\\\\{canary}\\share",
]  # fmt: skip
ANSWERS = {  # what a name server may answer
    "loopback": ["127.0.0.1"], "loopback, IPv6": ["::1"], "this host": ["0.0.0.0"], "metadata": ["169.254.169.254"],
    "private after public": ["93.184.215.14", "10.0.0.1"], "private before public": ["192.168.1.1", "93.184.215.14"],
    "mapped": ["::ffff:127.0.0.1"], "NAT64": ["64:ff9b::7f00:1"], "6to4": ["2002:7f00:1::"], "link-local": ["fe80::1%lo"],
    "unique local": ["fd00::1"], "Azure's host": ["168.63.129.16"], "carrier's": ["100.64.0.1"], "multicast": ["224.0.0.251"],
    "broadcast": ["255.255.255.255"], "Teredo": ["2001::1"], "ISATAP": ["2001:470:0:1:0:5efe:7f00:1"], "nonsense": ["a.example"], "nothing": [],
}  # fmt: skip
SPECIAL = [
    ip_network(cidr)  # IANA's registries of special-purpose addresses, multicast, and the clouds' own
    for cidr in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
        "::/3",
        "4000::/2",
        "8000::/1",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    ]
]


class Canary:
    """Listens on loopback, on one port of both families, and must never be called."""

    def __init__(self) -> None:
        self.calls = 0
        self.where = ""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Canary]:
        async with (
            await asyncio.start_server(self._called, "127.0.0.1", 0) as first,
            contextlib.AsyncExitStack() as stack,
        ):
            port = first.sockets[0].getsockname()[1]
            self.where = f"127.0.0.1:{port}"
            with contextlib.suppress(OSError):  # no IPv6 here
                await stack.enter_async_context(await asyncio.start_server(self._called, "::1", port))
            yield self

    async def _called(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        writer.close()

    @property
    def port(self) -> str:
        return self.where.rpartition(":")[2]


def _urls() -> Iterator[str]:
    for host in [*IPV4, *IPV6, *NAMES]:
        yield f"http://{host}:{{port}}/a.png"
    for host in [*IPV4[:20], *IPV6[:20]]:
        yield f"https://{host}/a.png"
    yield from WHOLE


URLS = list(_urls())


@pytest.fixture(autouse=True)
def _no_name_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of this machine are looked up for real; no other name exists."""
    look_up = resolve._look_up

    def answer(host: str) -> list[str]:
        if host not in ("localhost", "ip6-localhost"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return look_up(host)

    monkeypatch.setattr(resolve, "_look_up", answer)


async def _refused(url: str, policy: FetchPolicy) -> type[GpuflowError]:
    async with Fetcher(policy, Limits()) as fetcher:
        with pytest.raises(GpuflowError) as raised:
            await fetcher.fetch(Source.of(url))
    return type(raised.value)


@pytest.mark.parametrize("url", URLS, ids=[f"{number}-{ascii(url)[1:50]}" for number, url in enumerate(URLS)])
def test_no_url_leads_to_where_it_may_not(url: str, tally: Tally) -> None:
    async def run() -> None:
        async with Canary().listening() as canary:
            target = url.replace("{canary}", canary.where).replace("{port}", canary.port)
            for policy in (FetchPolicy(), FetchPolicy.from_mapping(OPEN)):
                assert await _refused(target, policy) in (UnsafeURL, InvalidSource, FetchFailed)
            assert canary.calls == 0
            tally("forged URLs, under two policies each", cases=2, connections=canary.calls)

    asyncio.run(run())


@pytest.mark.parametrize("url", URLS, ids=[f"{number}-{ascii(url)[1:50]}" for number, url in enumerate(URLS)])
def test_no_redirect_leads_to_where_it_may_not(url: str, tally: Tally) -> None:
    """The first hop is allowed, and sends on: on 127.0.0.2, so that the canary's address is another."""

    async def run() -> None:
        async with Canary().listening() as canary:
            target = url.replace("{canary}", canary.where).replace("{port}", canary.port)
            location = target.encode("utf-8").replace(b"\r", b"").replace(b"\n", b"")

            async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")
                await writer.drain()
                writer.close()

            async with await asyncio.start_server(redirect, "127.0.0.2", 0) as first:
                start = f"http://127.0.0.2:{first.sockets[0].getsockname()[1]}/"
                policy = FetchPolicy.from_mapping({**OPEN, "allow_private_networks": ["127.0.0.2/32"]})
                assert await _refused(start, policy) in (UnsafeURL, InvalidSource, FetchFailed)
            assert canary.calls == 0
            tally("redirects to forged URLs", cases=1, connections=canary.calls)

    asyncio.run(run())


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
def test_no_answer_of_a_name_server_leads_to_where_it_may_not(
    answers: list[str], tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled = _spied(monkeypatch, lambda _: answers)
    kind = asyncio.run(_refused("https://a.example/a.png", FetchPolicy()))
    assert kind in (UnsafeURL, FetchFailed)
    assert dialled == []
    tally("names that lead to forbidden addresses", cases=1, connections=len(dialled))


def test_a_name_that_changes_its_answer_is_looked_up_once(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def answer(host: str) -> list[str]:
        looked_up.append(host)
        return ["93.184.215.14"] if len(looked_up) == 1 else ["127.0.0.1"]

    dialled = _spied(monkeypatch, answer)
    assert asyncio.run(_refused("https://a.example/a.png", FetchPolicy())) is FetchFailed
    assert (looked_up, dialled) == (["a.example"], [("93.184.215.14", 443)])
    tally("names that lead to forbidden addresses", cases=1, connections=0)


def test_ten_thousand_random_urls_dial_public_addresses_only(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(4)
    addresses = [_random_address(rng) for _ in range(500)]
    dialled = _spied(monkeypatch, lambda _: rng.sample(addresses, rng.choice((1, 1, 1, 2, 3))))

    async def run() -> int:
        refused = 0
        async with Fetcher(FetchPolicy.from_mapping(OPEN), Limits()) as fetcher:
            for _ in range(10_000):
                try:
                    await fetcher.fetch(Source.of(_random_url(rng)))
                except FetchFailed:  # the spy dials nothing
                    continue
                except GpuflowError:
                    refused += 1
        return refused

    refused = asyncio.run(run())
    assert 1_000 < refused < 9_900, "both were tried"
    assert len(dialled) > 100
    forbidden = [address for address, _ in dialled if _is_special(address)]
    assert forbidden == []
    tally("random URLs", cases=10_000, refused=refused, dialled=len(dialled), forbidden=len(forbidden))


def _spied(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[tuple[str, int]]:
    """Names are answered by the attacker; what would be dialled is noted, and refuses."""
    dialled: list[tuple[str, int]] = []

    async def note(address: str, port: int) -> socket.socket:
        dialled.append((address, port))
        raise ConnectionRefusedError

    monkeypatch.setattr("gpuflow.fetch.resolve._look_up", answer)
    monkeypatch.setattr("gpuflow.fetch._http._connected_socket", note)
    return dialled


def _is_special(address: str) -> bool:
    parsed = ip_address(address)
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    isatap = parsed.version == 6 and (int(parsed) >> 32) & 0xFDFFFFFF == 0x00005EFE
    return isatap or any(parsed in network for network in SPECIAL if network.version == parsed.version)


def _random_address(rng: random.Random) -> str:
    if rng.random() < 0.5:
        special = rng.choice([network for network in SPECIAL if network.version == 4])
        inside = special.network_address + rng.randrange(special.num_addresses)
        return rng.choice([str(inside), str(ip_address(rng.randrange(1 << 32)))])
    wide = rng.choice([network for network in SPECIAL if network.version == 6])
    within = wide.network_address + rng.randrange(min(wide.num_addresses, 1 << 100))
    public = ip_address(0x26 << 120 | rng.randrange(1 << 112))
    mapped = f"::ffff:{ip_address(rng.randrange(1 << 32))}"
    return rng.choice([str(within), str(public), mapped])


def _random_url(rng: random.Random) -> str:
    hosts: list[Callable[[], str]] = [
        lambda: "".join(rng.choices("abc123.-", k=rng.randrange(1, 12))),
        lambda: ".".join(str(rng.randrange(300)) for _ in range(rng.randrange(1, 6))),
        lambda: hex(rng.randrange(1 << 33)),
        lambda: f"[{_random_address(rng)}]",
        lambda: _random_address(rng),
        lambda: rng.choice(NAMES),
        lambda: "".join(chr(rng.randrange(0x2E80)) for _ in range(rng.randrange(1, 6))),
        lambda: rng.choice(IPV4 + IPV6),
    ]
    host = rng.choice(hosts)()
    scheme = rng.choice(["http", "http", "https", "https", "HTTP", "ftp", "hTTps"])
    user = rng.choice(["", "", "", "", "a@", "a:b@", "127.0.0.1\\@"])
    port = rng.choice(["", "", "", ":80", ":443", ":8080", ":0", ":99999", ":x"])
    return f"{scheme}://{user}{host}{port}{rng.choice(['', '/', '/a.png', '/?q=@127.0.0.1', '#@127.0.0.1/'])}"
