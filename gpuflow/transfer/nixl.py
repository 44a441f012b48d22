"""NIXL behind six calls; the only import of it.

What the calls guard against was measured (1.5.1, UCX): without a progress thread a read hangs at wire-up; without
``STRICT`` two threads crash; the listener hands out metadata to anybody; an agent name can never be used twice; wrong
inputs give ``None`` instead of an error; a failing read raises instead of answering ``"ERR"``.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gpuflow.device import Capability
from gpuflow.errors import BackendUnavailable, Closed, InvalidDescriptor, PeerUnavailable, TransferTimeout
from gpuflow.memory import Slab
from gpuflow.memory.backing import HostMemory, device_id
from gpuflow.observe import log

MAX_METADATA_BYTES = 64 << 10
PROGRESS_SLEEP_MICROSECONDS = 10_000
_SPINS = 50
_FIRST_POLL_SECONDS = 20e-6
_LAST_POLL_SECONDS = 1e-3
_POISONED = ("nixlInvalidParamError", "nixlNotAllowedError")
_NOT_ITS_OWN = ("nixlNotFoundError", "nixlInvalidParamError")
MAX_PEERS = 256
_configuring = threading.Lock()


@dataclass(frozen=True, slots=True)
class Region:
    """A range of registered memory, here or at a peer."""

    mem_type: str
    address: int
    nbytes: int
    device_id: int = 0


@functools.cache
def api() -> Any:
    """NIXL's Python module.

    Raises:
        BackendUnavailable: not installed, or it does not load.
    """
    os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")  # its logger writes INFO to standard output
    os.environ.setdefault("UCX_LOG_FILE", "stderr")  # UCX writes even its errors there
    try:
        from nixl_cu13 import _api
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable(f"NIXL cannot be loaded ({error}): pip install 'gpuflow[cu13]'") from error
    return _api


def version() -> str:
    """The installed version, or an empty string."""
    try:
        return importlib.metadata.version("nixl-cu13")
    except importlib.metadata.PackageNotFoundError:
        return ""


def capabilities() -> dict[str, Capability]:
    """Whether NIXL is installed; whether it starts is seen when an agent is made."""
    if importlib.util.find_spec("nixl_cu13") is None:
        return {"nixl": Capability(False, "NIXL is not installed: pip install 'gpuflow[cu13]'")}
    return {"nixl": Capability(True, version=version())}


class Agent:
    """One NIXL agent with UCX, under a name that is never used again. Regions are registered once and stay so while the agent lives."""

    def __init__(self, name: str) -> None:
        module = api()
        self.name = name
        strict = module.nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT
        settings = module.nixl_agent_config(True, False, 0, backends=["UCX"], sync_mode=strict)
        try:
            with _calm_progress_thread(module):
                self._agent: Any = module.nixl_agent(self.name, settings)
        except Exception as error:
            raise BackendUnavailable(f"NIXL's UCX backend does not start: {error}") from error
        self._peers: OrderedDict[str, bytes] = OrderedDict()  # the one used longest ago comes first
        self._interrupted = False
        self._connecting = threading.RLock()
        self._proven: set[str] = set()  # peers that answered a read: their metadata is right

    def register(self, region: Region) -> None:
        """Register memory for transfers, once."""
        entry = [(region.address, region.nbytes, region.device_id, "")]
        if self._agent.register_memory(entry, region.mem_type) is None:
            raise BackendUnavailable(f"NIXL does not register {region.nbytes} bytes of {region.mem_type}")

    def register_slab(self, slab: Slab) -> None:
        """Register a slab's memory, once."""
        self.register(Region(slab.backing.mem_type, slab.address, slab.nbytes, device_id(slab.device)))

    def register_host(self, memory: HostMemory) -> None:
        """Register host memory, once."""
        self.register(Region("DRAM", memory.address, memory.nbytes))

    def metadata(self) -> bytes:
        """What a peer needs to reach this agent's regions: a capability, for trusted peers only. Compressed."""
        return zlib.compress(self._agent.get_agent_metadata(), 6)

    def connect(self, name: str, metadata: bytes) -> None:
        """Load a peer, once.

        Raises:
            InvalidDescriptor: the metadata is not that peer's.
            Poisoned: this agent can never load that peer again; another agent can.
            PeerUnavailable: it cannot be reached.
        """
        with self._connecting:
            self._connect(name, metadata)

    def _connect(self, name: str, metadata: bytes) -> None:
        if self._peers.get(name) == metadata:
            self._peers.move_to_end(name)
            return
        if name in self._proven:  # a name is never used for a second incarnation
            raise InvalidDescriptor("the descriptor's metadata is not that of its agent")
        raw = _decompress(metadata)
        self.forget(name)
        try:
            loaded = self._agent.add_remote_agent(raw)
            loaded = loaded.decode() if isinstance(loaded, bytes) else str(loaded)
        except Exception as error:
            if type(error).__name__ in _POISONED:
                raise Poisoned("NIXL's agent of this process cannot load the publishing process") from error
            raise PeerUnavailable("the publishing process cannot be reached") from error
        if loaded != name:
            self._agent.remove_remote_agent(loaded)
            raise InvalidDescriptor("the descriptor's metadata is of another agent")
        self._peers[name] = metadata
        if len(self._peers) > MAX_PEERS:
            self.forget(next(iter(self._peers)))

    def answered(self, name: str) -> bool:
        """Whether the peer answered a read since it was connected."""
        return name in self._proven

    def forget(self, name: str) -> None:
        """Drop a peer, so that the next ``connect`` loads it anew."""
        with self._connecting:
            self._proven.discard(name)
            if self._peers.pop(name, None) is None:
                return
            self._remove(name)

    def _remove(self, name: str) -> None:
        try:
            self._agent.remove_remote_agent(name)
        except Exception:  # noqa: BLE001 - it is gone either way, and connecting anew says what is wrong
            log.debug("NIXL does not drop a peer cleanly", exc_info=True)

    def read(self, peer: str, pairs: list[tuple[Region, Region]], *, deadline: float) -> None:
        """One-sided read of ``(local, remote)`` regions of equal size; blocks until done or ``time.monotonic()``
        passes ``deadline``.

        Raises:
            TransferTimeout: not done in time; ``error.handle`` still writes to the local regions until it ends.
            PeerUnavailable: the peer is gone.
            InvalidDescriptor: the remote regions are not the peer's registered memory; nothing was read.
            Closed: this agent was closed.
        """
        if self._agent is None:
            raise Closed("the reader is closed")
        local, remote = (self._list([pair[side] for pair in pairs]) for side in (0, 1))
        handle = self._prepare(peer, local, remote)
        try:
            state = self._agent.transfer(handle)
            spins, pause = _SPINS, _FIRST_POLL_SECONDS
            while state == "PROC" and time.monotonic() < deadline and not self._interrupted:
                if spins:  # a short sleep takes 70 us, and most reads end in fewer
                    spins -= 1
                else:
                    time.sleep(pause)
                    pause = min(2 * pause, _LAST_POLL_SECONDS)
                state = self._agent.check_xfer_state(handle)
        except Exception as error:
            raise PeerUnavailable(f"the publishing process is gone ({type(error).__name__})") from error
        if state == "PROC":
            raise Unfinished(self, handle)
        self._agent.release_xfer_handle(handle)
        self._proven.add(peer)

    def _prepare(self, peer: str, local: Any, remote: Any) -> Any:
        try:
            return self._agent.initialize_xfer("READ", local, remote, peer)
        except Exception as error:
            if type(error).__name__ in _NOT_ITS_OWN and self._agent.check_remote_metadata(peer):
                raise InvalidDescriptor("the block does not lie in the publisher's registered memory") from error
            raise PeerUnavailable(f"the publishing process is gone ({type(error).__name__})") from error

    def finished(self, handle: Any) -> bool:
        """Whether an unfinished read has ended meanwhile, well or not; its local memory is safe from then on. In a
        closed agent none ever does: the handle keeps it alive."""
        if self._agent is None:
            return False
        try:
            if self._agent.check_xfer_state(handle) == "PROC":
                return False
            self._agent.release_xfer_handle(handle)
        except Exception:  # noqa: BLE001 - an error is an end too
            log.debug("a read that had timed out ended with an error", exc_info=True)
        return True

    def notify(self, peer: str, message: bytes) -> None:
        """Send a short message to a connected peer."""
        try:
            self._agent.send_notif(peer, message)
        except Exception as error:
            raise PeerUnavailable("the publishing process is gone") from error

    def messages(self) -> list[bytes]:
        """Messages received since the last call."""
        return [message for batch in self._agent.get_new_notifs().values() for message in batch]

    @property
    def num_peers(self) -> int:
        """Peers that are connected."""
        return len(self._peers)

    def interrupt(self) -> None:
        """End all waits for reads, as if their time were over."""
        self._interrupted = True

    def close(self) -> None:
        """Drop the agent: its thread, sockets and registrations. Harmless when repeated."""
        self._agent = None
        self._peers.clear()

    def _list(self, regions: list[Region]) -> Any:
        entries = [(region.address, region.nbytes, region.device_id) for region in regions]
        listed = self._agent.get_xfer_descs(entries, regions[0].mem_type)
        if listed is None:
            raise InvalidDescriptor("NIXL does not take these addresses")
        return listed


@contextmanager
def _calm_progress_thread(module: Any) -> Iterator[None]:
    """Let the progress thread of the agent made meanwhile sleep until there is work.

    NIXL's Python agent sets a delay of 0, with which each agent spins a whole core for as long as it lives: two idle
    agents took 1.99 cores of a two-core machine, with a delay 0.004, and the first read came after 18 ms instead of
    223. The delay is only the longest sleep: UCX wakes the thread by file descriptor.
    """
    bindings = module.nixlBind
    original: Any = bindings.nixlAgentConfig

    class Calm(original):  # type: ignore[misc]
        @property
        def pthrDelay(self) -> int:  # noqa: N802 - NIXL's name
            return int(original.pthrDelay.__get__(self))

        @pthrDelay.setter
        def pthrDelay(self, _: int) -> None:  # noqa: N802
            original.pthrDelay.__set__(self, PROGRESS_SLEEP_MICROSECONDS)

    with _configuring:
        bindings.nixlAgentConfig = Calm
        try:
            yield
        finally:
            bindings.nixlAgentConfig = original


class Poisoned(PeerUnavailable):
    """NIXL erased a peer and refuses to load it again, for good, in this agent."""


class Unfinished(TransferTimeout):
    """``TransferTimeout`` with the read's handle, and the agent that it is of."""

    def __init__(self, agent: Agent, handle: Any) -> None:
        super().__init__("the read did not end in its time")
        self.agent = agent
        self.handle = handle


def _decompress(metadata: bytes) -> bytes:
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(metadata, MAX_METADATA_BYTES)
    except zlib.error as error:
        raise InvalidDescriptor("the descriptor's agent metadata is damaged") from error
    if not unpacker.eof:
        raise InvalidDescriptor("the descriptor's agent metadata is too large")
    return raw
