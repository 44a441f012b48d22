"""Run one step of CI so that it always ends, leaves nothing behind, and says little unless it fails.

    python3 .ci/step.py TITLE SECONDS [--show LINES] -- COMMAND...

What the command prints goes to a file; shown are its last lines, more of them where it fails. After SECONDS it gets
SIGABRT, at which Python shows every thread's stack, then SIGKILL, and so do all its descendants, also those that made
a session of their own: as the subreaper this process inherits them. Without that, one of them that stays keeps CI's
output open and CI never ends.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_SHOWN_IF_FAILED = 60
_GRACE_SECONDS = 10
_SIGN_OF_LIFE_SECONDS = 120


def main() -> int:
    """Parse, run, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("title")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--show", type=int, default=1, metavar="LINES")
    parser.add_argument("command", nargs="+")
    wanted = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return _run(wanted.title, wanted.command, wanted.seconds, wanted.show)


def _run(title: str, command: list[str], seconds: float, shown: int) -> int:
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        status, note = _wait(child, seconds, log.fileno())
        note += _end_the_rest()
        log.seek(0)
        printed = log.read().decode(errors="replace")
    lines = printed.rstrip().splitlines()
    print(f"\n== {title}: {'ok' if status == 0 else f'exit {status}'}, {time.monotonic() - started:.0f} s{note}")
    print("\n".join(line[:200] for line in lines[-(_SHOWN_IF_FAILED if status else shown) :]), flush=True)
    return status


def _wait(child: subprocess.Popen[bytes], seconds: float, log: int) -> tuple[int, str]:
    started = time.monotonic()
    while (left := started + seconds - time.monotonic()) > 0:
        try:
            return child.wait(min(left, _SIGN_OF_LIFE_SECONDS)), ""
        except subprocess.TimeoutExpired:
            print(f"   {time.monotonic() - started:.0f} s: {_last_line(log)[-100:]}", flush=True)
    running = _describe(_descendants())
    for pid in reversed(_descendants()):
        _send(pid, signal.SIGABRT)
    _reap_for(_GRACE_SECONDS, child)
    return 124, f"; it did not end within {seconds:g} s. Running were:\n{running}"


def _last_line(log: int) -> str:
    written = os.fstat(log).st_size
    tail = os.pread(log, 500, max(0, written - 500)).decode(errors="replace").split()
    return " ".join(tail[-3:])


def _end_the_rest() -> str:
    """Kill what the step left running; what that was."""
    left = _descendants()
    if not left:
        return ""
    note = f"; left running, and killed:\n{_describe(left)}"
    deadline = time.monotonic() + _GRACE_SECONDS
    while (left := _descendants()) and time.monotonic() < deadline:
        for pid in left:
            _send(pid, signal.SIGKILL)
        _reap_for(0.2, None)
    return note


def _reap_for(seconds: float, child: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and _descendants():
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            return
    if child is not None:
        child.poll()


def _descendants() -> list[int]:
    """All processes below this one that still run, children before their own."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has just ended
                continue
            if state != "Z":
                parents.setdefault(int(parent), []).append(int(entry.name))
    found, at = [os.getpid()], 0
    while at < len(found):
        found += parents.get(found[at], [])
        at += 1
    return found[1:]


def _describe(pids: list[int]) -> str:
    return "\n".join(f"  {pid} in {_read(pid, 'wchan')}: {_read(pid, 'cmdline')[:160]}" for pid in pids)


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main())
