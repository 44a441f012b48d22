"""Media that are kept for later: in the slab while there is room, then in lower tiers, and dropped at last."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Self

from gpuflow.errors import Closed, DeadlineExceeded, LeaseExpired, SpillError
from gpuflow.forks import disown_in_children
from gpuflow.media import Media
from gpuflow.memory.cascade import Cascade, Stay
from gpuflow.memory.entry import Entry
from gpuflow.memory.lease import Lease
from gpuflow.memory.slab import Slab
from gpuflow.memory.statistics import TieredStatistics
from gpuflow.memory.tiers import Tier
from gpuflow.observe import log

LOOK_SECONDS = 0.25  # how often the spilling thread looks: nobody tells it of a release


class TieredMemory:
    """Keeps media in ``slab``, and spills those used longest ago to ``tiers``, from the first to the last. Thread-safe.

    Spilling starts when more than ``high_watermark`` of the room for them is taken, and goes on to ``low_watermark``;
    the room is what pinned, published and other leases leave of the slab, so that these alone never start it. One
    thread spills; an allocation from the slab that finds no room spills too, before it waits.

    Raises:
        ValueError: the watermarks are not 0 < low <= high <= 1.
    """

    def __init__(
        self, slab: Slab, tiers: Sequence[Tier] = (), *, high_watermark: float = 0.85, low_watermark: float = 0.70
    ) -> None:
        if not isinstance(slab, Slab):
            raise TypeError(f"media are kept in a slab, say flow.slab; got {type(slab).__name__}")
        if not 0 < low_watermark <= high_watermark <= 1:
            raise ValueError(f"0 < low_watermark <= high_watermark <= 1; got {low_watermark}, {high_watermark}")
        self.slab = slab
        self._high, self._low = high_watermark, low_watermark
        self._cascade = Cascade(tiers)
        self._resident: OrderedDict[Entry, None] = OrderedDict()  # the one used longest ago comes first
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._spilling = threading.Lock()  # one job at a time
        self._closed = False
        self.foreign = False  # true in a forked child
        disown_in_children(self)
        self._stop_relief: Callable[[], None] = slab.on_pressure(self._relieve)
        self._thread = threading.Thread(target=self._keep_room, name="gpuflow-spill", daemon=True)
        self._thread.start()

    def keep(self, media: Media) -> Entry:
        """Keep a sealed medium of the slab; release yours as usual.

        Raises:
            ValueError: it lies elsewhere, or is not sealed.
            LeaseExpired: it was released.
            Closed: the memory was closed.
        """
        if not isinstance(media, Media):
            raise TypeError(f"a medium is kept: Image, Frames, Waveform or Features; got {type(media).__name__}")
        lease = media.lease
        if not isinstance(lease, Lease) or lease.slab is not self.slab or not lease.sealed:
            raise ValueError("only a sealed medium of this slab can be kept")
        with self._changed:
            self._require_open()
            entry = Entry(self, media, lease.retain())
            self._resident[entry] = None
            self._changed.notify_all()
        return entry

    def pin(self, entry: Entry, timeout_seconds: float) -> Media:
        """``Entry.pin``."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                self._require_open()
                if entry.dropped:
                    raise LeaseExpired("the medium was dropped, by its owner or for want of memory")
                if (media := self.pin_resident(entry)) is not None:
                    return media
                if not entry._restoring:
                    break
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise DeadlineExceeded("the medium was not restored in time")
            entry._restoring = True
        return self._restore(entry, deadline)

    def pin_resident(self, entry: Entry) -> Media | None:
        """The medium, pinned, if it lies in the slab."""
        with self._changed:
            self._require_open()
            if entry._lease is None:
                return None
            self._resident.move_to_end(entry)
            return entry.over(entry._lease.retain())

    def drop(self, entry: Entry) -> None:
        """``Entry.drop``."""
        with self._changed:
            if self.foreign or entry.dropped:
                return
            entry.dropped = True
            if not entry._restoring:  # else who restores it lets it go
                self._forget(entry)
            self._changed.notify_all()

    def statistics(self) -> TieredStatistics:
        """A snapshot."""
        with self._changed:
            counts, tiers = self._counts, self._cascade.statistics()
            return TieredStatistics(
                entries={"slab": len(self._resident)} | {name: entries for name, entries, _ in tiers},
                bytes={"slab": sum(entry.nbytes for entry in self._resident)} | {name: size for name, _, size in tiers},
                evictable_bytes=self._evictable_bytes(),
                spills=counts["spills"],
                spilled_bytes=counts["spilled_bytes"],
                spill_seconds=counts["spill_us"] / 1e6,
                restores=counts["restores"],
                restored_bytes=counts["restored_bytes"],
                restore_seconds=counts["restore_us"] / 1e6,
                drops=counts["drops"] + self._cascade.drops,
                spill_failures=self._cascade.failures,
                restore_failures=counts["restore_failures"],
            )

    def close(self) -> None:
        """Drop everything and stop; harmless when repeated. Closes the tiers. What is pinned stays valid."""
        with self._changed:
            if self._closed or self.foreign:
                return
            self._closed = True
            self._changed.notify_all()
        self._stop_relief()
        self._thread.join()
        with self._spilling, self._changed:
            for entry in list(self._resident):
                entry.dropped = True
                self._forget(entry)
        self._cascade.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a TieredMemory is memory of this process and cannot be pickled")

    def disown(self) -> None:
        """In a forked child, which has neither the spilling thread nor anybody who gives the locks back."""
        self.foreign = True
        self._changed = threading.Condition()
        self._cascade.disown()

    def _restore(self, entry: Entry, deadline: float) -> Media:
        """Bring an entry back; only one thread does, and the others wait for it."""
        started, stay = time.monotonic(), entry._stay
        lease: Lease | None = None
        assert stay is not None
        try:
            with self._cascade.reading(stay, deadline=deadline) as read:  # held there while others make room for it
                lease = self.slab.allocate(entry.nbytes, timeout_seconds=max(0.0, deadline - time.monotonic()))
                read(lease)
            lease.seal()
        except BaseException as error:
            if lease is not None:
                lease.release()
            with self._changed:
                entry._restoring = False
                if isinstance(error, SpillError):
                    self._counts["restore_failures"] += 1
                entry.dropped |= isinstance(error, (SpillError, LeaseExpired))
                if entry.dropped:
                    self._forget(entry)
                self._changed.notify_all()
            raise
        with self._changed:
            self._cascade.drop(stay)
            entry._stay, entry._lease, entry._restoring = None, lease, False
            self._note("restore", entry.nbytes, started)
            media = entry.over(lease.retain())
            if entry.dropped or self._closed:
                entry.dropped = True
                self._forget(entry)
            else:
                self._resident[entry] = None
            self._changed.notify_all()
        return media

    def _keep_room(self) -> None:
        """The spilling thread."""
        while True:
            with self._changed:
                if self._closed:
                    return
                if not self._resident or self._evictable_bytes() <= self._high * self._room_bytes():
                    self._changed.wait(LOOK_SECONDS if self._resident else None)
                    self._note_use()
                    continue
            try:
                self._spill_down_to(self._low)
            except Exception:  # noqa: BLE001 - this thread must not end while the memory is open
                log.exception("spilling failed")
            with self._changed:  # what is left cannot be spilled now: every tier that could take it fails or rests
                self._changed.wait(LOOK_SECONDS)

    def _spill_down_to(self, watermark: float) -> None:
        excess = self._evictable_bytes() - watermark * self._room_bytes()
        while excess > 0 and (freed := self._spill_one()) is not None:
            excess -= freed

    def _relieve(self, nbytes: int, deadline: float) -> None:
        """An allocation finds no room: spill until there is a block of that size, or its time is over."""
        while not self._closed and self.slab.largest_free_bytes < nbytes and time.monotonic() < deadline:
            if self._spill_one() is None:
                return

    def _spill_one(self) -> int | None:
        """Spill the evictable entry used longest ago; returns the bytes that this freed, or ``None`` if there is no such
        entry, or no tier takes it."""
        with self._spilling:
            with self._changed:
                self._note_use()
                entry = next((entry for entry in self._resident if entry.evictable), None)
                if entry is None or entry._lease is None or self._closed:
                    return None
                entry.moving = True
                lease = entry._lease.retain()
            started = time.monotonic()
            try:
                stay = self._cascade.put(lease, entry)
            finally:
                with self._changed:
                    entry.moving = False
                lease.release()
            return self._settle(entry, stay, started)

    def _settle(self, entry: Entry, stay: Stay | None, started: float) -> int | None:
        """After the copy: the lower one stays, unless the entry was pinned or dropped meanwhile."""
        with self._changed:
            lease = entry._lease
            if stay is None:
                return None
            if entry.dropped or lease is None or lease.references > 1:
                self._cascade.drop(stay)
                return 0
            self._note("spill", entry.nbytes, started)
            self._resident.pop(entry, None)
            entry._lease = None
            if stay.gone:  # no tier is large enough, or there is none
                entry.dropped = True
                self._counts["drops"] += 1
            else:
                entry._stay = stay
            lease.release()
            return entry.taken_bytes

    def _forget(self, entry: Entry) -> None:
        self._resident.pop(entry, None)
        lease, stay = entry._lease, entry._stay
        entry._lease = entry._stay = None
        if lease is not None:
            lease.release()
        if stay is not None:
            self._cascade.drop(stay)

    def _note_use(self) -> None:
        """What is in use at this moment was used last: nobody tells of a release."""
        with self._changed:
            for entry in [entry for entry in self._resident if entry.in_use]:
                self._resident.move_to_end(entry)

    def _evictable_bytes(self) -> int:
        with self._changed:
            return sum(entry.taken_bytes for entry in self._resident if entry.evictable)

    def _room_bytes(self) -> int:
        """What leases that cannot be spilled leave of the slab."""
        return self.slab.free_bytes + self._evictable_bytes()

    def _note(self, what: str, nbytes: int, started: float) -> None:
        self._counts[f"{what}s"] += 1
        self._counts[f"{'spilled' if what == 'spill' else 'restored'}_bytes"] += nbytes
        self._counts[f"{what}_us"] += int(1e6 * (time.monotonic() - started))

    def _require_open(self) -> None:
        if self.foreign:
            raise Closed("this memory was made before a fork and belongs to the parent: make one in this process")
        if self._closed:
            raise Closed("the memory is closed")
