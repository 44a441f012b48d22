"""The worker process: load everything, decode once with every backend, give up what is not needed, then serve jobs.

Started as a fresh interpreter (never a fork) with one socket. Torch is not imported here: it takes seconds to load.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import socket
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.base import Surface, VideoInfo
from gpuflow.codecs.images import decode_image
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.ordered import decode_in_order
from gpuflow.codecs.video.source import PacketSource
from gpuflow.codecs.video.stream import ElementaryStream
from gpuflow.codecs.videos import cpu_decoder
from gpuflow.errors import DeadlineExceeded, GpuflowError, LimitExceeded, UnsupportedFormat
from gpuflow.isolation import wire
from gpuflow.isolation.decoding import decode_sound
from gpuflow.isolation.packets import Handing
from gpuflow.isolation.sandbox import die_with_parent, forbid_system_calls, limit_resources
from gpuflow.isolation.warm_up import warm_up

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def main(parent: int, file: int) -> None:
    """Serve the socket ``file`` until it is closed."""
    die_with_parent(parent)
    connection = socket.socket(fileno=file)
    _, files, _, _ = socket.recv_fds(connection, 1, 1, socket.MSG_CMSG_CLOEXEC)
    inbox = Inbox(connection)
    try:
        worker = _prepared(inbox, files[0])
    except Exception as error:  # noqa: BLE001 - told to the parent, which logs it
        inbox.send(wire.Failed(type(error).__name__, f"{type(error).__name__}: {error}"[: wire.MAX_TEXT]))
        return
    inbox.send(wire.Ready())
    while (job := inbox.next(ending=True)) is not None:
        worker.serve(job)


def _prepared(inbox: Inbox, slab_file: int) -> Worker:
    """Load and decode with everything; then give up what is not needed for that."""
    hello = inbox.next()
    slab = np.frombuffer(mmap.mmap(slab_file, hello.slab_bytes), np.uint8)
    os.close(slab_file)
    keep_memory()
    warm_up()
    worker = Worker(inbox, slab, hello.num_threads)
    limit_resources(hello.memory_bytes)
    forbid_system_calls()
    return worker


class Inbox:
    """The worker's end of the socket: orders in their turn, and, while it decodes, those that come in between.

    Safe from several threads: the parts of one clip are decoded side by side.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._receiving, self._sending = threading.Lock(), threading.Lock()
        self._pending = bytearray()
        self._free: list[int] = []
        self._stopped = False
        self.ends = 0.0

    def begin(self, seconds: float) -> None:
        """A job begins that may take so long."""
        self.ends = time.monotonic() + seconds
        self._free.clear()
        self._stopped = False

    def check(self) -> None:
        """See ``codecs.base.Deadline``: also ends what the parent wants no more."""
        with self._receiving:
            while not self._stopped and (order := self._take(wait=False)) is not None:
                self._note(order)
        if self._stopped:
            raise DeadlineExceeded("the work was cancelled")
        if time.monotonic() > self.ends:
            raise DeadlineExceeded("the media took too long to decode")

    def take_slot(self) -> int:
        """A place for a frame, once there is one."""
        with self._receiving:
            while not self._free and not self._stopped:
                self._note(self._take(wait=True))
            if self._stopped:
                raise DeadlineExceeded("the work was cancelled")
            return self._free.pop()

    def give_slots(self, offsets: tuple[int, ...]) -> None:
        """Places for frames."""
        with self._receiving:
            self._free += offsets

    def next(self, *, ending: bool = False) -> Any:
        """Wait for the next order; ``None`` where ``ending`` and the parent has gone. ``Stop`` raises."""
        order: Any = wire.Free(0)
        with self._receiving:
            while isinstance(order, wire.Free):
                order = self._take(wait=True, ending=ending)
        if isinstance(order, wire.Stop) and not ending:
            raise DeadlineExceeded("the work was cancelled")
        return order

    def read(self, count: int) -> bytes:
        """The bytes that follow a job."""
        data = bytearray(count)
        taken = min(count, len(self._pending))
        data[:taken] = self._pending[:taken]
        del self._pending[:taken]
        view = memoryview(data)[taken:]
        while view:
            size = self._connection.recv_into(view)
            if size == 0:
                raise SystemExit(0)
            view = view[size:]
        return bytes(data)

    def send(self, answer: Any) -> None:
        """Answer."""
        with self._sending:
            self._connection.sendall(wire.framed(answer))

    def _note(self, order: Any) -> None:
        if isinstance(order, wire.Free):
            self._free.append(order.offset)
        else:
            self._stopped = True

    def _take(self, *, wait: bool, ending: bool = False) -> Any:
        """The next order; ``None`` where there is none yet and ``wait`` is false, or at the end."""
        while (order := self._parse()) is None:
            try:
                received = self._connection.recv(65_536, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if not received:
                if ending and not self._pending:
                    return None
                raise SystemExit(0)
            self._pending += received
        return order

    def _parse(self) -> Any:
        if len(self._pending) < 4:
            return None
        end = 4 + int.from_bytes(self._pending[:4], "little")
        if len(self._pending) < end:
            return None
        order = wire.decode_order(self._pending[4:end])
        del self._pending[:end]
        return order


class Worker:
    """Does jobs, one at a time, by the functions that decode in the parent too."""

    def __init__(self, inbox: Inbox, slab: NDArray[np.uint8], num_threads: int) -> None:
        self._inbox = inbox
        self._slab = slab
        self._pool = ThreadPoolExecutor(num_threads) if num_threads > 1 else None

    def serve(self, job: Any) -> None:
        """One conversation; whatever is raised is its answer."""
        if isinstance(job, wire.Stop):  # it crossed the answer that ended the last one
            return
        self._inbox.begin(job.seconds)
        data = self._inbox.read(job.nbytes)
        try:
            answer: Any = wire.Done(self._do(job, data))
        except GpuflowError as error:
            answer = wire.Failed(type(error).__name__, str(error)[: wire.MAX_TEXT])
        except MemoryError:
            answer = wire.Failed(LimitExceeded.__name__, "decoding took more memory than a worker may have")
        except Exception as error:  # noqa: BLE001 - the parent logs it, and raises its own
            answer = wire.Failed(GpuflowError.__name__, f"unexpected {type(error).__name__} in a decode worker")
        self._inbox.send(answer)

    def _do(self, job: Any, data: bytes) -> tuple[int, ...]:
        if isinstance(job, wire.VideoJob):
            return self._video(job, data)
        if isinstance(job, wire.ImageJob):
            self._image(job, data)
        else:
            self._audio(job, data)
        return ()

    def _image(self, job: wire.ImageJob, data: bytes) -> None:
        decoded = decode_image(data, job.info, frame=job.frame, torch_free=True, least_size=job.least_size)
        height, width, channels = decoded.pixels.shape
        self._inbox.send(wire.Pixels(height, width, channels, decoded.backend))
        self._view(self._inbox.next().offset, "uint8", (height, width, channels))[...] = decoded.pixels

    def _audio(self, job: wire.AudioJob, data: bytes) -> None:
        sound = decode_sound(data, job.kind, job.wanted, limits=job.limits, deadline=self._inbox)
        samples = sound.samples
        shape = (samples.shape[0], samples.shape[1])
        dtype: Literal["float32", "int16"] = "int16" if samples.dtype == np.int16 else "float32"
        self._inbox.send(wire.Sound(sound.origin, sound.sample_rate, shape, dtype))
        self._view(self._inbox.next().offset, dtype, shape)[...] = samples

    def _video(self, job: wire.VideoJob, data: bytes) -> tuple[int, ...]:
        source = PacketSource.open(data, job.kind, limits=job.limits, deadline=self._inbox)
        self._inbox.send(wire.Opened(source.info, tuple(source.pts_seconds), source.key_indices))
        plan = source.plan(self._inbox.next().indices, limits=job.limits)
        self._inbox.send(wire.Planned(plan.segments))
        order = self._inbox.next()
        if not isinstance(order, wire.Decode):
            self._hand_over(source.demuxed, order)
        self._inbox.give_slots(order.slots)
        sink = _Writing(self, source.info, order.places)
        decode: Any = decode_frames
        if order.in_order:  # one segment after another: frames of a later one would fill the slots
            decode = decode_in_order
        missing: tuple[int, ...] = decode(
            source.demuxed, source.info, plan, sink, decoder=cpu_decoder, deadline=self._inbox,
            pool=None if order.in_order else self._pool, max_packets=job.limits.max_decoded_frames,
        )  # fmt: skip
        return missing

    def _hand_over(self, stream: ElementaryStream, order: Any) -> NoReturn:
        """Give packets until ``Stop``, which raises."""
        while True:
            if isinstance(order, wire.Describe):
                self._inbox.send(wire.Table(tuple(stream.table(order.first, order.last))))
            elif isinstance(order, wire.Packets):
                block = self._view(order.offset, "uint8", (order.nbytes,))
                handing = Handing(stream.payloads(order.first, order.last, order.skipped), block, self._inbox)
                self._inbox.send(handing.fill())
            else:
                self._inbox.send(handing.fill())
            order = self._inbox.next()

    def put(self, index: int, surface: Surface, info: VideoInfo, place: int | None) -> None:
        """Write a frame to its place, or to the next free slot, which has room for the clip's first, and say so."""
        (height, width), room = info.displayed_size, math.prod(info.displayed_size)
        if place is None:
            height, width = surface.displayed_size
        if height * width > room:
            raise UnsupportedFormat(
                f"the picture size grows from {info.width}x{info.height} to {width}x{height} within the clip"
            )
        offset = self._inbox.take_slot() if place is None else place
        surface.rgb_into(self._view(offset, "uint8", (height, width, 3)))
        self._inbox.send(wire.Frame(index, offset, height, width, surface.corrupt))

    def give_up(self, indices: tuple[int, ...]) -> None:
        """Frames that do not come out; said at once, for those behind them wait."""
        self._inbox.send(wire.Missing(indices))

    def _view(self, offset: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self._slab[offset : offset + nbytes].view(dtype).reshape(shape)


class _Writing:
    """``FrameSink`` into the slab."""

    def __init__(self, worker: Worker, info: VideoInfo, places: dict[int, int]) -> None:
        self._worker = worker
        self._info = info
        self._places = places

    def put(self, index: int, surface: Surface) -> None:
        """See ``FrameSink``."""
        self._worker.put(index, surface, self._info, self._places.get(index))

    def give_up(self, indices: Collection[int]) -> None:
        """Say so."""
        self._worker.give_up(tuple(indices))

    def make_room(self, indices: Collection[int]) -> bool:
        """Never: slots become free one at a time."""
        return False


def keep_memory() -> None:
    """Have freed memory stay with the process: given back to the kernel after every picture, its pages are zeroed and
    mapped anew for the next (11,000 faults and 17 of 35 ms for a 1080p WebP). The pool replaces a worker that grew."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def silence() -> None:
    """Decoders print what attackers make them print: nobody reads it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
