"""Starts and asks the other process of the transfer tests."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpuflow.media import Media
from gpuflow.transfer import Descriptor

SCRIPT = Path(__file__).with_name("peer_process.py")
WAYS = ("shm", "nixl", "tcp")


class PeerProcess:
    """A process of its own that publishes and reads; see ``peer_process.py``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.send(do, **arguments)
        return self.answer()

    def send(self, do: str, **arguments: Any) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for an answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        while line and not line.startswith("{"):  # UCX writes its errors to standard output
            line = self.process.stdout.readline()
        assert line, "the other process has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def publish(self, nbytes: int, value: int, **arguments: Any) -> Descriptor:
        """Have it publish ``nbytes`` of one value."""
        return decoded(self.ask("publish", nbytes=nbytes, value=value, **arguments)["descriptor"])

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGSTOP, and wait until every thread has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        while any(_state(task) not in "Tt" for task in tasks.iterdir()):
            pass

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def peer_process(
    way: str = "shm", *, slab_bytes: str = "64MiB", prefix: Sequence[str] = (), read_over: str | None = None
) -> Iterator[PeerProcess]:
    """Start one. ``way``: ``"shm"``, ``"nixl"``, or ``"tcp"`` for NIXL without its one-host copy."""
    over = transport(way)
    command = [*prefix, sys.executable, str(SCRIPT), slab_bytes, over, read_over or over]
    environment = {**os.environ, **({"UCX_TLS": "tcp"} if way == "tcp" else {})}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        peer = PeerProcess(process)
        try:
            assert peer.answer() == {"ready": True}
            yield peer
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                assert process.stdin is not None
                process.stdin.close()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def transport(way: str) -> Any:
    """The transport's name."""
    return "shm" if way == "shm" else "nixl"


def decoded(text: str) -> Descriptor:
    """A descriptor as another process gets it."""
    return Descriptor.from_bytes(base64.b64decode(text))


def encoded(descriptor: Descriptor) -> str:
    """A descriptor as it is sent."""
    return base64.b64encode(descriptor.to_bytes()).decode()


def expect(media: Media, nbytes: int, value: int) -> None:
    """So many bytes, each of that value."""
    array = media.numpy()
    assert array.nbytes == nbytes
    assert int(array.min()) == int(array.max()) == value
