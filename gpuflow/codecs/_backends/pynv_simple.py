"""NVDEC through PyNvVideoCodec's ``SimpleDecoder``: the second route, where its core decoder takes no packets of ours.

It demuxes by itself, so it gets only files in which its numbers of frames are ours, after our own demuxer has read
them, from memory by a path of this process: of a path alone it takes another source without a new decoder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

from gpuflow.codecs._backends import pynv_caps
from gpuflow.codecs._backends.pynv_caps import library, translated
from gpuflow.codecs._backends.pynv_session import Held
from gpuflow.codecs._backends.pynv_surface import Convert
from gpuflow.codecs._backends.pynvvideocodec import DEFAULT_SESSIONS, engines
from gpuflow.codecs.base import Capability, Deadline, FrameSink, Guard, Support, VideoInfo
from gpuflow.codecs.video.plan import Segment
from gpuflow.codecs.video.sessions import SessionPool, Shape
from gpuflow.codecs.video.stream import ElementaryStream
from gpuflow.codecs.video.wholefile import WholeFile, miscounted, whole_file
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_BATCH = 8  # frames of one call: each lies in device memory of its own until the next call


class SimpleVideoDecoder:
    """``VideoDecoder`` of whole files on one GPU, ``sessions`` at once; a clip takes one of them."""

    name = "pynvvideocodec-simple"
    device: Literal["cuda"] = "cuda"
    restart_packets = 1 << 30  # a clip is one segment: it finds frames by their numbers

    def __init__(
        self, device_index: int, convert: Convert, *, sessions: int | None = None, guard: Guard = nullcontext
    ) -> None:
        self._index = device_index
        self._convert = convert
        self._guard = guard
        self._sessions = sessions
        self.pool: SessionPool[SimpleSession] = SessionPool(
            lambda shape: SimpleSession(self._index, shape, guard), limit=lambda: self._limit
        )

    @property
    def lanes(self) -> int:
        """Segments of one clip that it decodes side by side."""
        return 1

    @property
    def _limit(self) -> int:
        return self._sessions or engines(self._index) or DEFAULT_SESSIONS

    @property
    def contended(self) -> bool:
        """Whether others wait for its sessions."""
        return self.pool.contended

    def capability(self) -> Capability:
        """Whether driver and library are there."""
        return pynv_caps.capability()

    def supports(self, info: VideoInfo) -> Support:
        """As the first route; ``takes`` says more."""
        return pynv_caps.support(info, self._index)

    def takes(self, file: WholeFile | None, info: VideoInfo) -> Support:
        """Whether it counts this file's frames as we do. ``None``: one that is not here as a whole."""
        if file is None:
            return Support(False, "SimpleDecoder needs the whole file in this process, which isolation forbids")
        if info.num_frames != len(file.rows):
            return Support(False, f"{len(file.rows)} packets and {info.num_frames} frames: SimpleDecoder may miscount")
        reason = miscounted(file)
        return Support(reason is None, f"SimpleDecoder may miscount: {reason}" if reason else "")

    def decode(
        self, stream: ElementaryStream, info: VideoInfo, segment: Segment, sink: FrameSink, deadline: Deadline
    ) -> set[int]:
        """See ``VideoDecoder``; ``segment`` says which frames, and no more. Raises as ``NvdecVideoDecoder`` does."""
        file = whole_file(stream)
        if not (support := self.supports(info)) or not (support := self.takes(file, info)) or file is None:
            raise UnsupportedFormat(support.reason)
        wanted = sorted(segment.targets.values())
        with self.pool.session(Shape.of(info), deadline) as session, _in_memory(file.data) as path:
            session.load(path, info)
            for start in range(0, len(wanted), _BATCH):
                deadline.check()
                batch = wanted[start : start + _BATCH]
                for index, frame in zip(batch, session.frames(batch), strict=True):
                    session.put(index, frame, info, sink, self._convert)
            session.finish()
        return set(wanted)

    def close_idle(self) -> int:
        """See ``SessionPool``."""
        return self.pool.close_idle()


class SimpleSession(Held):
    """One ``SimpleDecoder``, made with its first file; see ``gpuflow.codecs.video.sessions.Session``."""

    def __init__(self, device_index: int, shape: Shape, guard: Guard) -> None:
        self.shape = self.made_for = shape
        self._index = device_index
        super().__init__(device_index, guard)

    def adopt(self, shape: Shape) -> None:
        """The file says its size; there is nothing to do before."""
        self.shape = shape

    def load(self, path: str, info: VideoInfo) -> None:
        """Take another file.

        Raises:
            CorruptMedia: it cannot be read.
            UnsupportedFormat: the library finds another codec, size or number of frames in it.
        """
        nvc = library()

        with self._on.device, translated(info.codec), self._guard():
            if self._decoder is None:
                self._decoder = nvc.SimpleDecoder(
                    path,
                    gpu_id=self._index,
                    cuda_context=self._on.context,
                    cuda_stream=self._on.stream.ptr,
                    use_device_memory=True,
                    max_width=self.made_for.width,
                    max_height=self.made_for.height,
                    decoder_cache_size=1,
                    output_color_type=nvc.OutputColorType.NATIVE,
                )
            else:
                self._decoder.reconfigure_decoder(path)
            found = self._decoder.get_stream_metadata()
        self._check(found, info)

    def frames(self, indices: Sequence[int]) -> list[Any]:
        """These frames, ascending; valid until the next call. Raises ``CorruptMedia`` where one does not come."""
        self._on.wait()
        with self._on.device, translated(self.shape.codec), self._guard():
            found = list(self._decoder.get_batch_frames_by_index(list(indices)))
        if len(found) != len(indices):
            raise CorruptMedia(f"{len(found)} of {len(indices)} wanted frames were decoded")
        return found

    def finish(self) -> None:
        """Wait until nothing reads the last frames any more."""
        self._on.wait()

    def _check(self, found: Any, info: VideoInfo) -> None:
        codec = str(found.codec_name).lower()
        if codec in pynv_caps.CODECS and codec != info.codec:
            raise UnsupportedFormat(f"SimpleDecoder finds {codec} in this file, our demuxer {info.codec}")
        seen, ours = (found.width, found.height, found.num_frames), (info.width, info.height, info.num_frames)
        if seen != ours:
            raise UnsupportedFormat(f"SimpleDecoder finds {seen} (width, height, frames) in this file, we {ours}")


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path of this process to a copy of the bytes. Emptied at the end: the decoder keeps the file open until its next."""
    descriptor = os.memfd_create("gpuflow-clip", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)
