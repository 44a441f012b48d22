"""What one load needs besides its bytes: the device and slabs, the limits, the deadline, and its record of stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from gpuflow.codecs.base import MediaType
from gpuflow.config import Limits, NvdecPolicy
from gpuflow.device import Device
from gpuflow.errors import BackendUnavailable, DeadlineExceeded, LimitExceeded
from gpuflow.isolation.decoding import Decoder, Decoding, InProcess
from gpuflow.media import Blob, Modality, Stage, TensorSpec, block_bytes
from gpuflow.memory import Lease, Slab
from gpuflow.observe import Counters


class Deadline:
    """A moment that work must end at, or a wish that it end now. Checked between packets, passes and stages."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._allowed_seconds = seconds
        self._cancelled = threading.Event()

    @property
    def remaining_seconds(self) -> float:
        """Seconds left; never below 0."""
        return 0.0 if self._cancelled.is_set() else max(0.0, self._ends - time.monotonic())

    def limit(self, seconds: float) -> None:
        """End ``seconds`` from now, unless the end is nearer already."""
        ends = time.monotonic() + seconds
        if ends < self._ends:
            self._ends, self._allowed_seconds = ends, seconds

    def cancel(self) -> None:
        """Nobody wants the result any more: the next check raises."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise ``DeadlineExceeded`` when the time is over or the work was cancelled."""
        if self._cancelled.is_set():
            raise DeadlineExceeded("the work was cancelled")
        if time.monotonic() > self._ends:
            raise DeadlineExceeded(f"not done after {self._allowed_seconds:g} s")


def check_resize(size: tuple[int, int], resized: tuple[int, int], limits: Limits) -> None:
    """Refuse a resize, of and to ``(height, width)``, whose result or passage is larger than an image may be: the
    horizontal pass comes first, so that a small clip stretched to a thin strip takes gigabytes on the way.

    Raises:
        LimitExceeded: a side or the pixels exceed ``Limits``.
    """
    pixels = max(size[0], resized[0]) * resized[1]
    if pixels > limits.max_image_pixels or max(resized) > limits.max_image_side:
        raise LimitExceeded(
            f"{size[1]}x{size[0]} resized to {resized[1]}x{resized[0]} passes through {pixels} pixels; "
            f"Limits.max_image_pixels is {limits.max_image_pixels}, max_image_side {limits.max_image_side}"
        )


class LoadContext:
    """One load's surroundings. ``slab`` holds results, on the chosen device; ``host_slab`` is it on the CPU, else the
    pinned staging slab beside it. ``device_asked`` is what the caller named: ``"cuda"`` never falls back. ``decoding``:
    where decoding runs, on this thread by default; there, the parts of one clip are decoded side by side on
    ``segment_pool``, without it one after another."""

    def __init__(
        self,
        *,
        device: Device,
        slab: Slab,
        host_slab: Slab,
        limits: Limits,
        deadline: Deadline,
        counters: Counters,
        device_asked: str = "auto",
        segment_pool: Executor | None = None,
        decoding: Decoding | None = None,
        nvdec: NvdecPolicy | None = None,
    ) -> None:
        self.device = device
        self.slab = slab
        self.host_slab = host_slab
        self.limits = limits
        self.deadline = deadline
        self.counters = counters
        self.device_asked = device_asked
        self.nvdec = nvdec or NvdecPolicy()
        self.decoding: Decoding = decoding or InProcess(segment_pool, host_slab)
        self.stages: list[Stage] = []

    @property
    def isolated(self) -> bool:
        """Whether no library may look at the bytes in this process."""
        return not isinstance(self.decoding, InProcess)

    @contextmanager
    def decoder(self, blob: Blob, kind: MediaType, modality: Modality) -> Iterator[Decoder]:
        """What decodes one input. The time that a decode may take begins once there is one."""
        with self.decoding.begin(blob, kind, modality, limits=self.limits, deadline=self.deadline) as decoder:
            self.deadline.limit(self.limits.decode_seconds(modality))
            yield decoder

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, whether it fails or not; the deadline is checked before it."""
        self.deadline.check()
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages.append(Stage(name, started, time.perf_counter() - started))

    @contextmanager
    def placing(self, specs: tuple[TensorSpec, ...], adopt: Lease | None = None) -> Iterator[Lease]:
        """A lease for ``specs`` in the result slab: sealed when the block ends well, released when it raises.
        ``adopt``: the block that holds them already, of which a reference is taken.

        Raises:
            LimitExceeded: the result is larger than ``Limits.max_output_bytes``.
            SlabExhausted: no room before the deadline.
        """
        nbytes = block_bytes(specs)
        self.require_room(nbytes)
        if adopt is not None:
            lease = adopt.retain()
        else:
            lease = self.slab.allocate(nbytes, timeout_seconds=self.deadline.remaining_seconds)
        try:
            yield lease
            lease.synchronize()
            self.deadline.check()
            lease.seal()
        except BaseException:
            lease.release()
            raise

    def require_room(self, nbytes: int) -> None:
        """Refuse a result that no wait will make room for.

        Raises:
            LimitExceeded: it is larger than ``Limits.max_output_bytes``, or than the slab.
        """
        if nbytes > self.limits.max_output_bytes:
            raise LimitExceeded(
                f"the result would take {nbytes} bytes; Limits.max_output_bytes is {self.limits.max_output_bytes}"
            )
        if nbytes > self.slab.nbytes:
            raise LimitExceeded(f"the result would take {nbytes} bytes; all of the slab has {self.slab.nbytes}")

    def adoptable(self, lease: Lease | None) -> Lease | None:
        """The block that a worker wrote, where it may become the result as it is."""
        return lease if lease is not None and lease.slab is self.slab else None

    def fall_back(self, reason: str, *, modality: str) -> str:
        """Note that a CPU backend does work that the chosen GPU should have done; returns ``reason``.

        Raises:
            BackendUnavailable: the caller asked for ``"cuda"``, which never falls back.
        """
        if self.device_asked.startswith("cuda"):
            raise BackendUnavailable(f"device {self.device_asked!r} was asked for, and {reason}")
        return self.note_fallback(reason, modality=modality)

    def note_fallback(self, reason: str, *, modality: str) -> str:
        """Likewise where what the sender chose leaves nothing else, whatever was asked for; returns ``reason``."""
        self.counters.add("gpuflow_fallback_total", modality=modality)
        return reason
