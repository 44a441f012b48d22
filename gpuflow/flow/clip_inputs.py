"""What a stream of frames is made of: bytes that are all here, or a body that still comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from gpuflow.codecs.video.progressive import open_growing
from gpuflow.fetch import GrowingBody
from gpuflow.fetch.growing import ENDLESS
from gpuflow.flow.context import LoadContext
from gpuflow.flow.dispatch import recognise
from gpuflow.flow.turns import Turn
from gpuflow.isolation.decoding import Clip, InProcess
from gpuflow.media import Blob


class ClipInput(Protocol):
    """Bytes of a clip; used on one thread, but for what is said of them."""

    @property
    def content_hash(self) -> str | None:
        """``None`` until all of them are here; of a body in parts it stays so."""
        ...

    def opened(self, context: LoadContext) -> AbstractContextManager[Clip]:
        """The clip, as often as it is wanted."""
        ...

    @property
    def settled(self) -> bool:
        """Whether the fetch can no more turn out to have failed, as far as it went."""
        ...

    def settle(self) -> None:
        """Wait for that."""
        ...

    def complete(self) -> None:
        """Wait until all of them are here; and open the clip from all of them from now on."""
        ...


class WholeClip:
    """``ClipInput`` of fetched bytes."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob

    @property
    def content_hash(self) -> str | None:
        """See ``ClipInput``."""
        return self._blob.content_hash

    @property
    def settled(self) -> bool:
        """See ``ClipInput``."""
        return True

    def settle(self) -> None:
        """See ``ClipInput``."""

    @contextmanager
    def opened(self, context: LoadContext) -> Iterator[Clip]:
        """See ``ClipInput``."""
        kind, _ = recognise(self._blob, "video", context)
        with context.decoder(self._blob, kind, "video") as decoder, decoder.clip() as clip:
            yield clip

    def complete(self) -> None:
        """See ``ClipInput``."""


class GrowingClip:
    """``ClipInput`` of a body that still comes. While it waits, the thread holds no decode permit.

    ``check``: raises when nobody wants the frames any more.
    """

    def __init__(self, body: GrowingBody, turn: Turn, decoding: InProcess, check: Callable[[], None]) -> None:
        self._body = body
        self._turn = turn
        self._decoding = decoding
        self._check = check
        self._whole: WholeClip | None = None

    @property
    def announced(self) -> int | None:
        """See ``GrowingBytes``."""
        return self._body.announced

    @property
    def in_parts(self) -> bool:
        """See ``GrowingBytes``."""
        return self._body.in_parts

    @property
    def content_hash(self) -> str | None:
        """See ``ClipInput``."""
        return self._whole.content_hash if self._whole is not None else self._body.content_hash

    @property
    def settled(self) -> bool:
        """See ``ClipInput``."""
        return self.content_hash is not None or self._body.in_parts

    def expect(self, extents: Iterable[tuple[int, int]]) -> None:
        """See ``GrowingBytes``."""
        self._body.expect(extents)

    def has(self, first: int, end: int) -> bool:
        """See ``GrowingBytes``."""
        return self._body.has(first, end)

    def read(self, first: int, end: int) -> bytes:
        """See ``GrowingBytes``."""
        return self._body.read(first, end)

    def wait(self, first: int, end: int) -> bool:
        """See ``GrowingBytes``."""
        if not self._body.settled(first, end):
            with self._turn.given_up():
                self._body.wait(first, end, self._check)
        return self._body.wait(first, end, self._check)

    @contextmanager
    def opened(self, context: LoadContext) -> Iterator[Clip]:
        """See ``ClipInput``: from its header, where that tells enough; else from all of it."""
        limits, deadline = context.limits, context.deadline
        if self._whole is None:
            deadline.limit(limits.decode_seconds("video"))
            if (source := open_growing(self, limits=limits, deadline=deadline)) is not None:
                yield self._decoding.clip_of(source, limits=limits, deadline=deadline)
                return
            self.complete()
        if self._whole is not None:
            with self._whole.opened(context) as clip:
                yield clip

    def settle(self) -> None:
        """See ``ClipInput``."""
        if not self.settled:
            self.wait(0, ENDLESS)

    def complete(self) -> None:
        """See ``ClipInput``."""
        if self._whole is None:
            with self._turn.given_up():
                blob = self._body.wait_for_all(self._check)
            self._whole = WholeClip(blob)
