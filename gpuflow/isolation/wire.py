"""What a decode worker and its parent say to each other: typed messages with their length before them.

The parent believes nothing: answers are decoded strictly, never unpickled, and their size is bounded. Encoded bytes
follow their job over the socket: 0.09 ms for 1 MB, against 0.14 by a shared ring and 0.32 by an anonymous file each
(medians, two shared cores).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from gpuflow.codecs.base import ImageInfo, MediaType, VideoInfo
from gpuflow.codecs.pcm import Origin
from gpuflow.codecs.video.plan import PacketRow, Segment
from gpuflow.config import Limits
from gpuflow.errors import (
    BackendUnavailable,
    CorruptMedia,
    DeadlineExceeded,
    DecoderCrashed,
    GpuflowError,
    InvalidOptions,
    LimitExceeded,
    NoSuchStream,
    SectionAfterEnd,
    UnsupportedFormat,
)

MAX_MESSAGE_BYTES = 16 << 20  # the times of half a million frames
MAX_TEXT = 500
_LENGTH = struct.Struct("<I")
_PART_BYTES = 1 << 16
_POLL_SECONDS = 0.02  # how soon a cancelled wait ends


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """One message."""


class Hello(_Message, frozen=True):
    """To a new worker, with the slab's descriptor beside it."""

    slab_bytes: int
    memory_bytes: int
    num_threads: int


class Job(_Message, frozen=True):
    """Begins a conversation; ``nbytes`` of encoded media follow. It ends with ``Done`` or ``Failed``."""

    nbytes: int
    kind: MediaType
    limits: Limits
    seconds: float


class ImageJob(Job, frozen=True):
    """Answered by ``Pixels``, which ``Put`` follows. ``least_size``: as ``decode_image``."""

    info: ImageInfo
    frame: int
    least_size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class AudioWanted:
    """A section, and the form in which it is wanted; ``sample_rate=None`` keeps the file's. ``stream``: as in
    ``AudioOptions``. ``native``, ``zero_seconds``: as in ``decode_audio``; the first is of the file's own rate and
    channels."""

    start_seconds: float = 0.0
    duration_seconds: float | None = None
    mono: bool = True
    sample_rate: int | None = None
    max_samples: int | None = None
    stream: int | str | None = None
    native: bool = False
    zero_seconds: float | None = None


class AudioJob(Job, frozen=True):
    """Answered by ``Sound``, which ``Put`` follows."""

    wanted: AudioWanted


class VideoJob(Job, frozen=True):
    """Answered by ``Opened``, which ``Plan`` follows, and then ``Decode``; or ``Describe`` and ``Packets``, until
    ``Stop``."""


class Plan(_Message, frozen=True):
    """Which frames are wanted; answered by ``Planned``."""

    indices: tuple[int, ...]


class Decode(_Message, frozen=True):
    """Where frames go: frame ``n`` to ``places[n]``, or, where that is empty, each to a free one of ``slots``, which
    ``Free`` gives back. Answered by a ``Frame`` each, in the order of display with ``in_order``."""

    places: dict[int, int]
    slots: tuple[int, ...]
    in_order: bool = False


class Describe(_Message, frozen=True):
    """What the container says about these packets; answered by ``Table``."""

    first: int
    last: int


class Packets(_Message, frozen=True):
    """Write the bytes of these packets without those ``skipped`` to a block of the slab, as much as it holds; answered
    by ``Payloads``."""

    first: int
    last: int
    skipped: tuple[int, ...]
    offset: int
    nbytes: int


class More(_Message, frozen=True):
    """The block was read: write what comes next to it. Answered by ``Payloads``."""


class Free(_Message, frozen=True):
    """A slot may be written again."""

    offset: int


class Put(_Message, frozen=True):
    """Write the result to this offset of the slab."""

    offset: int


class Stop(_Message, frozen=True):
    """Nobody wants the rest; answered by ``Done`` or ``Failed``."""


class Ready(_Message, frozen=True):
    """The worker is sandboxed and waits for jobs."""


class Pixels(_Message, frozen=True):
    """An image was decoded."""

    height: int
    width: int
    channels: int
    backend: str


class Sound(_Message, frozen=True):
    """Audio was decoded and resampled."""

    origin: Origin
    sample_rate: int
    shape: tuple[int, int]
    dtype: Literal["float32", "int16"] = "float32"


class Opened(_Message, frozen=True):
    """A clip was read."""

    info: VideoInfo
    pts_seconds: tuple[float, ...]
    key_indices: tuple[int, ...] = ()


class Planned(_Message, frozen=True):
    """The frames can be decoded, and how."""

    segments: tuple[Segment, ...]


class Table(_Message, frozen=True):
    """A row for each packet that was asked for."""

    rows: tuple[PacketRow, ...]


class Piece(NamedTuple):
    """Bytes of the packet at ``position``; ``whole``: its last ones."""

    position: int
    nbytes: int
    whole: bool


class Payloads(_Message, frozen=True):
    """Pieces of packets lie in the block, one after another; ``ended``: there are no more."""

    pieces: tuple[Piece, ...]
    ended: bool


class Frame(_Message, frozen=True):
    """One frame of this size lies at an offset of the slab; ``corrupt``: its decoder says that it is damaged."""

    index: int
    offset: int
    height: int
    width: int
    corrupt: bool = False


class Missing(_Message, frozen=True):
    """Frames that were wanted in order and cannot be decoded."""

    indices: tuple[int, ...]


class Done(_Message, frozen=True):
    """The end of a conversation; the worker writes nothing more. ``missing``: wanted frames that cannot be decoded."""

    missing: tuple[int, ...] = ()


class Failed(_Message, frozen=True):
    """Likewise, with one of our errors."""

    kind: str
    text: str

    def error(self) -> GpuflowError:
        """The error, here."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in self.text[:MAX_TEXT])  # it may be logged
        return _DECODING_RAISES.get(self.kind, DecoderCrashed)(shown)


_DECODING_RAISES: dict[str, type[GpuflowError]] = {
    kind.__name__: kind
    for kind in (
        BackendUnavailable, CorruptMedia, DeadlineExceeded, GpuflowError, InvalidOptions, LimitExceeded, NoSuchStream,
        SectionAfterEnd, UnsupportedFormat,
    )
}  # fmt: skip
Order = Hello | ImageJob | AudioJob | VideoJob | Plan | Decode | Describe | Packets | More | Free | Put | Stop
Answer = Ready | Pixels | Sound | Opened | Planned | Table | Payloads | Frame | Missing | Done | Failed
_encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


class Clock(Protocol):
    """A deadline that says how much time is left."""

    @property
    def remaining_seconds(self) -> float: ...
    def check(self) -> None: ...


class Disconnected(Exception):
    """The worker's end is closed, or what came is no answer."""


def framed(message: _Message) -> bytes:
    """A message with its length before it."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class Channel:
    """The parent's end. Every wait looks at the clock; a wait that ends early loses nothing that came."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_POLL_SECONDS)
        self.connection = connection
        self.torn = False  # a message was sent in part
        self._pending = bytearray()

    def send(self, message: _Message, clock: Clock, data: bytes = b"") -> None:
        """Send a message, and bytes behind it.

        Raises:
            DeadlineExceeded: the time is over.
            Disconnected: the worker has ended, or stands within a message that was not sent to its end.
        """
        if self.torn:
            raise Disconnected("the worker waits for the rest of a message")
        self.torn = True
        for part in (framed(message), data):
            view = memoryview(part)
            while view:
                try:
                    view = view[self.connection.send(view) :]
                except TimeoutError:
                    clock.check()
                except OSError as error:
                    raise Disconnected("the worker has ended") from error
        self.torn = False

    def receive(self, clock: Clock) -> Any:
        """The next answer.

        Raises:
            DeadlineExceeded: the time is over.
            Disconnected: the worker has ended, or has sent what is no answer.
        """
        (length,) = _LENGTH.unpack(self._first(_LENGTH.size, clock))
        if length > MAX_MESSAGE_BYTES:
            raise Disconnected(f"the worker announces an answer of {length} bytes")
        frame = self._first(_LENGTH.size + length, clock)
        del self._pending[: len(frame)]
        try:
            return decode_answer(frame[_LENGTH.size :])
        except (msgspec.MsgspecError, ValueError, GpuflowError) as error:
            raise Disconnected("the worker has sent what is no answer") from error

    def ended(self) -> bool:
        """Whether the worker has closed its end, or says something although it was asked nothing."""
        if self._pending or self.connection.fileno() < 0:
            return True
        look = select.poll()  # a receive would wait as long as the socket's timeout
        look.register(self.connection, select.POLLIN)
        return bool(look.poll(0))

    def close(self) -> None:
        """Close this end."""
        with contextlib.suppress(OSError):
            self.connection.close()

    def _first(self, count: int, clock: Clock) -> bytes:
        while len(self._pending) < count:
            try:
                received = self.connection.recv(_PART_BYTES)
            except TimeoutError:
                clock.check()
                continue
            except OSError as error:
                raise Disconnected("the worker has ended") from error
            if not received:
                raise Disconnected("the worker has ended")
            self._pending += received
            if len(self._pending) < count:
                clock.check()  # a worker that sends a byte at a time waits for nothing
        return bytes(self._pending[:count])
