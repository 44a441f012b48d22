"""A file tier whose bytes NIXL moves: from GPU memory to NVMe without the host (GPUDirect Storage), or by POSIX.

On plain host memory POSIX is as fast as ``pwritev`` (measured), so ``FileTier`` is the simpler choice there; the two
share everything but the move itself, which is how this one is tested where there is no GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Literal

from gpuflow.errors import BackendUnavailable, SpillError
from gpuflow.memory.backing import device_id
from gpuflow.memory.checksum import block_checksum
from gpuflow.memory.file_tier import PAGE_BYTES, FileTier
from gpuflow.memory.lease import Lease
from gpuflow.memory.slab import Slab
from gpuflow.transfer.nixl import api

MOVE_SECONDS = 60.0
_POLL_SECONDS = 100e-6


class NixlFileTier(FileTier):
    """``FileTier`` for blocks of one ``slab``, which is registered once, like the file.

    Args:
        backend: ``"GDS_MT"`` (GPUDirect Storage; in its compatibility mode it passes through the host) or ``"POSIX"``.

    Raises:
        BackendUnavailable: NIXL or that backend is not to be had here.
        SpillError: as ``FileTier``.
    """

    name = "nixl-file"

    def __init__(
        self,
        slab: Slab,
        directory: str | os.PathLike[str],
        nbytes: int | str,
        *,
        backend: Literal["GDS_MT", "POSIX"] = "GDS_MT",
    ) -> None:
        self._slab = slab
        self._path: str | None = None
        self._gds = backend == "GDS_MT"
        self._unended: list[tuple[Any, Lease]] = []  # moves that took too long, and their blocks
        super().__init__(directory, nbytes, direct=self._gds)
        try:
            agent = _agent(backend)
            slab.hold()
            self._agent = agent
            self._register([(slab.address, slab.nbytes, device_id(slab.device), "")], slab.backing.mem_type)
            self._register([(0, self.capacity_bytes, self.file, "")], "FILE")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the agent, and close and remove the file; harmless when repeated."""
        if self.file >= 0 and hasattr(self, "_agent"):
            if self._all_ended():
                self._slab.unhold()  # else the slab stays mapped: NIXL may still write to it
            del self._agent
        super().close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._path = None

    def takes(self, lease: Lease) -> bool:
        """Whether it is a block of the slab that is registered, and the file is large enough."""
        return lease.slab is self._slab and super().takes(lease)

    def _open(self, directory: Path, flags: int) -> int:
        if not self._gds:
            return super()._open(directory, flags)
        try:  # GPUDirect Storage wants a file that has a name while it is registered
            file, self._path = tempfile.mkstemp(prefix=".gpuflow-", suffix=".spill", dir=directory)
            os.close(file)
            return os.open(self._path, os.O_RDWR | os.O_CLOEXEC | flags)
        except OSError as error:
            raise SpillError(f"no file can be made in the directory of the file tier: {error.strerror}") from error

    def _write(self, lease: Lease, start: int) -> int:
        self._move("WRITE", lease, start, lease.nbytes)
        return block_checksum(lease, lease.nbytes)

    def _read(self, into: Lease, start: int, nbytes: int) -> int:
        self._move("READ", into, start, nbytes)
        return block_checksum(into, nbytes)

    def _move(self, direction: str, lease: Lease, start: int, nbytes: int) -> None:
        if lease.slab is not self._slab:
            raise SpillError("this tier takes blocks of the slab that it was made for")
        if not self._all_ended():
            raise SpillError("an earlier move by NIXL has not ended: this tier moves nothing until it has")
        if self._gds:  # in whole pages: the block's granule and the file's extent hold them
            nbytes = -(-nbytes // PAGE_BYTES) * PAGE_BYTES
        try:
            here = self._agent.get_xfer_descs(
                [(lease.address, nbytes, device_id(lease.device))], self._slab.backing.mem_type
            )
            there = self._agent.get_xfer_descs([(start, nbytes, self.file)], "FILE")
            handle = self._agent.initialize_xfer(direction, here, there, self._agent.name)
            state, deadline = self._agent.transfer(handle), time.monotonic() + MOVE_SECONDS
            while state == "PROC" and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                state = self._agent.check_xfer_state(handle)
        except Exception as error:
            raise SpillError(f"NIXL could not move a block to or from the file ({type(error).__name__})") from error
        if state == "PROC":  # it may still read the block or write to it: nobody else gets that memory, or the file's
            with self._lock:
                self._unended.append((handle, lease.retain()))
            raise SpillError(f"NIXL did not move a block in {MOVE_SECONDS:g} s")
        self._agent.release_xfer_handle(handle)
        if state != "DONE":
            raise SpillError(f"NIXL could not move a block to or from the file ({state})")

    def _all_ended(self) -> bool:
        """Give back the blocks of moves that took too long and have ended; false if one has not."""
        with self._lock:
            for unended in list(self._unended):
                handle, lease = unended
                with contextlib.suppress(Exception):  # an error is an end too
                    if self._agent.check_xfer_state(handle) == "PROC":
                        continue
                    self._agent.release_xfer_handle(handle)
                self._unended.remove(unended)
                lease.release()
            return not self._unended

    def _register(self, entries: list[tuple[int, int, int, str]], mem_type: str) -> None:
        try:
            if self._agent.register_memory(entries, mem_type) is None:
                raise BackendUnavailable(f"NIXL does not register {mem_type} for files")
        except Exception as error:
            if isinstance(error, BackendUnavailable):
                raise
            raise BackendUnavailable(f"NIXL does not register {mem_type} for files: {error}") from error


def _agent(backend: str) -> Any:
    module = api()
    if backend == "GDS_MT":
        _load_cufile()
    strict = module.nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT
    settings = module.nixl_agent_config(False, False, 0, backends=[], sync_mode=strict)
    try:
        agent = module.nixl_agent(f"gpuflow.files/{os.getpid()}/{uuid.uuid4().hex[:16]}", settings)
        agent.create_backend(backend, {})
    except Exception as error:
        raise BackendUnavailable(
            f"NIXL's {backend} backend does not start ({type(error).__name__}): {error}"
        ) from error
    return agent


def _load_cufile() -> None:
    """The plugin looks for libcufile on the loader's path, where the pip wheel does not put it."""
    os.environ.setdefault("CUFILE_LOGFILE_PATH", os.devnull)  # else it writes a log to the working directory
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        for library in Path(place).glob("cu*/lib/libcufile.so.0"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
