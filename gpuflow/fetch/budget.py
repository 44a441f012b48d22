"""Bytes that the parts of one request may take together."""

from __future__ import annotations

import threading

from gpuflow.errors import TooLarge


class ByteBudget:
    """``nbytes`` to be taken by many fetches at once. Thread-safe; nothing comes back."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = self._left = nbytes
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return max(0, self._left)

    def take(self, nbytes: int) -> None:
        """Take some; ``TooLarge`` when they are used up."""
        with self._lock:
            self._left -= nbytes
            if self._left < 0:
                raise TooLarge(f"the request's parts take more than {self._nbytes} bytes (Limits.max_request_bytes)")
