"""One parse of a URL, and everything that can be refused before a name is looked up.

What is dialled later is what was parsed here; no second parser sees the text.
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from gpuflow.config import FetchPolicy
from gpuflow.errors import InvalidOptions, InvalidSource, UnsafeURL

MAX_URL_CHARACTERS = 16_384
_MAX_HOST_CHARACTERS = 253
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")  # parsers disagree about each of them
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?"
)
_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a last label that makes resolvers read the host as an IPv4 number
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class CheckedURL:
    """A URL that passed: ``host`` is a lower-case A-label name, or an IP address without brackets.

    ``target`` (path and query) may carry a signature: it stays out of messages.
    """

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)

    @property
    def text(self) -> str:
        """The URL again, for joining a redirect's relative reference."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.target}"


def check_url(url: str, policy: FetchPolicy) -> CheckedURL:
    """Parse ``url`` and hold it against the policy. Addresses behind a name are checked when it is looked up.

    Raises:
        InvalidSource: not an absolute URL of this strict syntax.
        UnsafeURL: its scheme, user, host, port or domain is not allowed.
    """
    parts = _split(url)
    scheme = parts["scheme"].lower()
    if scheme not in policy.allowed_schemes:
        raise UnsafeURL(f"the scheme {scheme[:20]!r} is not allowed; FetchPolicy.allowed_schemes names those that are")
    if "@" in parts["authority"]:
        raise UnsafeURL("a URL with a user name or password is not allowed")
    host, is_address, port = _split_authority(parts["authority"])
    port = _DEFAULT_PORTS[scheme] if port is None else port
    if is_address and not policy.allow_direct_ip:
        raise UnsafeURL(f"{host} is an IP address; only names are allowed (FetchPolicy.allow_direct_ip)")
    if port not in _DEFAULT_PORTS.values() and not policy.allow_direct_port:
        raise UnsafeURL(f"port {port} is not allowed; only 80 and 443 are (FetchPolicy.allow_direct_port)")
    if not domain_allowed(host, policy.allowed_media_domains):
        raise UnsafeURL(f"{host} is not among FetchPolicy.allowed_media_domains")
    target = (parts["path"] or "/") + (parts["query"] or "")
    return CheckedURL(scheme, host, port, urllib.parse.quote(target, safe=_ASCII))


def check_redirect(base: CheckedURL, location: str, policy: FetchPolicy) -> CheckedURL:
    """The URL that a redirect leads to, checked as a whole; never from https to http.

    Raises:
        UnsafeURL: it is not allowed, or not a URL.
    """
    try:
        if len(location) > MAX_URL_CHARACTERS or _FORBIDDEN.search(location):
            raise InvalidSource("a Location that is too long, or holds a space, control character or backslash")
        url = check_url(urllib.parse.urljoin(base.text, location), policy)
    except ValueError as error:  # InvalidSource, or what urljoin says of brackets
        raise UnsafeURL(f"{base.host} redirects to something that is not a URL: {error}") from error
    if base.scheme == "https" and url.scheme != "https":
        raise UnsafeURL(f"{base.host} redirects from https to {url.scheme}")
    return url


def domain_allowed(host: str, domains: tuple[str, ...] | None) -> bool:
    """Whether the host is on the list: ``None`` is any, ``"a.b"`` itself only, ``"*.a.b"`` its subdomains only.

    Raises:
        InvalidOptions: the list holds something that is not a host.
    """
    if domains is None:
        return True
    exact, parents = _compile_domains(domains)
    labels = host.split(".")
    return host in exact or any(".".join(labels[start:]) in parents for start in range(1, len(labels)))


@functools.lru_cache(maxsize=16)
def _compile_domains(domains: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    exact: set[str] = set()
    parents: set[str] = set()
    for domain in domains:
        wildcard = domain.startswith("*.")
        try:
            host, is_address, port = _split_authority(domain[2:] if wildcard else domain)
        except (InvalidSource, UnsafeURL) as error:
            raise InvalidOptions(f"allowed_media_domains: {domain!r} is not a host: {error}") from error
        if port is not None or (wildcard and is_address):
            raise InvalidOptions(
                f"allowed_media_domains holds hosts, without port or scheme, or '*.host'; got {domain!r}"
            )
        (parents if wildcard else exact).add(host)
    return frozenset(exact), frozenset(parents)


def _split(url: str) -> dict[str, str]:
    if not isinstance(url, str) or len(url) > MAX_URL_CHARACTERS:
        raise InvalidSource(f"a URL is text of at most {MAX_URL_CHARACTERS} characters")
    if _FORBIDDEN.search(url):
        raise InvalidSource("a URL holds no space, control character or backslash: percent-encode them")
    if not url.isascii():
        try:
            url.encode()
        except UnicodeEncodeError as error:
            raise InvalidSource("a URL holds no lone surrogates") from error
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidSource("not an absolute URL of the form https://host/path")
    return match.groupdict()


def _split_authority(authority: str) -> tuple[str, bool, int | None]:
    """Host, whether it is an IP address, and the port where one is given."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise InvalidSource("a URL's host is a name or an IP address, and its port a number")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 1 <= port <= 65_535:
        raise InvalidSource(f"a port lies in 1..65535; got {port}")
    if match["ipv6"] is not None:
        return _ipv6(match["ipv6"]), True, port
    return *_name_or_ipv4(match["name"]), port


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError as error:
        raise InvalidSource("not an IPv6 address between the brackets") from error
    if address.scope_id is not None:
        raise UnsafeURL("an IPv6 address that is scoped to one interface is not allowed")
    return str(address)


def _name_or_ipv4(name: str) -> tuple[str, bool]:
    host = _to_ascii(name.lower()).removesuffix(".")
    labels = host.split(".")
    if len(host) > _MAX_HOST_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidSource("a host name is letters, digits and hyphens between dots")
    if not _NUMBER.fullmatch(labels[-1]):
        return host, False
    try:
        address = IPv4Address(host)
    except ValueError as error:
        raise UnsafeURL("a host that is a number is not allowed, other than a.b.c.d in decimal") from error
    if not name.isascii():
        raise UnsafeURL("an IP address in other than ASCII characters is not allowed")
    return str(address), True


def _to_ascii(name: str) -> str:
    """The A-label form of an international name (IDNA 2008)."""
    if name.isascii() and "xn--" not in name:
        return name
    if len(name) > _MAX_HOST_CHARACTERS:
        raise InvalidSource(f"a host name has at most {_MAX_HOST_CHARACTERS} characters")
    import idna

    try:
        return idna.encode(name).decode("ascii")
    except ValueError as error:
        raise InvalidSource("not a valid international host name (IDNA 2008)") from error
