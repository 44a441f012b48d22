"""A body that is read while it comes: bytes are added on the event loop and waited for on a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import blake3

from gpuflow.errors import GpuflowError
from gpuflow.media import Blob

_POLL_SECONDS = 0.02  # how soon a cancelled wait ends
ENDLESS = 1 << 62


class GrowingBody:
    """``announced`` is what the sender says that there are in all, if it says; it is never believed.

    ``hold``: told of every number of bytes before it is kept; it may raise. What was read stays right whatever comes
    later: bytes are only ever added behind those that are there.
    """

    def __init__(self, hold: Callable[[int], None] | None = None) -> None:
        self.announced: int | None = None
        self._hold = hold
        self._data = bytearray()
        self._hash = blake3.blake3()
        self._changed = threading.Condition(threading.RLock())
        self._declared_type: str | None = None
        self._content_hash: str | None = None
        self._error: GpuflowError | None = None

    def begin(self, announced: int | None, *, in_parts: bool) -> None:
        """The head of the answer came, of all or of the first part."""
        self.announced = announced

    def add(self, chunk: bytes) -> None:
        """The next bytes."""
        if self._hold is not None:
            self._hold(len(chunk))
        self._hash.update(chunk)
        with self._changed:
            self._data += chunk
            self._changed.notify_all()

    def finish(self, declared_type: str | None = None) -> None:
        """That was all."""
        with self._changed:
            self._declared_type, self._content_hash = declared_type, self._hash.hexdigest()
            self._changed.notify_all()

    def fail(self, error: GpuflowError) -> None:
        """No more comes, and that was not all."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    @property
    def content_hash(self) -> str | None:
        """Of all of it; ``None`` until that is there."""
        return self._content_hash

    @property
    def in_parts(self) -> bool:
        """Whether any bytes can be waited for without those before them; no hash of all of it is known then."""
        return False

    def expect(self, extents: Iterable[tuple[int, int]]) -> None:
        """These bytes, each from the first to before the second, will be waited for in this order."""

    def has(self, first: int, end: int) -> bool:
        """Whether the bytes from ``first`` to before ``end`` are there."""
        with self._changed:
            return self._has(first, end)

    def read(self, first: int, end: int) -> bytes:
        """These bytes, as far as they are there."""
        with self._changed, memoryview(self._data) as data:
            return bytes(data[first:end])

    def settled(self, first: int, end: int) -> bool:
        """Whether ``wait`` for these bytes would return or raise at once."""
        with self._changed:
            return self._settled(first, end)

    def wait(self, first: int, end: int, check: Callable[[], None]) -> bool:
        """Wait for these bytes; false where all has come and does not reach so far. ``check`` is called meanwhile and
        may raise.

        Raises:
            GpuflowError: what ended the fetch.
        """
        while True:
            with self._changed:
                if not self._settled(first, end):
                    self._changed.wait(_POLL_SECONDS)
                if self._settled(first, end):
                    break
            check()
        with self._changed:
            enough, error = self._has(first, end), self._error
        if not enough and error is not None:
            raise error
        return enough

    def wait_for_all(self, check: Callable[[], None]) -> Blob:
        """Wait for the end; raises as ``wait``."""
        self.wait(0, ENDLESS, check)
        data = self.read(0, ENDLESS)
        return Blob(data, self._content_hash or blake3.blake3(data).hexdigest(), self._declared_type)

    def _has(self, first: int, end: int) -> bool:
        return len(self._data) >= end

    def _settled(self, first: int, end: int) -> bool:
        return self._content_hash is not None or self._error is not None or self._has(first, end)
