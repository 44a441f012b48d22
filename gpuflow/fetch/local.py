"""Files: those of the library's own caller by any path, those that a request names only below the operator's roots."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from gpuflow.errors import (
    BackendUnavailable,
    GpuflowError,
    InvalidSource,
    SourceNotFound,
    SourceUnreadable,
    TooLarge,
    UnsafeURL,
)

_STEP_BYTES = 1 << 20
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY  # a FIFO must not block the open
_FILE_URL = re.compile(r"file:(?://(?:localhost)?|(?!//))(?P<path>/[^?#]*)", re.IGNORECASE)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SYS_OPENAT2 = 437  # the same on every architecture that CPython's wheels exist for
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_RACE_RETRIES = 8
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def read_trusted(path: str | bytes, limit: int) -> bytes:
    """The file that the library's own caller named, by path or ``file://`` URL; blocking.

    Raises:
        InvalidSource: a malformed ``file://`` URL, or a path that holds a NUL.
        SourceNotFound, SourceUnreadable: no such file; not a regular file, or not readable for this process.
        TooLarge: more than ``limit`` bytes.
    """
    named = path_of_url(path) if isinstance(path, str) and _is_file_url(path) else path
    with _translated(named):
        return _read_and_close(os.open(named, _FLAGS), named, limit)


def read_untrusted(url: str, roots: Iterable[str], limit: int) -> bytes:
    """The file that a request's ``file://`` URL names, if it lies below one of ``roots``; blocking.

    No component of the path, no symbolic link and no race leads out of the root: the kernel resolves it (openat2,
    RESOLVE_BENEATH). Checking a resolved path and opening it afterwards let the secret out in 24 of 6000 races.

    Raises:
        InvalidSource: not a ``file://`` URL, or a malformed one.
        UnsafeURL: not below a root.
        SourceNotFound, SourceUnreadable, TooLarge: as ``read_trusted``.
        BackendUnavailable: this kernel has no openat2 (Linux 5.6).
    """
    if not _is_file_url(url):
        raise InvalidSource("a request names a file by a file:// URL")
    path = path_of_url(url)
    root, below = _root_of(path, roots)
    with _translated(path):
        return _read_and_close(_open_beneath(root, below), path, limit)


def path_of_url(url: str) -> str:
    """The absolute path in ``file:///path`` or ``file://localhost/path``, percent-decoded.

    Raises:
        InvalidSource: another host, a query or fragment, a broken escape, or a NUL.
    """
    match = _FILE_URL.fullmatch(url)
    if match is None or _BROKEN_ESCAPE.search(match["path"]):
        raise InvalidSource("not a file URL of the form file:///path, with ? # and % percent-encoded")
    try:
        path = os.fsdecode(urllib.parse.unquote_to_bytes(match["path"]))
    except UnicodeError as error:
        raise InvalidSource("a file URL that is not text") from error
    if "\0" in path:
        raise InvalidSource("a path holds no NUL")
    return path


def _is_file_url(text: object) -> bool:
    return isinstance(text, str) and text[:5].lower() == "file:"


def _root_of(path: str, roots: Iterable[str]) -> tuple[str, str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for root in roots:
        top = [part for part in os.path.abspath(root).split("/") if part]
        if ".." not in parts and parts[: len(top)] == top:
            return os.path.abspath(root), "/".join(parts[len(top) :]) or "."
    raise UnsafeURL(f"{path!r} is not below one of FetchPolicy.local_roots")


def _open_beneath(root: str, below: str) -> int:
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_RACE_RETRIES):
            descriptor, code = _openat2(folder, below)
            if code != errno.EAGAIN:  # the tree changed while it was walked
                break
    finally:
        os.close(folder)
    if code in (errno.EXDEV, errno.ELOOP):
        raise UnsafeURL(f"{below!r} leads out of {root!r} (FetchPolicy.local_roots)")
    if code == errno.ENOSYS:
        raise BackendUnavailable("FetchPolicy.local_roots needs openat2: Linux 5.6 or newer, and not filtered out")
    if code:
        raise OSError(code, os.strerror(code))
    return descriptor


def _openat2(folder: int, below: str) -> tuple[int, int]:
    """A descriptor and 0, or -1 and the error number."""
    how = _OpenHow(_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    descriptor = syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(folder),
        ctypes.c_char_p(os.fsencode(below)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return int(descriptor), ctypes.get_errno() if descriptor < 0 else 0


def _read_and_close(descriptor: int, path: str | bytes, limit: int) -> bytes:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SourceUnreadable(f"{path!r} is not a regular file")
        if status.st_size > limit:
            raise TooLarge(f"{path!r} has {status.st_size} bytes; {limit} are allowed")
        return _read(descriptor, status.st_size, path, limit)
    finally:
        os.close(descriptor)


def _read(descriptor: int, size: int, path: str | bytes, limit: int) -> bytes:
    """Until the end, which need not lie at ``size``: the file may grow, and those of /proc claim to be empty."""
    chunks, total = [], 0
    while chunk := os.read(descriptor, min(max(size - total, _STEP_BYTES) + 1, limit + 1 - total)):
        chunks.append(chunk)
        total += len(chunk)
        if total > limit:
            raise TooLarge(f"{path!r} has more than the {limit} bytes that are allowed")
    return b"".join(chunks)


@contextmanager
def _translated(path: str | bytes) -> Iterator[None]:
    try:
        yield
    except GpuflowError:  # some of ours are OSErrors or ValueErrors as well
        raise
    except OSError as error:
        if error.errno in _NOT_FOUND:
            raise SourceNotFound(f"no such file: {path!r}") from error
        raise SourceUnreadable(f"{path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidSource(f"not a path: {path!r}") from error
