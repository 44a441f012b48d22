"""NVDEC through PyNvVideoCodec's core decoder: our packets in, NV12 or P016 surfaces out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

from gpuflow.codecs._backends import pynv_caps
from gpuflow.codecs._backends.pynv_session import Session
from gpuflow.codecs._backends.pynv_surface import Convert
from gpuflow.codecs.base import Capability, Deadline, FrameSink, Guard, Support, VideoInfo
from gpuflow.codecs.video.plan import Segment
from gpuflow.codecs.video.sessions import SessionPool, Shape
from gpuflow.codecs.video.stream import ElementaryStream, Wanted
from gpuflow.errors import CorruptMedia, UnsupportedFormat

DEFAULT_SESSIONS = 7  # where the driver does not say how many engines there are


class NvdecVideoDecoder:
    """``VideoDecoder`` on one GPU: one session takes one segment, on one engine; a clip's segments take several.

    ``sessions``: at most so many; as many as the GPU has engines by default. Drained sessions are kept, also for clips
    of other sizes; one that raised is closed, because a failed one stays failed.
    """

    name = "pynvvideocodec"
    device: Literal["cuda"] = "cuda"
    restart_packets = 6  # until a GPU was measured: what draining and filling the pipeline costs, in pictures

    def __init__(
        self,
        device_index: int,
        convert: Convert,
        *,
        sessions: int | None = None,
        reuse: bool = True,
        guard: Guard = nullcontext,
    ) -> None:
        self._index = device_index
        self._convert = convert
        self._guard = guard
        self._sessions = sessions
        self.pool: SessionPool[Session] = SessionPool(self._make, limit=lambda: self.lanes, reuse=reuse)

    @property
    def lanes(self) -> int:
        """Segments that it decodes side by side: one an engine."""
        return self._sessions or engines(self._index) or DEFAULT_SESSIONS

    @property
    def contended(self) -> bool:
        """Whether others wait for its sessions."""
        return self.pool.contended

    def capability(self) -> Capability:
        """Whether driver and library are there."""
        return pynv_caps.capability()

    def supports(self, info: VideoInfo) -> Support:
        """Codec, depth, chroma, size and macroblocks against the GPU's own answer."""
        return pynv_caps.support(info, self._index)

    def decode(
        self, stream: ElementaryStream, info: VideoInfo, segment: Segment, sink: FrameSink, deadline: Deadline
    ) -> set[int]:
        """See ``VideoDecoder``.

        Raises:
            UnsupportedFormat: ``supports`` says no; or a picture is of another kind than the clip.
            CorruptMedia: NVDEC refuses the packets.
            BackendUnavailable: no session can be made. ``DeviceLost``: the GPU's context has ended.
            DeadlineExceeded: the time is over, also while others have all sessions.
        """
        if not (support := self.supports(info)):  # first: a session that is given what it cannot decode stays failed
            raise UnsupportedFormat(support.reason)
        found: set[int] = set()
        changed = False
        shape = Shape.of(info)
        try:
            with self.pool.session(shape, deadline) as session:
                changed, session.changed = session.changed, False
                self._decode(session, stream, info, segment, sink, deadline, found)
        except (CorruptMedia, UnsupportedFormat):
            # A change of size fails only now, and is not the clip's fault: it gets a session that nobody used
            if not changed or found:
                raise
            with self.pool.session(shape, deadline, fresh=True) as session:
                self._decode(session, stream, info, segment, sink, deadline, found)
        return found

    def close_idle(self) -> int:
        """See ``SessionPool``."""
        return self.pool.close_idle()

    def _decode(
        self,
        session: Session,
        stream: ElementaryStream,
        info: VideoInfo,
        segment: Segment,
        sink: FrameSink,
        deadline: Deadline,
        found: set[int],
    ) -> None:
        wanted, total = Wanted(stream, segment), len(segment.targets)
        for position, frame in session.pictures(stream, segment, deadline, lambda: len(found) == total):
            index = wanted.index(position)
            if index is None or index in found:
                continue
            session.put(index, frame, info, sink, self._convert)
            found.add(index)

    def _make(self, shape: Shape) -> Session:
        return Session(self._index, shape, shape.roomy(self._allowed), self._guard)

    def _allowed(self, square: Shape) -> bool:
        """Whether the GPU takes pictures of a size that sessions are made for."""
        info = VideoInfo(square.codec, square.width, square.height, 1, 1.0, 1.0)
        answer = pynv_caps.caps(self._index, square.codec, square.bit_depth)
        return bool(pynv_caps.within(replace(info, bit_depth=square.bit_depth), answer))


def engines(device_index: int) -> int | None:
    """NVDEC engines of a GPU, where the driver says."""
    try:
        return int(pynv_caps.caps(device_index, "h264", 8)["num_decoder_engines"])
    except Exception:  # noqa: BLE001 - the library raises several unrelated types; or the key is not there
        return None
