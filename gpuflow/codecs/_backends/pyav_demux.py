"""Containers by libavformat: bytes to packets, and packets to the form that a GPU's parser reads. With ``pyav.py`` the
only file that sees PyAV for video.

Bytes are demuxed from memory with the format forced: no probing, no protocol, no second file.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from gpuflow.codecs.base import Deadline, MediaType
from gpuflow.codecs.probe.claims import check_size
from gpuflow.codecs.video.arrival import Arrival
from gpuflow.codecs.video.headers import RestartPoints
from gpuflow.codecs.video.keyframes import recovery
from gpuflow.codecs.video.plan import PacketRow, fed
from gpuflow.codecs.video.references import length_bytes
from gpuflow.codecs.video.stream import max_payload_bytes
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, NoSuchStream, UnsupportedFormat

CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg"})
_REMEDY = f"convert it to one of {', '.join(sorted(CODECS))}"
_MAX_NAME = 40
AUDIO_CODECS = frozenset((
    "aac", "aac_latm", "ac3", "adpcm_ima_wav", "adpcm_ms", "alac", "amr_nb", "amr_wb", "eac3", "flac", "mp1", "mp2", "mp3",
    "opus", "speex", "vorbis", "wmav1", "wmav2",
))  # fmt: skip
_DECODERS = (  # FFmpeg's names of what decodes all of these
    "aac", "aac_latm", "ac3", "adpcm_ima_wav", "adpcm_ms", "alac", "amrnb", "amrwb", "av1", "eac3", "flac", "h264", "hevc",
    "libdav1d", "libopus", "libspeex", "libvpx", "libvpx-vp9", "mjpeg", "mp1", "mp1float", "mp2", "mp2float", "mp3",
    "mp3float", "mpeg4", "opus", "speex", "vorbis", "vp8", "vp9",
    "wmav1", "wmav2",
)  # fmt: skip
MAX_PACKETS = 500_000
MAX_FRAME_SAMPLES = 1 << 20  # the largest frame of a sane encoder (TTA) is 1.05 s; a claim may be 16 million
_SPS_START = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]")
_VOL_START = re.compile(rb"\x00\x00\x01[\x20-\x2f]")  # ISO/IEC 14496-2: a video object layer
_DEFAULT_PIXELS = 5_000_000  # of a stream that is the default. Source: FFmpeg's ffmpeg_mux_init.c
_TIMED_FORMATS = frozenset({"mov", "matroska"})
_ANNEXB = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}


class Begun(NamedTuple):
    """A decoder that was fed packets 0 .. ``next_packet - 1``, all of them, and what has come out of it."""

    context: Any
    pictures: tuple[Any, ...]
    next_packet: int


@dataclass(frozen=True, slots=True, eq=False)
class Demuxed:
    """The video stream of a file: its packets in decoding order, what describes them, and how to make a decoder.

    ``claimed_rate`` is the container's word; nothing is allocated by it. ``order_unknown``: the container does not say
    when pictures are shown (AVI), or changes the decoder's parameters on the way. ``begun``: at most one decoder, for
    whoever takes it first. ``arrival`` of packets that still come; then ``data`` is empty.
    """

    data: bytes
    file_bytes: int
    packets: Sequence[Any]
    rows: tuple[PacketRow, ...]
    time_base: Fraction
    claimed_rate: float
    order_unknown: bool
    codec: str
    decoder: str
    extradata: bytes | None
    codec_tag: str
    max_pixels: int
    container: Any
    stream: Any
    begun: list[Begun]
    arrival: Arrival | None = None

    @property
    def format(self) -> str:
        """See ``WholeFile``."""
        return str(self.container.format.name)

    def table(self, first: int, last: int) -> tuple[PacketRow, ...]:
        """See ``ElementaryStream``."""
        return self.rows[first : last + 1]

    def payloads(self, first: int, last: int, skipped: Sequence[int] = ()) -> Iterator[tuple[int, bytes]]:
        """See ``ElementaryStream``.

        Raises:
            CorruptMedia: the bitstream filter cannot read a packet.
            LimitExceeded: headers that are repeated make the packets larger than the file could hold.
        """
        room = max_payload_bytes(self.file_bytes, last - first + 1)
        for position, payload in _payloads(self, first, fed(first, last, skipped)):
            if (room := room - len(payload)) < 0:
                raise LimitExceeded("the packets with their headers have far more bytes than the file")
            if payload:  # NVDEC takes an empty one for the end
                yield position, payload


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Every error of the library becomes one of ours here."""
    import av

    try:
        yield
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise UnsupportedFormat(f"FFmpeg has no decoder for this: {doing}") from error
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        raise CorruptMedia(f"FFmpeg failed in {doing}") from error


@dataclass(frozen=True, slots=True)
class Opened:
    """A container whose header was read, and the video stream of it that is shown."""

    container: Any
    stream: Any
    codec: str
    max_pixels: int

    @property
    def extradata(self) -> bytes:
        """The stream's headers, as the container has them."""
        return self.stream.codec_context.extradata or b""

    @property
    def codec_tag(self) -> str:
        """The container's four letters for the codec; empty where they are none, which PyAV does not expect."""
        try:
            return str(self.stream.codec_context.codec_tag)
        except UnicodeDecodeError:
            return ""

    def demuxed(
        self,
        packets: Sequence[Any],
        rows: Sequence[PacketRow],
        file_bytes: int,
        *,
        data: bytes = b"",
        order_unknown: bool = False,
        arrival: Arrival | None = None,
    ) -> Demuxed:
        """With the packets that were found."""
        context, rate = self.stream.codec_context, self.stream.guessed_rate
        return Demuxed(
            data=data,
            file_bytes=file_bytes,
            packets=packets,
            rows=tuple(rows),
            time_base=self.stream.time_base,
            claimed_rate=float(rate) if rate else 0.0,
            order_unknown=order_unknown,
            codec=self.codec,
            decoder=context.name,
            extradata=context.extradata,
            codec_tag=self.codec_tag,
            max_pixels=self.max_pixels,
            container=self.container,
            stream=self.stream,
            begun=[],
            arrival=arrival,
        )


def demux(data: bytes, kind: MediaType, *, limits: Limits, deadline: Deadline, claimed_codec: str = "") -> Demuxed:
    """Open the bytes and read all packets of the best video stream; cover art is none.

    Raises:
        CorruptMedia: without any packet; or as ``open_stream``.
        UnsupportedFormat, NoSuchStream: as ``open_stream``.
        LimitExceeded: a larger picture, or more packets, than allowed.
        DeadlineExceeded: the time is over.
    """
    opened = open_stream(_Bytes(data, deadline), kind, limits=limits, claimed_codec=claimed_codec)
    packets = _packets(opened, len(data), deadline)
    if not packets:
        raise CorruptMedia(f"the video stream of this {kind.name} holds no packet")
    changing = any(packet.has_sidedata("new_extradata") for packet in packets)
    return opened.demuxed(
        tuple(packets),
        _rows(packets, opened.codec, opened.extradata),
        len(data),
        data=data,
        order_unknown=_order_unknown(kind, opened.codec) or changing,
    )


def open_stream(file: io.IOBase, kind: MediaType, *, limits: Limits, claimed_codec: str = "") -> Opened:
    """Read a container's header; ``file`` holds it from its beginning. ``claimed_codec``: the container's name for the
    codec, for the message where FFmpeg has none.

    Raises:
        CorruptMedia: not readable as ``kind``.
        UnsupportedFormat: the stream's codec is not on the list.
        NoSuchStream: no video stream.
        LimitExceeded: a larger picture than allowed.
    """
    import av

    with translated(f"opening {kind.name}"):
        container: Any = av.open(
            file,
            format=kind.format,
            options=open_options(kind, limits),
            stream_options=_stream_options(kind, limits),
            metadata_errors="replace",
        )
        stream = shown_stream(container)
    codec = _codec_name(stream, kind, claimed_codec)
    context = stream.codec_context
    check_size(context.width, context.height, limits)
    context.thread_count = 1
    context.options = {"max_pixels": str(limits.max_video_pixels)}
    return Opened(container, stream, codec, limits.max_video_pixels)


def packets_within(opened: Opened, file_bytes: int, deadline: Deadline) -> Iterator[Any]:
    """The stream's packets in the order of the file. Tables that name the same bytes again and again, and packets that
    are stored compressed, make gigabytes of kilobytes: together packets may have no more than the file.

    Raises:
        LimitExceeded: they have more, or are more than ``MAX_PACKETS``.
    """
    nbytes, count, most_bytes = 0, 0, max_payload_bytes(file_bytes, 0)
    for packet in opened.container.demux(opened.stream):
        if not packet.size:
            continue
        nbytes, count = nbytes + packet.size, count + 1
        if nbytes > most_bytes:
            raise LimitExceeded(f"the packets have more than {nbytes} bytes, the file has {file_bytes}")
        if count > MAX_PACKETS:
            raise LimitExceeded(f"more than {MAX_PACKETS} packets in one video stream")
        if count % 256 == 0:
            deadline.check()
        yield packet


class _Bytes(io.BytesIO):
    """A file whose reading ends with the deadline: libavformat may read all of it before it opens."""

    def __init__(self, data: bytes, deadline: Deadline) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        """See ``io.BytesIO``; raises ``DeadlineExceeded``."""
        self._deadline.check()
        return super().read(size)


def open_options(kind: MediaType, limits: Limits) -> dict[str, str]:
    """How bytes are opened: as what the probe found, without any other file. The last four hold for the decoders that
    libavformat makes to learn about streams too: a clip of 8192x8192 takes 25 MiB to refuse then, not 289, and none of
    FFmpeg's other 500 decoders ever sees a byte."""
    return {
        "protocol_whitelist": "",
        "format_whitelist": kind.format,
        "max_streams": str(2 * limits.max_tracks),  # attachments and cover art count as streams
        "codec_whitelist": _decoders(),
        "max_pixels": str(limits.max_video_pixels),
        "max_samples": str(MAX_FRAME_SAMPLES),
        "threads": "1",
    }


def _stream_options(kind: MediaType, limits: Limits) -> list[dict[str, str]]:
    """For the decoders that libavformat makes: none decodes a picture where the container itself tells times and sizes.
    It is a whole keyframe's work, and the first one is decoded again anyway."""
    options = {"skip_frame": "all"} if kind.format in _TIMED_FORMATS else {}
    return [options] * (2 * limits.max_tracks)


@functools.cache
def _decoders() -> str:
    import av

    return ",".join((*_DECODERS, *sorted(name for name in av.codecs_available if name.startswith("pcm_"))))


def _payloads(demuxed: Demuxed, first: int, positions: Iterator[int]) -> Iterator[tuple[int, bytes]]:
    name = _ANNEXB.get(demuxed.codec)
    if name is not None:
        yield from _filtered(demuxed, name, first, positions)
        return
    for position in positions:
        payload = bytes(demuxed.packets[position])
        if position == first and demuxed.codec == "mpeg4" and _VOL_START.search(payload) is None:
            payload = (demuxed.extradata or b"") + payload  # MP4 and Matroska keep the headers apart
        yield position, payload


def _filtered(demuxed: Demuxed, name: str, first: int, positions: Iterator[int]) -> Iterator[tuple[int, bytes]]:
    import av

    with translated("the bitstream filter"):
        filtering = av.BitStreamFilterContext(name, demuxed.stream)
        for position in positions:
            original = demuxed.packets[position]
            copied = av.Packet(original.size)  # of bytes it would lack the padding that FFmpeg reads
            copied.update(bytes(original))
            copied.is_keyframe = demuxed.rows[position].key
            for packet in filtering.filter(copied):
                payload = bytes(packet)
                if position == first and demuxed.codec == "h264" and _SPS_START.search(payload) is None:
                    payload = _h264_headers(demuxed.extradata or b"") + payload  # the filter adds them to IDR only
                yield position, payload


def _h264_headers(extradata: bytes) -> bytes:
    """SPS and PPS with start codes, from an avcC record (ISO/IEC 14496-15) or from extradata that has them already."""
    if extradata[:1] != b"\1":
        return extradata
    headers, at = b"", 5
    for mask in (0x1F, 0xFF):
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            end = at + 2 + int.from_bytes(extradata[at : at + 2], "big")
            headers, at = headers + b"\0\0\0\1" + extradata[at + 2 : end], end
    return headers


def shown_stream(container: Any) -> Any:
    """The video that FFmpeg's tools take: of those that are no cover and can be decoded, the largest picture, where the
    one that the file calls its default counts as larger. ``None``: there is none, or nothing but a cover."""
    import av

    def rank(stream: Any) -> tuple[bool, bool, int]:
        context, default = stream.codec_context, stream.disposition & av.stream.Disposition.default
        supported = context is not None and context.codec.canonical_name in CODECS
        pixels = context.width * context.height if context is not None else 0
        cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
        return not cover, supported, pixels + (_DEFAULT_PIXELS if default else 0)

    best = max(container.streams.video, key=rank, default=None)
    return None if best is None or best.disposition & av.stream.Disposition.attached_pic else best


def _codec_name(stream: Any, kind: MediaType, claimed: str = "") -> str:
    if stream is None:
        raise NoSuchStream(f"this {kind.name} has no video stream")
    if stream.codec_context is None:
        named = (
            "".join(letter if letter.isprintable() else "?" for letter in claimed[:_MAX_NAME]) or "that is not named"
        )
        raise UnsupportedFormat(f"video codec {named} is not known to FFmpeg: {_REMEDY}")
    codec = str(stream.codec_context.codec.canonical_name)
    if codec not in CODECS:
        raise UnsupportedFormat(f"video codec {codec} is not supported: {_REMEDY}")
    return codec


def _packets(opened: Opened, file_bytes: int, deadline: Deadline) -> list[Any]:
    """All packets; a file that breaks off ends there."""
    import av

    packets: list[Any] = []
    try:
        for packet in packets_within(opened, file_bytes, deadline):
            packets.append(packet)  # noqa: PERF402 - those before an error count
    except av.error.FFmpegError as error:
        if not packets:
            raise CorruptMedia("no packet of the video stream can be read") from error
    except LookupError as error:  # PyAV's own, where a stream of MPEG-TS appears late
        raise CorruptMedia("a packet belongs to a stream that no table names") from error
    return packets


def _order_unknown(kind: MediaType, codec: str) -> bool:
    """AVI stores no presentation times: with reordered pictures libavformat's are guesses, and wrong."""
    return kind.format == "avi" and codec not in {"mjpeg", "vp8", "vp9", "av1"}


def _rows(packets: list[Any], codec: str, extradata: bytes) -> tuple[PacketRow, ...]:
    points, length = RestartPoints(codec, extradata), length_bytes(codec, extradata)
    rows = [_row(packet, codec, length) for packet in packets]
    return tuple(
        row._replace(key=False) if row.key and not points.here(memoryview(packet)) else row
        for row, packet in zip(rows, packets, strict=True)
    )


def _row(packet: Any, codec: str, length: int) -> PacketRow:
    # VP8 stores alternate reference pictures as packets of their own: bit 4 of the frame tag says "show"
    hidden = codec == "vp8" and not memoryview(packet)[0] & 0x10
    # libavformat calls what is right only some pictures later a keyframe too
    key = packet.is_keyframe and not (codec == "h264" and recovery(memoryview(packet), length) == "later")
    return PacketRow(packet.pts, key, not packet.is_discard and not hidden, packet.duration or 0)
