"""Video by libavcodec and swscale, on the CPU. Every context has one thread, because parallel work is split by GOP
segments, and because FFmpeg's thread pools deadlock beside torch's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs._backends.pyav_demux import CODECS, Begun, Demuxed, translated
from gpuflow.codecs._backends.pyav_planes import planes_of
from gpuflow.codecs.base import Capability, Deadline, FrameSink, Support, VideoInfo, check_same_size
from gpuflow.codecs.video.plan import Segment
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded
from gpuflow.planes import Planes

_MATRICES = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}  # AVColorSpace; the rest is BT.601
_SWSCALE = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}
_HELD_BACK_PACKETS = 18  # H.264 and HEVC reorder 16 pictures at most
_NO_PICTURE_PACKETS = 8  # keyframes to try before a stream counts as damaged
_LIMITED, _FULL = 1, 2  # AVColorRange
_B_PICTURE = 3  # AVPictureType


def capability() -> Capability:
    """Whether the library loads here."""
    try:
        import av
    except (ImportError, OSError) as error:
        return Capability(False, f"PyAV does not load ({error}): pip install av")
    return Capability(True, version=av.__version__)


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a first decoded picture says that the container may not."""

    width: int
    height: int
    rotation: int
    mirrored: bool
    interlaced: bool
    matrix: str
    full_range: bool
    bit_depth: int
    chroma: str
    profile: str


def first_picture(demuxed: Demuxed) -> PictureFacts:
    """Decode the first keyframe that can be decoded, for what only a picture tells: rotation, colour, depth. A decoder
    that was begun at the first packet is kept for the segment that begins there: a keyframe costs as much as 20 others.

    Raises:
        CorruptMedia: none can.
    """
    if (begun := _begin(demuxed)) is not None:
        demuxed.begun.append(begun)
        return _facts(begun.pictures[0], begun.context)
    keys = [packet for packet, row in zip(demuxed.packets, demuxed.rows, strict=True) if row.key]
    for packet in keys[:_NO_PICTURE_PACKETS] or demuxed.packets[:_NO_PICTURE_PACKETS]:
        context = demuxed.stream.codec_context
        for frame in (*_decode(context, packet), *_decode(context, None)):
            return _facts(frame, context)
        context.flush_buffers()
    raise CorruptMedia(f"no picture of this {demuxed.codec} stream can be decoded")


def _begin(demuxed: Demuxed) -> Begun | None:
    """Feed packets from the first on until a picture comes out; decoders hold back a few. The stream's own context is
    the one that knows the container's rotation."""
    if not demuxed.rows[0].key:
        return None
    context = demuxed.stream.codec_context
    for position, packet in enumerate(demuxed.packets[:_HELD_BACK_PACKETS]):
        if pictures := _decode(context, packet):
            return Begun(context, tuple(pictures), position + 1)
    context.flush_buffers()
    return None


def survey(demuxed: Demuxed, *, limits: Limits, deadline: Deadline) -> list[tuple[int | None, bool]]:
    """Decode everything and keep nothing but each picture's pts and whether it is a key picture, in the order in which
    pictures come out.

    Raises:
        LimitExceeded: more packets than ``Limits.max_decoded_frames``.
    """
    if len(demuxed.packets) > limits.max_decoded_frames:
        raise LimitExceeded(
            f"{len(demuxed.packets)} pictures would have to be decoded; Limits.max_decoded_frames is {limits.max_decoded_frames}"
        )
    everything = Segment(0, len(demuxed.packets) - 1, {}, True)
    return [(frame.pts, bool(frame.key_frame)) for frame in _pictures(demuxed, everything, deadline)]


class PyAvVideoDecoder:
    """Segments to pictures by libavcodec, on the CPU. Holds no state: any number of threads may use it."""

    name = "pyav"
    device: Literal["cpu"] = "cpu"
    lanes = None
    restart_packets = 0
    contended = False

    def capability(self) -> Capability:
        """Whether PyAV loads."""
        return capability()

    def supports(self, info: VideoInfo) -> Support:
        """Everything that the demuxer lets through."""
        return Support(info.codec in CODECS, "" if info.codec in CODECS else f"codec {info.codec} is not on the list")

    def decode(
        self, demuxed: Demuxed, info: VideoInfo, segment: Segment, sink: FrameSink, deadline: Deadline
    ) -> set[int]:
        """Feed a segment, give its wanted pictures to ``sink``; the numbers of those that came out."""
        from av.video.reformatter import VideoReformatter

        reformatter, damage = VideoReformatter(), _Damage()
        found: set[int] = set()
        for number, frame in enumerate(_pictures(demuxed, segment, deadline)):
            corrupt = damage.reaches(frame)
            index = segment.targets.get(number if segment.counted else frame.pts)
            if index is None or index in found:
                continue
            sink.put(index, _Picture(frame, info, reformatter, corrupt))
            found.add(index)
            if len(found) == len(segment.targets):
                break
        return found


class _Damage:
    """How far damage goes that libavcodec marks: it conceals what it cannot decode, and marks that picture alone.
    Pictures after it on screen may refer to it, until a keyframe, and are not marked; to B pictures few do."""

    def __init__(self) -> None:
        self._spreads = False

    def reaches(self, frame: Any) -> bool:
        """Whether it reaches this picture; asked of all, as they come out."""
        if frame.is_corrupt:
            self._spreads = self._spreads or int(frame.pict_type) != _B_PICTURE
            return True
        if self._spreads and frame.key_frame:
            self._spreads = False
        return self._spreads


class _Picture:
    """``Surface`` of a libavcodec frame."""

    __slots__ = ("_frame", "_info", "_reformatter", "corrupt")

    def __init__(self, frame: Any, info: VideoInfo, reformatter: Any, corrupt: bool) -> None:
        self.corrupt = corrupt
        self._frame = frame
        self._info = info
        self._reformatter = reformatter

    @property
    def displayed_size(self) -> tuple[int, int]:
        """See ``Surface``."""
        size = self._frame.height, self._frame.width
        return size[::-1] if self._info.rotation % 180 else size

    def planes(self) -> Planes | None:
        """See ``Surface``."""
        return planes_of(self._frame, self._info)

    def rgb_into(self, out: NDArray[np.uint8]) -> None:
        """Convert with the stream's matrix and range, mirror, rotate, write.

        Raises:
            UnsupportedFormat: the picture has another size than ``out``, that of the clip.
        """
        info, frame = self._info, self._frame
        check_same_size(info, self.displayed_size, out.shape)
        matrix = _SWSCALE[info.matrix]
        with translated("colour conversion"):
            converted = self._reformatter.reformat(
                frame, format="rgb24", src_colorspace=matrix, dst_colorspace=matrix,
                src_color_range=_FULL if info.full_range else _LIMITED, dst_color_range=_FULL, threads=1,
            )  # fmt: skip
            plane = converted.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        rgb = rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        np.copyto(out, np.rot90(rgb[:, ::-1] if info.mirrored else rgb, info.rotation // 90))


def _facts(frame: Any, context: Any) -> PictureFacts:
    pixels = frame.format
    rotation, mirrored = _orientation(frame)
    return PictureFacts(
        width=frame.width,
        height=frame.height,
        rotation=rotation,
        mirrored=mirrored,
        interlaced=bool(frame.interlaced_frame),
        matrix=_MATRICES.get(int(frame.colorspace), "bt601"),
        full_range=int(frame.color_range) == _FULL or pixels.name.startswith("yuvj"),
        bit_depth=pixels.components[0].bits,
        chroma=_chroma(pixels),
        profile=context.profile or "",
    )


def _orientation(frame: Any) -> tuple[int, bool]:
    """Degrees counter-clockwise, in quarters, and whether the picture is mirrored (left to right) before that."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0, False
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    mirrored = a * d < b * c
    degrees = math.degrees(math.atan2(b, -a) if mirrored else math.atan2(-b, a))
    return round(degrees / 90) * 90 % 360, mirrored


def _chroma(pixels: Any) -> str:
    if pixels.is_rgb:
        return "rgb"
    if len(pixels.components) < 3:
        return "400"
    return {(8, 8): "444", (4, 8): "422", (4, 4): "420"}.get((pixels.chroma_width(8), pixels.chroma_height(8)), "other")


def _pictures(demuxed: Demuxed, segment: Segment, deadline: Deadline) -> Iterator[Any]:
    """Decoded frames of a segment in display order. A packet that cannot be decoded is passed over, as FFmpeg's tools
    do; whoever misses its picture says so."""
    context, pictures, first = _take_begun(demuxed, segment) or Begun(_new_context(demuxed), (), segment.first)
    yield from pictures
    # of VP8 only its decoder knows which pictures nothing refers to
    droppable = demuxed.codec == "vp8" and not segment.counted
    for position in segment.positions():
        if position < first:
            continue
        deadline.check()
        if droppable:
            wanted = demuxed.rows[position].pts in segment.targets
            context.skip_frame = "DEFAULT" if wanted else "NONREF"
        yield from _decode(context, demuxed.packets[position])
    yield from _decode(context, None)


def _take_begun(demuxed: Demuxed, segment: Segment) -> Begun | None:
    if segment.first > 0:
        return None
    try:
        return demuxed.begun.pop()  # of many threads, one gets it
    except IndexError:
        return None


def _decode(context: Any, packet: Any) -> list[Any]:
    import av

    try:
        return list(context.decode(packet))
    except av.error.FFmpegError:  # a damaged packet; or EOF, the answer to a second flush
        return []


def _new_context(demuxed: Demuxed) -> Any:
    import av

    with translated("making a decoder"):
        context = av.CodecContext.create(demuxed.decoder, "r")
        context.extradata = demuxed.extradata
        if demuxed.codec_tag:
            context.codec_tag = demuxed.codec_tag
        context.thread_count = 1
        context.options = {"max_pixels": str(demuxed.max_pixels)}
    return context
