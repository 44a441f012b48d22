"""Which addresses may be dialled: public unicast only, whatever form the address hides in."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuflow.errors import InvalidOptions, UnsafeURL
from gpuflow.fetch.address import parse_networks, refusal
from gpuflow.fetch.resolve import vetted

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "99.255.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.88.98.1",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2620:4f:8000::1",
    "2a00:1450:4001::1",
    "3ffe:ffff::1",
    "::ffff:8.8.8.8",
]
REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # metadata of a cloud
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure's host
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",  # Oracle's metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",  # IPv4-compatible
    "::169.254.169.254",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "::ffff:0:127.0.0.1",  # IPv4-translated
    "1::1",
    "64:ff9b::a9fe:a9fe",  # NAT64
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    "2001:10::1",
    "2001:db8::1",
    "2002:a9fe:a9fe::",  # 6to4
    "2002:7f00:1::1",
    "2a00:1450::5efe:7f00:1",  # ISATAP
    "2a00:1450::200:5efe:a00:1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata of a cloud
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_dialled(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("address", REFUSED)
def test_any_other_address_may_not(address: str) -> None:
    assert refusal(address)


@pytest.mark.parametrize("text", ["", "host.example", "127.1", "0177.0.0.1", "2130706433", "1.2.3.4/32", "[::1]"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refusal(text) == "not an IP address"


def test_an_opened_network_may_be_dialled_and_nothing_beside_it() -> None:
    opened = parse_networks(["10.1.0.0/16", "fd00::/8"])
    assert refusal("10.1.2.3", opened) is None
    assert refusal("::ffff:10.1.2.3", opened) is None
    assert refusal("fd00::5", opened) is None
    assert refusal("10.2.0.1", opened)
    assert refusal("fe80::1", opened)
    assert refusal("fd00::5%eth0", opened)


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "localhost", "10.0.0.0/33", ""])
def test_a_network_that_is_none_is_told_at_once(cidr: str) -> None:
    with pytest.raises(InvalidOptions, match="allow_private_networks"):
        parse_networks([cidr])


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_judged_alike_in_its_mapped_form(number: int) -> None:
    address = str(IPv4Address(number))
    assert refusal(address) == refusal(f"::ffff:{address}")


@given(st.ip_addresses().filter(lambda address: not address.is_global))
def test_what_the_registry_calls_not_global_is_never_dialled(address: object) -> None:
    parsed = ip_address(str(address))
    mapped = getattr(parsed, "ipv4_mapped", None)
    assert refusal(str(parsed)) or (mapped is not None and mapped.is_global)


def test_one_bad_answer_refuses_the_whole_name() -> None:
    with pytest.raises(UnsafeURL, match=r"169\.254\.169\.254"):
        vetted("host.example", ["8.8.8.8", "169.254.169.254", "1.1.1.1"], ())
    assert vetted("host.example", ["8.8.8.8", "1.1.1.1", "8.8.8.8"], ()) == ["8.8.8.8", "1.1.1.1"]


def test_a_name_with_many_addresses_is_checked_whole_and_dialled_in_part() -> None:
    many = [f"8.8.{index}.1" for index in range(200)]
    assert vetted("host.example", many, ()) == many[:4]
    with pytest.raises(UnsafeURL):
        vetted("host.example", [*many, "127.0.0.1"], ())
