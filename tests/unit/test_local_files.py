"""Files: any regular one for the library's caller, only those below a root for a request."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuflow.errors import GpuflowError, InvalidSource, SourceNotFound, SourceUnreadable, TooLarge, UnsafeURL
from gpuflow.fetch.local import path_of_url, read_trusted, read_untrusted

LIMIT = 1 << 20
NOBODY = 65_534


@pytest.fixture(autouse=True)
def _no_descriptor_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with files and links in it, and a secret beside it."""
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "a.png").write_bytes(b"inside")
    (root / "folder" / "b c.png").write_bytes(b"deep")
    (root / "100%.png").write_bytes(b"percent")
    (root / "link-inside").symlink_to("folder/b c.png")
    (root / "link-out").symlink_to("../secret")
    (root / "link-absolute").symlink_to(tmp_path / "secret")
    (root / "link-absolute-inside").symlink_to(root / "a.png")
    (root / "folder-out").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "magic").symlink_to("/proc/self/root")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "a.png").write_bytes(b"secret")
    os.mkfifo(root / "fifo")
    return root


def test_a_trusted_path_is_read(root: Path) -> None:
    assert read_trusted(str(root / "a.png"), LIMIT) == b"inside"
    assert read_trusted(os.fsencode(root / "a.png"), LIMIT) == b"inside"
    assert read_trusted((root / "folder" / "b c.png").as_uri(), LIMIT) == b"deep"
    assert read_trusted(str(root / "link-out"), LIMIT) == b"secret"


def test_an_empty_file_gives_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert read_trusted(str(tmp_path / "empty"), LIMIT) == b""


def test_a_file_at_its_limit_is_read_and_one_byte_more_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(3_000_000))
    assert read_trusted(str(path), 3_000_000) == path.read_bytes()
    with pytest.raises(TooLarge, match="3000000 bytes"):
        read_trusted(str(path), 2_999_999)


def test_a_file_that_claims_to_be_empty_is_read_to_its_end_and_no_further_than_its_limit() -> None:
    assert os.stat("/proc/self/status").st_size == 0
    assert read_trusted("/proc/self/status", LIMIT).startswith(b"Name:")
    with pytest.raises(TooLarge):
        read_trusted("/proc/self/status", 10)


def test_what_is_not_there_is_not_found(root: Path) -> None:
    for path in (root / "nothing", root / "a.png" / "below", root / ("x" * 300)):
        with pytest.raises(SourceNotFound):
            read_trusted(str(path), LIMIT)
    with pytest.raises(FileNotFoundError):  # the builtin catches it too
        read_trusted(str(root / "nothing"), LIMIT)


def test_what_is_no_regular_file_is_unreadable_and_does_not_block(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root)  # the address of a socket is at most 107 bytes long
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        for path in (root, root / "fifo", root / "socket", root / "loop", Path("/dev/null"), Path("/dev/zero")):
            with pytest.raises(SourceUnreadable):
                read_trusted(str(path), LIMIT)


def test_a_file_that_this_process_may_not_read_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_bytes(b"private")
    path.chmod(0)
    caught = _as_nobody(lambda: read_trusted(str(path), LIMIT))
    assert isinstance(caught, SourceUnreadable)
    assert isinstance(caught.__cause__, PermissionError)


def test_a_file_whose_bytes_cannot_be_read_is_unreadable() -> None:
    with pytest.raises(SourceUnreadable):  # regular, open to its owner, and an I/O error at address 0
        read_trusted("/proc/self/mem", LIMIT)


def test_a_path_with_a_nul_is_invalid() -> None:
    for path in ("a\0b", "file:///a%00b"):
        with pytest.raises(InvalidSource):
            read_trusted(path, LIMIT)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a/b%20c", "/a/b c"),
        ("FILE://localhost/a", "/a"),
        ("file:/a", "/a"),
        ("file:///a%2Fb", "/a/b"),
        ("file:///%C3%BC", "/ü"),
        ("file:///%ff", "/\udcff"),
    ],
)
def test_a_file_url_names_an_absolute_path(url: str, path: str) -> None:
    assert path_of_url(url) == path


@pytest.mark.parametrize(
    "url", ["file:", "file://", "file:a", "file://host/a", "file:////?x", "file:///a#b", "file:///%zz", "file:///a%"]
)
def test_any_other_file_url_is_invalid(url: str) -> None:
    with pytest.raises(InvalidSource):
        path_of_url(url)


@pytest.mark.parametrize(
    ("below", "data"),
    [
        ("a.png", b"inside"),
        ("folder/b%20c.png", b"deep"),
        ("folder/./b%20c.png", b"deep"),
        ("//a.png", b"inside"),
        ("100%25.png", b"percent"),
        ("link-inside", b"deep"),
    ],
)
def test_a_request_reads_what_lies_below_a_root(root: Path, below: str, data: bytes) -> None:
    assert read_untrusted(f"{root.as_uri()}/{below}", ("/nowhere", str(root)), LIMIT) == data


@pytest.mark.parametrize(
    "below",
    [
        "../secret",
        "folder/../../secret",
        "folder/../a.png",
        "%2e%2e/secret",
        "..%2fsecret",
        "link-out",
        "link-absolute",
        "link-absolute-inside",
        "folder-out/secret",
        "magic/etc/passwd",
        "loop",
    ],
)
def test_no_way_leads_out_of_a_root(root: Path, below: str) -> None:
    with pytest.raises(UnsafeURL):
        read_untrusted(f"{root.as_uri()}/{below}", (str(root),), LIMIT)


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "/dev/zero", "/"])
def test_a_request_reads_nothing_outside_the_roots(root: Path, path: str) -> None:
    for roots in ((), (str(root),)):
        with pytest.raises(UnsafeURL, match="local_roots"):
            read_untrusted(f"file://{path}", roots, LIMIT)


def test_a_folder_whose_name_only_begins_like_a_root_is_outside_it(root: Path) -> None:
    with pytest.raises(UnsafeURL):
        read_untrusted(f"{root.as_uri()}-2/a.png", (str(root),), LIMIT)


def test_magic_links_of_proc_are_not_followed() -> None:
    with open("/etc/passwd") as held, pytest.raises(UnsafeURL):
        read_untrusted(f"file:///proc/self/fd/{held.fileno()}", ("/proc",), LIMIT)


def test_below_a_root_too_only_regular_files_within_the_limit_are_read(root: Path) -> None:
    uri = root.as_uri()
    for below, error in (
        ("fifo", SourceUnreadable),
        ("folder", SourceUnreadable),
        ("", SourceUnreadable),
        ("no", SourceNotFound),
    ):
        with pytest.raises(error):
            read_untrusted(f"{uri}/{below}", (str(root),), LIMIT)
    with pytest.raises(TooLarge):
        read_untrusted(f"{uri}/a.png", (str(root),), 5)


def test_a_request_never_names_a_file_by_a_bare_path(root: Path) -> None:
    with pytest.raises(InvalidSource):
        read_untrusted(str(root / "a.png"), (str(root),), LIMIT)


def test_what_a_client_is_told_holds_no_path(root: Path) -> None:
    for url in ("file:///etc/passwd", f"{root.as_uri()}/nothing", f"{root.as_uri()}/fifo"):
        with pytest.raises(GpuflowError) as caught:
            read_untrusted(url, (str(root),), LIMIT)
        assert "/" not in caught.value.public_message


def test_a_link_that_is_swapped_during_the_read_never_shows_the_secret(root: Path) -> None:
    stop = threading.Event()
    swapped = root / "swapped"
    swapped.symlink_to("a.png")

    def swap() -> None:
        for target in ("../secret", "a.png") * 100_000:
            if stop.is_set():
                return
            (root / "next").symlink_to(target)
            os.replace(root / "next", swapped)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(3_000):
            seen.add(_read_or_none(f"{root.as_uri()}/swapped", str(root)))
    finally:
        stop.set()
        swapper.join()
    assert seen <= {b"inside", None}


def _read_or_none(url: str, root: str) -> bytes | None:
    try:
        return read_untrusted(url, (root,), LIMIT)
    except (UnsafeURL, SourceUnreadable):
        return None


def _as_nobody(work: Callable[[], object]) -> BaseException | None:
    """Run on a thread whose file system user is nobody, if we are root (root may read anything); what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        if os.geteuid() == 0:
            ctypes.CDLL(None).setfsuid(NOBODY)
        try:
            work()
        except GpuflowError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None
