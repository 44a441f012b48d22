"""One worker process, from the parent's side: started, asked, killed, reaped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from gpuflow.errors import BackendUnavailable
from gpuflow.isolation import wire
from gpuflow.observe import log

_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH")  # the rest may hold secrets, and nothing here needs it
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# The path is the parent's; `-I` and `-S` keep the user's site, and code in .pth files, out
_BOOT = (
    "import sys; at = sys.argv.index('--'); sys.path[:] = sys.argv[at + 1:]; "
    "from gpuflow.isolation import worker; worker.silence(); worker.main(int(sys.argv[1]), int(sys.argv[2]))"
)
_LAST_BREATH_SECONDS = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class WorkerProcess:
    """A decode worker. Not thread-safe: one thread at a time holds it.

    Raises:
        BackendUnavailable: no process can be started.
    """

    def __init__(self, slab_file: int, hello: wire.Hello) -> None:
        if not sys.executable:
            raise BackendUnavailable("decode workers need a Python interpreter, and sys.executable names none")
        ours: socket.socket | None = None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _BOOT, str(os.getpid()), str(theirs.fileno()), "--", *_path()],
                    env=environment(),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                )
            socket.send_fds(ours, [b"\0"], [slab_file])
            ours.sendall(wire.framed(hello))
            self.file = os.pidfd_open(self._process.pid)  # readable once it has ended
        except OSError as error:
            if ours is not None:
                ours.close()
            if hasattr(self, "_process"):
                self._process.kill()
                self._process.wait()
            raise BackendUnavailable(f"no decode worker can be started: {error}") from error
        self.started = time.monotonic()
        self.channel = wire.Channel(ours)
        self.jobs = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def memory_bytes(self) -> int:
        """Private memory that it has touched; 0 when it is gone."""
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{self.pid}/statm") as file:
            _, resident, shared, *_ = (int(number) for number in file.read().split())
            return (resident - shared) * _PAGE_BYTES
        return 0

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has used; 0 when it is gone."""
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS
        return 0.0

    def kill(self) -> str:
        """End it at once and wait until it is gone: after this it writes nothing. Says how it ended."""
        self.channel.close()
        return self._reap()

    def bury(self) -> str:
        """``kill`` for one that closed its socket, and so is about to end by itself."""
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_BREATH_SECONDS)
        return self._reap()

    def _reap(self) -> str:
        self._process.kill()  # nothing where it has ended
        code = self._process.wait()
        self._close_file()
        if code >= 0:
            return f"exit status {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    def _close_file(self) -> None:
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)

    def abandon(self) -> None:
        """In a forked child: let go of the socket, so that the parent's end stays the only one."""
        self.channel.close()
        self._close_file()
        self._process.returncode = 0  # not our child: nothing is waited for


def environment() -> dict[str, str]:
    """What a worker's environment holds."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    log.debug("decode workers keep %s of the environment", sorted(kept))
    return kept | _ONE_THREAD


def _path() -> list[str]:
    """Where modules lie; an empty entry would be whatever directory this process is in."""
    return [os.path.abspath(entry) for entry in sys.path if entry and os.path.exists(entry)]
