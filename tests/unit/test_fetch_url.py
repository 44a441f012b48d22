"""What a URL may look like, and that nothing but what was parsed is dialled."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuflow.config import FetchPolicy
from gpuflow.errors import InvalidOptions, InvalidSource, UnsafeURL
from gpuflow.fetch.url import CheckedURL, check_redirect, check_url, domain_allowed

DEFAULT = FetchPolicy(allowed_schemes=("http", "https"))
OPEN = FetchPolicy(allow_direct_ip=True, allow_direct_port=True, allowed_schemes=("http", "https"))
HTTPS_ONLY = FetchPolicy()

GOOD = [
    ("https://host.example/a.png", CheckedURL("https", "host.example", 443, "/a.png")),
    ("HTTP://Host.Example", CheckedURL("http", "host.example", 80, "/")),
    ("https://host.example?x=1", CheckedURL("https", "host.example", 443, "/?x=1")),
    ("https://host.example/a?x=/../b#c", CheckedURL("https", "host.example", 443, "/a?x=/../b")),
    ("https://host.example./a", CheckedURL("https", "host.example", 443, "/a")),
    ("https://host.example:443/a", CheckedURL("https", "host.example", 443, "/a")),
    ("http://host.example:443/a", CheckedURL("http", "host.example", 443, "/a")),
    ("https://localhost/a", CheckedURL("https", "localhost", 443, "/a")),
    ("https://a-b.c1.example/", CheckedURL("https", "a-b.c1.example", 443, "/")),
    ("https://1.2.3.4.example/", CheckedURL("https", "1.2.3.4.example", 443, "/")),
    ("https://bücher.example/ü?ö", CheckedURL("https", "xn--bcher-kva.example", 443, "/%C3%BC?%C3%B6")),
    ("https://xn--bcher-kva.example/", CheckedURL("https", "xn--bcher-kva.example", 443, "/")),
    ("https://bücher。example/", CheckedURL("https", "xn--bcher-kva.example", 443, "/")),
    ("https://host.example/a%20b?s=%2F&t=a+b", CheckedURL("https", "host.example", 443, "/a%20b?s=%2F&t=a+b")),
    ("https://host.example/user@name", CheckedURL("https", "host.example", 443, "/user@name")),
]


@pytest.mark.parametrize(("url", "checked"), GOOD, ids=[url for url, _ in GOOD])
def test_a_good_url_is_taken_apart(url: str, checked: CheckedURL) -> None:
    assert check_url(url, DEFAULT) == checked


NOT_A_URL = [
    "",
    "host.example/a",
    "//host.example/a",
    "https:",
    "https:/host.example/a",
    "https:host.example",
    "https://",
    "https:///a",
    "https://?x",
    "https://:443/",
    "https://./",
    "https://host..example/",
    "https://.host.example/",
    "https://host.example../",
    "https://-host.example/",
    "https://host-.example/",
    "https://ho_st.example/",
    "https://ho%73t.example/",
    "https://host.example%2f/",
    "https://host.example%00/",
    "https://host.example%25eth0/",
    "https://ho*st.example/",
    "https://host.example,evil.example/",
    "https://" + "a" * 64 + ".example/",
    "https://" + "a." * 127 + "example/",
    "https://host.example:/",
    "https://host.example:0/",
    "https://host.example:65536/",
    "https://host.example:99999/",
    "https://host.example:-1/",
    "https://host.example:8e1/",
    "https://host.example:٨٠/",
    "https://host.example:80:80/",
    "https://[::1/",
    "https://::1/",
    "https://[]/",
    "https://[::1]x/",
    "https://[127.0.0.1]/",
    "https://[v1.fe80]/",
    "https://[host.example]/",
    "http://127.0.0.1\\@host.example/",
    "http:\\\\host.example\\a",
    "https://host.example\\.evil.example/",
    "https://host.example\t.internal/",
    "https://host.example\n.internal/",
    "https://host.example/a\r\nX-Header: 1",
    "https://host.example/a b",
    " https://host.example/",
    "https://host.example/\x00",
    "https://host.example/\x7f",
    "https://xn--/",
    "https://xn--a/",
    "https://a.xn--zzzzzzzz99999.example/",
    "https://ｈost.example/",
    "https://a\u200bb.example/",
    "https://☃.example/",
    "https://host.example/\ud800",
    "https://host.example/" + "a" * 20_000,
]


@pytest.mark.parametrize("url", NOT_A_URL, ids=ascii)
def test_what_is_not_a_url_of_the_strict_form_is_an_invalid_source(url: str) -> None:
    with pytest.raises(InvalidSource):
        check_url(url, OPEN)


NUMBERS_IN_DISGUISE = [
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7f.1",
    "0x7f.0.0.0x1",
    "017700000001",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "0",
    "0x",
    "1.2.3",
    "1.2.3.4.5",
    "256.0.0.1",
    "127.0.0.01",
    "host.0x7f",
    "host.example.1",
    "127。0。0。1",
    "127．0．0．1",
    "127.0.0.1。",
]


@pytest.mark.parametrize("host", NUMBERS_IN_DISGUISE, ids=ascii)
def test_a_host_that_resolvers_read_as_a_number_is_refused(host: str) -> None:
    with pytest.raises(UnsafeURL):
        check_url(f"http://{host}/", OPEN)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host.example/a",
        "gopher://host.example/a",
        "ws://host.example/a",
        "javascript://host.example/a",
        "https://user@host.example/",
        "https://user:word@host.example/",
        "https://@host.example/",
        "https://host.example@evil.example/",
        "https://host.example:80@evil.example/",
        "https://host.example:22/",
        "https://host.example:8080/",
        "https://host.example:6379/",
        "https://8.8.8.8/",
        "https://8.8.8.8./",
        "https://[2606:4700::1111]/",
        "https://127.0.0.1/",
        "https://[::1]/",
    ],
)
def test_a_well_formed_url_that_the_default_policy_does_not_allow_is_unsafe(url: str) -> None:
    with pytest.raises(UnsafeURL):
        check_url(url, DEFAULT)


def test_the_operator_may_open_addresses_ports_and_close_http() -> None:
    assert check_url("http://127.0.0.1:8080/", OPEN) == CheckedURL("http", "127.0.0.1", 8080, "/")
    assert check_url("http://[::FFFF:7F00:1]:81/", OPEN).host == "::ffff:7f00:1"
    with pytest.raises(UnsafeURL, match="allowed_schemes"):
        check_url("http://host.example/", HTTPS_ONLY)


@pytest.mark.parametrize("host", ["[fe80::1%eth0]", "[fe80::1%25eth0]", "[::1%1]"])
def test_an_address_of_one_interface_is_refused_even_where_addresses_are_open(host: str) -> None:
    with pytest.raises(UnsafeURL):
        check_url(f"http://{host}/", OPEN)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.png", "https://host.example:443/b.png"),
        ("b.png?x", "https://host.example:443/a/b.png?x"),
        ("../b.png", "https://host.example:443/b.png"),
        ("//other.example/b", "https://other.example:443/b"),
        ("https://other.example/b", "https://other.example:443/b"),
    ],
)
def test_a_redirect_is_followed_from_where_it_was(location: str, target: str) -> None:
    base = check_url("https://host.example/a/x.png", DEFAULT)
    assert check_redirect(base, location, DEFAULT).text == target


@pytest.mark.parametrize(
    "location",
    [
        "http://other.example/b",
        "http://host.example/b",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
        "data:image/png;base64,AAAA",
        "//169.254.169.254/latest",
        "http://2130706433/",
        "https://user@other.example/",
        "https://other.example:22/",
        "https://other.example\\@127.0.0.1/",
        "https://[::1/",
        "https://other\t.example/",
        "https://xn--/",
        "/" + "a" * 20_000,
    ],
)
def test_a_redirect_is_checked_like_the_first_url(location: str) -> None:
    with pytest.raises(UnsafeURL):
        check_redirect(check_url("https://host.example/a", DEFAULT), location, DEFAULT)


@pytest.mark.parametrize(
    ("host", "domains", "allowed"),
    [
        ("a.example", None, True),
        ("a.example", (), False),
        ("a.example", ("a.example",), True),
        ("a.example", ("A.Example.",), True),
        ("b.a.example", ("a.example",), False),
        ("xa.example", ("a.example",), False),
        ("a.example.evil.example", ("a.example",), False),
        ("b.a.example", ("*.a.example",), True),
        ("c.b.a.example", ("*.a.example",), True),
        ("a.example", ("*.a.example",), False),
        ("xa.example", ("*.a.example",), False),
        ("xn--bcher-kva.example", ("bücher.example",), True),
        ("10.0.0.1", ("10.0.0.1",), True),
        ("::1", ("[0::1]",), True),
    ],
)
def test_domains_match_whole_names_and_stars_match_subdomains(
    host: str, domains: tuple[str, ...] | None, allowed: bool
) -> None:
    assert domain_allowed(host, domains) is allowed


@pytest.mark.parametrize("domain", ["https://a.example", "a.example:443", "a b", "", "*", "*.", "*.10.0.0.1", "a.*.b"])
def test_a_domain_that_can_never_match_is_told_to_the_operator(domain: str) -> None:
    with pytest.raises(InvalidOptions, match="allowed_media_domains"):
        domain_allowed("a.example", (domain,))


def test_a_name_that_is_not_on_the_list_is_refused_whatever_its_case() -> None:
    policy = FetchPolicy(allowed_media_domains=("a.example", "*.b.example"), allowed_schemes=("http", "https"))
    assert check_url("https://A.EXAMPLE./", policy).host == "a.example"
    assert check_url("https://x.b.example/", policy).host == "x.b.example"
    for url in ("https://b.example/", "https://evil.example/?a.example", "https://a.example.evil.example/"):
        with pytest.raises(UnsafeURL, match="allowed_media_domains"):
            check_url(url, policy)


def test_a_signature_stays_out_of_what_is_printed() -> None:
    assert "secret" not in repr(check_url("https://host.example/a?signature=secret", DEFAULT))


@given(st.from_regex(r"https?://[a-zA-Z0-9.\-@:\[\]%_\\]{1,20}(/[ -~]{0,10})?", fullmatch=True))
def test_what_passes_is_dialled_by_the_http_library_under_the_same_name_and_port(url: str) -> None:
    try:
        checked = check_url(url, OPEN)
    except (InvalidSource, UnsafeURL):
        return
    sent = httpx.URL(scheme=checked.scheme, host=checked.host, port=checked.port, raw_path=checked.target.encode())
    assert sent.raw_host.decode() == checked.host
    assert (sent.port or {"http": 80, "https": 443}[sent.scheme]) == checked.port


@given(st.text(max_size=40))
def test_any_text_ends_in_a_url_or_one_of_two_errors(text: str) -> None:
    for url in (text, f"https://{text}", f"https://host.example/{text}"):
        try:
            check_url(url, OPEN)
        except (InvalidSource, UnsafeURL):
            continue
