"""Whether an IP address may be dialled: only public unicast, and networks that the operator opened."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gpuflow.errors import InvalidOptions

Network = IPv4Network | IPv6Network

# ipaddress.is_global is True for most of these, or was before Python 3.13: it describes registration, not reachability.
_REFUSED_IPV4 = tuple(
    (IPv4Network(cidr), why)
    for cidr, why in (
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("100.64.0.0/10", "shared address space of carriers and clouds"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.88.99.0/24", "6to4 relays"),
        ("168.63.129.16/32", "Azure's host"),
    )
)
# Whatever lies outside 2000::/3 is refused as a whole: loopback, link-local, unique local, site-local, multicast,
# IPv4-compatible and IPv4-translated addresses, NAT64 with its local form, SRv6.
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_REFUSED_IPV6 = tuple(
    (IPv6Network(cidr), why)
    for cidr, why in (
        ("2001::/23", "protocol assignments, Teredo among them"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4, which embeds an IPv4 address"),
        ("3fff::/20", "documentation"),
    )
)
_ISATAP_IDENTIFIERS = (0x00005EFE, 0x02005EFE)  # the upper half of an interface identifier that embeds an IPv4 address


def parse_networks(cidrs: Iterable[str]) -> tuple[Network, ...]:
    """``FetchPolicy.allow_private_networks`` as networks.

    Raises:
        InvalidOptions: not a network, or one with host bits set.
    """
    return tuple(_network(cidr) for cidr in cidrs)


def refusal(address: str, allowed_networks: Iterable[Network] = ()) -> str | None:
    """Why this address must not be dialled; ``None`` where it may be.

    ``address``: text of an IPv4 or IPv6 address, as a resolver answers it. An IPv4-mapped one is judged as its IPv4.
    What lies in one of ``allowed_networks`` may be dialled, whatever it is.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "not an IP address"
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:
            return "scoped to one interface"
        parsed = parsed.ipv4_mapped or parsed
    if any(parsed.version == network.version and parsed in network for network in allowed_networks):
        return None
    return _ipv4_refusal(parsed) if isinstance(parsed, IPv4Address) else _ipv6_refusal(parsed)


def _ipv4_refusal(address: IPv4Address) -> str | None:
    for network, why in _REFUSED_IPV4:
        if address in network:
            return why
    return None if address.is_global else "not a public address"


def _ipv6_refusal(address: IPv6Address) -> str | None:
    if address not in _GLOBAL_IPV6:
        return "not a public address"
    for network, why in _REFUSED_IPV6:
        if address in network:
            return why
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP_IDENTIFIERS:
        return "ISATAP, which embeds an IPv4 address"
    return None if address.is_global else "not a public address"


def _network(cidr: str) -> Network:
    try:
        return ip_network(cidr)
    except ValueError as error:
        raise InvalidOptions(
            f"allow_private_networks holds networks like '10.0.0.0/8'; got {cidr!r}: {error}"
        ) from error
