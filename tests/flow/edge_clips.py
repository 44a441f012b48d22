"""Awkward clips: what cameras, cutters, broadcasters and careless muxers make. All by real encoders and muxers; where
those refuse to write what exists in the wild, their output is patched."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import av

from tests.flow.clips import FORMATS, make_clip, picture

Packet = Any
TICKS = 90_000  # of MPEG-TS
WRAP = 1 << 33


def packets_of(data: bytes, container: str = "mp4") -> list[Packet]:
    """The video packets of a clip; their stream keeps the container open."""
    source = av.open(io.BytesIO(data), format=FORMATS[container])
    return [packet for packet in source.demux(source.streams.best("video")) if packet.size]


def mux(
    packets: Iterable[Packet],
    into: str = "mp4",
    *,
    options: dict[str, str] | None = None,
    change: Callable[[int, Packet], None] = lambda number, packet: None,
    like: Any = None,
) -> bytes:
    """Write packets of one stream (``like``: that one) to another file, each ``change``d before. No time is moved by the
    muxer."""
    packets, buffer = list(packets), io.BytesIO()
    with av.open(buffer, "w", format=into, options={"avoid_negative_ts": "disabled"} | (options or {})) as output:
        copied = output.add_stream_from_template(like or packets[0].stream)
        for number, packet in enumerate(packets):
            packet.stream = copied
            change(number, packet)
            output.mux(packet)
    return buffer.getvalue()


def moved(frames: int) -> Callable[[int, Packet], None]:
    """Later by so many frames."""

    def change(number: int, packet: Packet) -> None:
        packet.pts, packet.dts = packet.pts + frames * packet.duration, packet.dts + frames * packet.duration

    return change


def replaced(data: bytes, name: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The file with the body of its first box ``name`` changed, and all sizes above it mended."""
    at = data.index(name) - 4
    size = struct.unpack_from(">I", data, at)[0]
    body = change(data[at + 8 : at + size])
    grown = len(body) + 8 - size
    out = bytearray(data[:at] + struct.pack(">I4s", len(body) + 8, name) + body + data[at + size :])
    for parent in (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl"):
        start = data.find(parent) - 4
        if 0 <= start < at < start + struct.unpack_from(">I", data, start)[0]:
            struct.pack_into(">I", out, start, struct.unpack_from(">I", data, start)[0] + grown)
    return bytes(out)


def edits(*entries: tuple[int, int]) -> bytes:
    """A clip of 60 frames, a keyframe every 10, with these edits: frames shown, first frame shown (-1: nothing)."""
    clip = make_clip(gop=10, bframes=0)
    frame = 15_360 // 30  # the muxer's ticks
    rows = b"".join(
        struct.pack(">IiI", round(1000 * count / 30), -1 if first < 0 else frame * first, 0x10000)
        for count, first in entries
    )
    return replaced(clip, b"elst", lambda _: struct.pack(">II", 0, len(entries)) + rows)


def empty_edit() -> bytes:
    """A clip that begins 10 frames after the file does."""
    return mux(packets_of(make_clip()), change=moved(10), options={"movflags": "+delay_moov"})


def cut_at_the_second_keyframe(codec: str, container: str) -> bytes:
    """What a cutter that copies packets leaves: the leading pictures of the first keyframe lost what they refer to."""
    options = {"libx264": "x264-params", "libx265": "x265-params"}
    params = "open-gop=1:keyint=20:min-keyint=20:scenecut=0" + (":log-level=none" if codec == "libx265" else "")
    clip = make_clip(codec, 80, container=container, bframes=4, options={options[codec]: params})
    packets = packets_of(clip, container)
    second = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
    return mux(packets[second:], container)


def repeated_times(container: str) -> bytes:
    """Two pictures at one time, twice."""

    packets = packets_of(make_clip(bframes=0, container=container), container)
    times = [packet.pts for packet in packets]

    def change(number: int, packet: Packet) -> None:
        packet.pts = times[number - 1 if number in (20, 41) else number] + 2 * packet.duration

    return mux(packets, container, change=change)


def negative_times() -> bytes:
    """Matroska whose first blocks lie before its beginning: their signed offsets patched."""
    clip = make_clip(container="matroska", bframes=0)
    patched = bytearray(clip)
    for number, packet in enumerate(packets_of(clip, "matroska")[:3]):
        assert patched[packet.pos] == 0x81  # track 1
        struct.pack_into(">h", patched, packet.pos + 1, -100 + 33 * number)
    return bytes(patched)


def wrapping(frames_before: int = 30) -> bytes:
    """A transport stream whose 33-bit clock runs over in its middle."""
    start = WRAP - frames_before * TICKS // 30

    def change(number: int, packet: Packet) -> None:
        packet.pts, packet.dts = packet.pts + start, packet.dts + start

    clip = make_clip(container="mpegts", gop=10)
    return mux(packets_of(clip, "mpegts"), "mpegts", change=change, options={"mpegts_copyts": "1"})


def with_cover() -> bytes:
    """A clip and a picture of the album."""
    buffer = io.BytesIO()
    clip = packets_of(make_clip())
    with av.open(buffer, "w", format="mp4") as output:
        copied = output.add_stream_from_template(clip[0].stream)
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 300, 300, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        [still] = cover.encode(av.VideoFrame.from_ndarray(picture(77, 300, 300)).reformat(format="yuvj420p"))
        output.mux(still)
        for packet in clip:
            packet.stream = copied
            output.mux(packet)
    return buffer.getvalue()


def moov_first(data: bytes) -> bytes:
    """The same MP4 with its movie header before its media, as ``qt-faststart`` writes it."""
    at = data.index(b"mdat") - 4
    size = struct.unpack_from(">I", data, at)[0]
    media, header = data[at : at + size], bytearray(data[at + size :])
    table = header.index(b"stco") + 4
    for place in range(table + 8, table + 8 + 4 * struct.unpack_from(">I", header, table + 4)[0], 4):
        struct.pack_into(">I", header, place, struct.unpack_from(">I", header, place)[0] + len(header))
    return data[:at] + bytes(header) + media


def two_videos(preview: bytes, film: bytes, container: str = "matroska", *, default: int | None = None) -> bytes:
    """A short clip, then another of another size; one of them is the ``default``, or neither is."""
    buffer = io.BytesIO()
    small, large = packets_of(preview), packets_of(film)
    with av.open(buffer, "w", format=container) as output:
        copies: list[Any] = [output.add_stream_from_template(part[0].stream) for part in (small, large)]
        for number, copied in enumerate(copies):
            copied.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
        for copied, part in zip(copies, (small, large), strict=True):
            for packet in part:
                packet.stream = copied
                output.mux(packet)
    return buffer.getvalue()


def two_sizes(codec: str, into: str, *, sizes: tuple[tuple[int, int], ...] = ((160, 96), (128, 64))) -> bytes:
    """Two encodings in one stream, the second's headers in band."""
    if into in ("obu", "h264"):
        return b"".join(make_clip(codec, 30, container=into, size=size, gop=10) for size in sizes)
    raw = "mpegts" if codec in ("libx264", "libx265") else "matroska"
    parts = [packets_of(make_clip(codec, 30, container=raw, size=size, gop=10), raw) for size in sizes]
    first = parts[0]
    step = first[0].duration or round(Fraction(1, 30) / first[0].time_base)

    def change(number: int, packet: Packet) -> None:
        if number >= len(first):
            packet.pts, packet.dts = packet.pts + len(first) * step, packet.dts + len(first) * step

    return mux([packet for part in parts for packet in part], into, change=change)


def with_timecode() -> bytes:
    """A QuickTime file with a track of timecodes before the video."""
    buffer = io.BytesIO()
    clip = packets_of(make_clip())
    with av.open(buffer, "w", format="mov") as output:
        output.metadata["timecode"] = "01:00:00:00"
        copied = output.add_stream_from_template(clip[0].stream)
        for packet in clip:
            packet.stream = copied
            output.mux(packet)
    return buffer.getvalue()


def claimed_frames(count: int) -> bytes:
    """An AVI whose header counts other frames than it holds."""
    clip = bytearray(make_clip("mjpeg", container="avi", pixel_format="yuvj420p"))
    struct.pack_into("<I", clip, clip.index(b"avih") + 8 + 16, count)
    struct.pack_into("<I", clip, clip.index(b"strh") + 8 + 32, count)
    return bytes(clip)


def more_times_than_samples() -> bytes:
    """An MP4 whose table of times is for twice as many samples as there are."""
    clip = make_clip(bframes=0)
    return replaced(clip, b"stts", lambda _: struct.pack(">IIII", 0, 1, 120, 512))


def no_rate() -> bytes:
    """An MP4 whose samples have no duration."""
    clip = make_clip(bframes=0)
    return replaced(clip, b"stts", lambda _: struct.pack(">IIII", 0, 1, 60, 0))


def turned(matrix: tuple[int, int, int, int]) -> bytes:
    """A clip with this display matrix: a, b, c, d of ISO/IEC 14496-12, as whole numbers."""
    clip = bytearray(make_clip(num_frames=12))
    a, b, c, d = (number << 16 for number in matrix)
    at = clip.index(b"tkhd") + 4 + 40
    struct.pack_into(">9i", clip, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(clip)


X264 = {"preset": "veryfast"}
LAGGED = {"deadline": "realtime", "cpu-used": "6", "lag-in-frames": "25", "auto-alt-ref": "1", "b": "100k"}
X265_QUIET = "log-level=none"
EDGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "edit list: start cut": (lambda: mux(packets_of(make_clip()), change=moved(-15)), "mp4"),
    "edit list: start cut, vp9": (lambda: mux(packets_of(make_clip("libvpx-vp9")), change=moved(-15)), "mp4"),
    "edit list: empty": (empty_edit, "mp4"),
    "edit list: two parts": (lambda: edits((15, 5), (12, 33)), "mp4"),
    "edit list: parts backwards": (lambda: edits((12, 33), (15, 5)), "mp4"),
    "edit list: a part again": (lambda: edits((10, 12), (10, 12), (10, 40)), "mp4"),
    "edit list: empty, then a cut": (lambda: edits((5, -1), (20, 14)), "mp4"),
    "repeated times mp4": (lambda: repeated_times("mp4"), "mp4"),
    "repeated times matroska": (lambda: repeated_times("matroska"), "matroska"),
    "negative times matroska": (negative_times, "matroska"),
    "cut at an open gop: h264 mp4": (lambda: cut_at_the_second_keyframe("libx264", "mp4"), "mp4"),
    "cut at an open gop: h264 matroska": (lambda: cut_at_the_second_keyframe("libx264", "matroska"), "matroska"),
    "cut at an open gop: h264 mpegts": (lambda: cut_at_the_second_keyframe("libx264", "mpegts"), "mpegts"),
    "cut at an open gop: hevc mp4": (lambda: cut_at_the_second_keyframe("libx265", "mp4"), "mp4"),
    "cut at an open gop: hevc matroska": (lambda: cut_at_the_second_keyframe("libx265", "matroska"), "matroska"),
    "cut at an open gop: hevc mpegts": (lambda: cut_at_the_second_keyframe("libx265", "mpegts"), "mpegts"),
    "mpegts: clock runs over": (wrapping, "mpegts"),
    "mpegts: two recordings": (lambda: make_clip(container="mpegts") + make_clip(container="mpegts", gop=12), "mpegts"),
    "mpegts: a late first keyframe": (
        lambda: mux(packets_of(make_clip(container="mpegts"), "mpegts")[7:], "mpegts"),
        "mpegts",
    ),
    "mpegts: broken off within a packet": (lambda: make_clip(container="mpegts")[:-1000], "mpegts"),
    "raw h264": (lambda: make_clip(container="h264", num_frames=40), "h264"),
    "raw h264 open gop": (
        lambda: make_clip(container="h264", num_frames=40, options={"x264-params": "open-gop=1:keyint=10"}),
        "h264",
    ),
    "raw hevc": (lambda: make_clip("libx265", 40, container="hevc"), "hevc"),
    "raw av1": (lambda: make_clip("libsvtav1", 40, container="obu"), "obu"),
    "ivf vp8": (lambda: make_clip("libvpx", container="ivf"), "ivf"),
    "ivf vp9": (lambda: make_clip("libvpx-vp9", container="ivf"), "ivf"),
    "ivf av1": (lambda: make_clip("libsvtav1", container="ivf"), "ivf"),
    "frame count of a billion": (lambda: claimed_frames(80_000), "avi"),
    "frame count of one": (lambda: claimed_frames(1), "avi"),
    "more times than samples": (more_times_than_samples, "mp4"),
    "no rate": (no_rate, "mp4"),
    "cover beside the video": (with_cover, "mp4"),
    "timecode track": (with_timecode, "mov"),
    "fragmented by frame": (
        lambda: make_clip(muxing={"movflags": "frag_every_frame+empty_moov+default_base_moof"}),
        "mp4",
    ),
    "h264 interlaced (mbaff)": (lambda: make_clip(options=X264 | {"x264-params": "interlaced=1"}), "mp4"),
    "h264 interlaced mpegts": (
        lambda: make_clip(container="mpegts", options=X264 | {"x264-params": "interlaced=1"}),
        "mpegts",
    ),
    "hevc fields": (lambda: make_clip("libx265", options={"x265-params": f"{X265_QUIET}:interlace=tff"}), "mp4"),
    "h264 intra refresh": (
        lambda: make_clip(num_frames=100, bframes=0, options={"x264-params": "intra-refresh=1:keyint=20"}),
        "mp4",
    ),
    "h264 headers in band": (lambda: make_clip(options=X264 | {"x264-params": "repeat-headers=1"}), "mp4"),
    "vp9 superframes": (lambda: make_clip("libvpx-vp9", 90, gop=60, container="webm", options=LAGGED), "webm"),
    "vp9 superframes mp4": (lambda: make_clip("libvpx-vp9", 90, gop=60, options=LAGGED), "mp4"),
    "av1 pictures shown again": (lambda: make_clip("libsvtav1", 64), "mp4"),
    "av1 short groups": (lambda: make_clip("libsvtav1", gop=10, container="matroska"), "matroska"),
    "hevc temporal layers": (
        lambda: make_clip("libx265", bframes=4, options={"x265-params": f"{X265_QUIET}:temporal-layers=3:b-pyramid=1"}),
        "mp4",
    ),
    "hevc 10 bit": (lambda: make_clip("libx265", pixel_format="yuv420p10le"), "mp4"),
    "av1 10 bit": (lambda: make_clip("libsvtav1", pixel_format="yuv420p10le"), "mp4"),
    "h264 4:2:2": (lambda: make_clip(pixel_format="yuv422p"), "mp4"),
    "h264 4:2:2 10 bit": (lambda: make_clip(pixel_format="yuv422p10le"), "mp4"),
    "hevc 4:4:4": (lambda: make_clip("libx265", pixel_format="yuv444p"), "mp4"),
    "vp9 odd size": (lambda: make_clip("libvpx-vp9", container="webm", size=(161, 97)), "webm"),
    "vp8 odd size": (lambda: make_clip("libvpx", container="webm", size=(161, 97)), "webm"),
    "av1 odd size": (lambda: make_clip("libsvtav1", size=(161, 97)), "mp4"),
    "mpeg4 b pictures": (lambda: make_clip("mpeg4", bframes=2), "mp4"),
    "mpeg4 b pictures avi": (lambda: make_clip("mpeg4", bframes=2, container="avi"), "avi"),
    "mpeg4 matroska": (lambda: make_clip("mpeg4", bframes=2, container="matroska"), "matroska"),
    "one frame h264": (lambda: make_clip(num_frames=1), "mp4"),
    "one frame vp9": (lambda: make_clip("libvpx-vp9", 1, container="webm"), "webm"),
    "one frame mpegts": (lambda: make_clip(num_frames=1, container="mpegts"), "mpegts"),
    "one frame raw": (lambda: make_clip(num_frames=1, container="h264"), "h264"),
}


def headers_once() -> bytes:
    """Matroska of two encodings of one size, the second's headers in its first keyframe only: they hold on."""
    first, second = (
        packets_of(make_clip(container="h264", num_frames=40, gop=10, bframes=0, options=options), "h264")
        for options in (X264, {"preset": "ultrafast"})
    )
    assert b"\0\0\0\1\x67" in bytes(second[10])
    second = [second[0], *(_without_headers(packet) for packet in second[1:])]

    def change(number: int, packet: Packet) -> None:
        packet.time_base = Fraction(1, 30)
        packet.pts = packet.dts = number
        packet.duration = 1

    return mux([*first, *second], "matroska", change=change)


def _without_headers(packet: Packet) -> Packet:
    units = bytes(packet).split(b"\0\0\1")
    made = av.Packet(b"\0\0\1".join([units[0], *(unit for unit in units[1:] if unit[0] & 31 not in (7, 8))]))
    made.is_keyframe = packet.is_keyframe
    return made


EDGES["h264 headers that change once"] = (headers_once, "matroska")
