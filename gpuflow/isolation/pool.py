"""A pool of decode workers: who is idle, who is started, who is replaced, and which inputs are not tried again.

One thread, the keeper, starts and buries workers; a thread with a job takes an idle one and talks to it alone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Self

from gpuflow.errors import BackendUnavailable, Closed, DecoderCrashed, GpuflowError, Overloaded
from gpuflow.forks import disown_in_children
from gpuflow.isolation.process import WorkerProcess
from gpuflow.isolation.wire import Clock, Disconnected, Failed, Hello, Ready
from gpuflow.memory import Slab
from gpuflow.memory.backing import HostMemory
from gpuflow.observe import Counters, log

MIB = 1 << 20
START_SECONDS = 60.0
_CHECK_SECONDS = 0.05
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_HOPELESS = 3  # starts that failed in a row, after which jobs no longer wait for the next
_MAX_QUARANTINED = 4_096
_MAX_CPU_SECONDS = 1_800.0  # half of what a worker may use: the other half is the last job's


class DecoderPool:
    """``workers`` sandboxed processes that write into one host slab.

    Args:
        slab: what they write to, made with ``shared=True``. They see all of it.
        max_queued: jobs that may wait for a worker; beyond them ``Overloaded``. Twice the workers by default.
        memory_bytes: private memory that a worker may take beyond what it starts with.
        max_jobs, max_resident_bytes: a worker that did, or holds, so much is replaced.
        quarantine_seconds: how long an input that killed a worker is refused.

    Raises:
        ValueError: the slab's memory cannot be shared for writing.
    """

    def __init__(
        self,
        slab: Slab,
        *,
        workers: int = 2,
        threads_per_worker: int = 1,
        max_queued: int | None = None,
        memory_bytes: int = 2_048 * MIB,
        max_jobs: int = 1_000,
        max_resident_bytes: int = 1_536 * MIB,
        quarantine_seconds: float = 600.0,
        counters: Counters | None = None,
    ) -> None:
        if not isinstance(slab.backing, HostMemory) or not slab.backing.shared:
            raise ValueError("decode workers write to a host slab that is made with shared=True")
        self.workers = workers
        self.counters = counters or Counters()
        self.quarantine = Quarantine(quarantine_seconds)
        self._hello = Hello(slab.nbytes, memory_bytes, threads_per_worker)
        self._slab_file = os.dup(slab.backing.file)
        self._max_queued = 2 * workers if max_queued is None else max_queued
        self._max_jobs = max_jobs
        self._max_resident_bytes = max_resident_bytes
        self._changed = threading.Condition()
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._starting: list[WorkerProcess] = []
        self._queue: deque[object] = deque()
        self._failures = 0
        self._failure = ""
        self._next_start = 0.0
        self._closed = self._foreign = False
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        disown_in_children(self)
        self._keeper = threading.Thread(target=self._keep, name="gpuflow-keeper", daemon=True)
        self._keeper.start()

    @property
    def pids(self) -> list[int]:
        """The workers that are ready, busy ones first."""
        with self._changed:
            return [worker.pid for worker in (*self._busy, *self._idle)]

    @property
    def busy(self) -> int:
        """Workers with a job."""
        return len(self._busy)

    @property
    def queued(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._queue)

    @contextlib.contextmanager
    def worker(self, clock: Clock) -> Iterator[WorkerProcess]:
        """A worker for one job. It comes back to the pool when the block ends well, and is replaced when it raises
        ``Disconnected`` or was killed.

        Raises:
            Overloaded: too many jobs are waiting.
            BackendUnavailable: workers do not start.
            DeadlineExceeded: none became free in time.
            Closed: the pool is closed.
        """
        while (worker := self._take(clock)).channel.ended():  # while it was idle: not this job's doing
            self._give_back(worker, "ended")
        self.counters.add("gpuflow_decode_jobs_total")
        try:
            yield worker
        finally:
            self._give_back(worker)

    def close(self) -> None:
        """End every worker and wait for that, and for jobs under way; harmless when repeated."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        if self._foreign:
            return
        self._nudge()
        self._keeper.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _take(self, clock: Clock) -> WorkerProcess:
        with self._changed:
            self._require_open()
            if not self._idle and len(self._queue) >= self._max_queued:
                raise Overloaded(f"{len(self._queue)} jobs wait for {self.workers} decode workers")
            ticket = object()
            self._queue.append(ticket)
            try:
                while not (self._idle and self._queue[0] is ticket):
                    self._changed.wait(_CHECK_SECONDS)
                    self._require_open()
                    self._require_hope()
                    clock.check()
                worker = self._idle.pop()
                self._busy.add(worker)
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        return worker

    def _give_back(self, worker: WorkerProcess, reason: str | None = None) -> None:
        worker.jobs += 1
        reason = reason or self._worn(worker)
        if reason is not None:
            worker.kill()
            self.counters.add("gpuflow_decode_workers_replaced_total", reason=reason)
        with self._changed:
            self._busy.discard(worker)
            if reason is None:
                self._idle.append(worker)
            self._changed.notify_all()
        if reason is not None or self._closed:
            self._nudge()

    def _worn(self, worker: WorkerProcess) -> str | None:
        if worker.channel.connection.fileno() < 0:
            return "ended"
        if worker.jobs >= self._max_jobs:
            return "jobs"
        if worker.memory_bytes > self._max_resident_bytes:
            return "memory"
        return "time" if worker.cpu_seconds > _MAX_CPU_SECONDS else None

    def _require_open(self) -> None:
        if self._foreign:
            raise Closed("this pool was made before a fork and belongs to the parent: make one in this process")
        if self._closed:
            raise Closed("the decode workers are closed")

    def _require_hope(self) -> None:
        if self._failures >= _HOPELESS and not (self._idle or self._busy):
            raise BackendUnavailable(f"decode workers do not start: {self._failure}")

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def _keep(self) -> None:
        try:
            while not self._closed:
                try:
                    self._start_missing()
                    self._look(self._pause())
                except OSError as error:  # say no descriptor is left: that passes
                    self._note_failure(str(error))
                    time.sleep(_FIRST_PAUSE_SECONDS)
        except Exception:  # noqa: BLE001 - the pool cannot go on: say so, and let nobody wait
            log.exception("the keeper of the decode workers failed")
        finally:
            self._bury_all()

    def _start_missing(self) -> None:
        with self._changed:
            missing = self.workers - len(self._idle) - len(self._busy) - len(self._starting)
        for _ in range(missing):
            if time.monotonic() < self._next_start:
                return
            try:
                self._starting.append(WorkerProcess(self._slab_file, self._hello))
                self.counters.add("gpuflow_decode_workers_started_total")
            except BackendUnavailable as error:
                self._note_failure(str(error))

    def _pause(self) -> float | None:
        """How long the keeper may sleep; ``None``: until something happens."""
        waits = [worker.started + START_SECONDS - time.monotonic() for worker in self._starting]
        with self._changed:
            complete = len(self._idle) + len(self._busy) + len(self._starting) >= self.workers
        if not complete:
            waits.append(self._next_start - time.monotonic())
        return max(0.0, min(waits)) if waits else None

    def _look(self, seconds: float | None) -> None:
        """Wait for starting workers to be ready, and for idle ones that end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for worker in self._starting:
                selector.register(worker.channel.connection, selectors.EVENT_READ, worker)
            with self._changed:
                for worker in self._idle:
                    selector.register(worker.file, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(seconds)]
        if None in ready:
            self._wake.recv(4096)
        for worker in ready:
            if worker in self._starting:
                self._welcome(worker)
            elif worker is not None:
                self._drop_idle(worker)
        late = time.monotonic() - START_SECONDS
        for worker in [worker for worker in self._starting if worker.started < late]:
            self._starting.remove(worker)
            self._note_failure(f"not ready after {START_SECONDS:g} s ({worker.kill()})")

    def _welcome(self, worker: WorkerProcess) -> None:
        self._starting.remove(worker)
        said: object
        try:
            said = worker.channel.receive(_Patience(worker.started + START_SECONDS))
        except (Disconnected, GpuflowError) as error:
            said = error
        if not isinstance(said, Ready):
            why = said.text if isinstance(said, Failed) else str(said)
            self._note_failure(f"a worker ended while it started ({worker.bury()}): {why}")
            return
        with self._changed:
            self._failures, self._next_start = 0, 0.0
            self._idle.append(worker)
            self._changed.notify_all()

    def _drop_idle(self, worker: WorkerProcess) -> None:
        """An idle worker has ended."""
        with self._changed:
            if worker not in self._idle:  # it was taken meanwhile: who has it will see
                return
            self._idle.remove(worker)
        log.warning("an idle decode worker ended (%s)", worker.bury())
        self.counters.add("gpuflow_decode_workers_replaced_total", reason="ended")

    def _note_failure(self, why: str) -> None:
        log.warning("a decode worker does not start: %s", why)
        self.counters.add("gpuflow_decode_starts_failed_total")
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**self._failures)
        with self._changed:
            self._failures += 1
            self._failure = why
            self._next_start = time.monotonic() + pause
            self._changed.notify_all()

    def _bury_all(self) -> None:
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for worker in (*idle, *self._starting):
            worker.kill()
        self._starting.clear()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()
        for part in (self._wake, self._waker):
            part.close()
        os.close(self._slab_file)

    def disown(self) -> None:
        """In a forked child: the workers are the parent's."""
        self._changed = threading.Condition()
        self._closed = self._foreign = True
        for worker in (*self._idle, *self._busy, *self._starting):
            worker.abandon()
        for part in (self._wake, self._waker):
            part.close()
        with contextlib.suppress(OSError):
            os.close(self._slab_file)


class Quarantine:
    """Inputs, by content hash, that killed a worker not long ago. Bounded: the oldest goes first.

    A worker that had done other jobs before may have been damaged by those, or killed by somebody: then the input is
    refused only after the second time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until: OrderedDict[str, tuple[float, bool]] = OrderedDict()  # and whether it is refused

    def add(self, content_hash: str, *, certain: bool = True) -> None:
        """Refuse this input from now on; if it is not ``certain`` that it was its doing, from the second time on."""
        with self._lock:
            until, _ = self._until.get(content_hash, (0.0, False))
            again = until > time.monotonic()
            self._until[content_hash] = time.monotonic() + self._seconds, certain or again
            self._until.move_to_end(content_hash)
            while len(self._until) > _MAX_QUARANTINED:
                self._until.popitem(last=False)

    def check(self, content_hash: str) -> None:
        """Raise ``DecoderCrashed`` where this input is refused."""
        with self._lock:
            until, refused = self._until.get(content_hash, (0.0, False))
            if until <= time.monotonic():
                self._until.pop(content_hash, None)
            elif refused:
                raise DecoderCrashed("this input ended a decode worker not long ago: it is not tried again yet")

    def __len__(self) -> int:
        return len(self._until)


class _Patience:
    """A clock for the keeper."""

    def __init__(self, ends: float) -> None:
        self._ends = ends

    @property
    def remaining_seconds(self) -> float:
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        if self.remaining_seconds == 0:
            raise BackendUnavailable("the worker did not get ready in time")
