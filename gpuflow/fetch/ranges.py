"""Large bodies in parts: what a server says of a part, and which parts are left. HTTP's range requests (RFC 9110, 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpuflow.errors import FetchFailed, TooLarge

AT_ONCE = 4
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_STRONG = re.compile(r'"[\x21\x23-\x7e]*"')


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``first`` to ``last`` of ``total``; ``version`` is the server's strong name (ETag) of the whole, if any."""

    first: int
    last: int
    total: int
    version: str | None

    @classmethod
    def of(cls, content_range: str | None, etag: str | None, *, host: str) -> Part:
        """What the head of a partial answer says.

        Raises:
            FetchFailed: it says nothing sensible.
        """
        match = _CONTENT_RANGE.fullmatch(content_range or "")
        if match is None:
            raise FetchFailed(f"{host} answers with a part and does not say which")
        first, last, total = (int(number) for number in match.groups())
        if not first <= last < total:
            raise FetchFailed(f"{host} answers with a part that cannot be: {first}-{last}/{total}")
        return cls(first, last, total, etag if etag and _STRONG.fullmatch(etag) else None)

    @property
    def nbytes(self) -> int:
        """Bytes of this part."""
        return self.last - self.first + 1

    def require_first(self, nbytes: int, limit: int, *, host: str) -> None:
        """Raise ``TooLarge`` if the whole has more than ``limit`` bytes, ``FetchFailed`` unless this is the beginning of
        ``nbytes`` that was asked for."""
        if self.total > limit:
            raise TooLarge(f"{host} announces {self.total} bytes; {limit} are allowed")
        if self.first != 0 or self.last != min(nbytes, self.total) - 1:
            raise FetchFailed(f"{host} answers with another part than was asked for")

    def rest(self, nbytes: int) -> list[Part]:
        """What is left, in parts of ``nbytes``."""
        starts = range(self.last + 1, self.total, nbytes)
        return [Part(first, min(first + nbytes, self.total) - 1, self.total, self.version) for first in starts]
