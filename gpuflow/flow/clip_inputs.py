"""What a stream of frames is made of: bytes that are all here, or a body that still comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from gpuflow.codecs.video.progressive import open_growing
from gpuflow.fetch import GrowingBody
from gpuflow.flow.context import LoadContext
from gpuflow.flow.dispatch import recognise
from gpuflow.flow.turns import Turn
from gpuflow.isolation.decoding import Clip, InProcess
from gpuflow.media import Blob


class ClipInput(Protocol):
    """Bytes of a clip; used on one thread, but for what is said of them."""

    @property
    def content_hash(self) -> str | None:
        """``None`` until all of them are here."""
        ...

    def opened(self, context: LoadContext) -> AbstractContextManager[Clip]:
        """The clip, as often as it is wanted."""
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
    def content_hash(self) -> str | None:
        """See ``ClipInput``."""
        return self._body.content_hash

    def has(self, end: int) -> bool:
        """See ``GrowingBytes``."""
        return self._body.has(end)

    def read(self, first: int, last: int) -> bytes:
        """See ``GrowingBytes``."""
        return self._body.read(first, last)

    def wait(self, end: int) -> bool:
        """See ``GrowingBytes``."""
        if not self._body.settled(end):
            with self._turn.given_up():
                self._body.wait(end, self._check)
        return self._body.wait(end, self._check)

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

    def complete(self) -> None:
        """See ``ClipInput``."""
        if self._whole is None:
            self.wait(1 << 62)
            self._whole = WholeClip(self._body.wait_for_all(self._check))
