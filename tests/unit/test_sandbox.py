"""What a sandboxed process can still do: each thing is tried in one, by the real system call."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuflow.isolation.sandbox import program

SCRIPT = Path(__file__).with_name("sandboxed_process.py")
OPEN = {"open", "openat", "openat2", "creat", "stat", "readlink", "unlink", "mkdir", "chdir", "listdir", "memfd_create"}
REACH = {"socket unix", "socket inet", "socket udp", "socketpair", "connect", "bind", "sendmsg", "recvmsg", "pipe"}
START = {"execve", "execveat", "fork", "vfork", "clone without thread", "posix_spawn"}
TOUCH = {
    "ptrace", "process_vm_readv", "process_vm_writev", "kill parent", "tgkill parent", "pidfd_open", "setpriority",
    "fcntl owner", "prlimit of the parent",
}  # fmt: skip
KERNEL = {
    "mount", "unshare", "setns", "io_uring_setup", "bpf", "perf_event_open", "keyctl", "add_key", "userfaultfd",
    "setuid", "chroot", "init_module", "raise own limit", "seccomp again", "ioctl", "executable memory",
    "make memory executable", "dumpable", "shared memory", "shared and validated", "punch a hole", "poison a page",
}  # fmt: skip
FORBIDDEN = sorted(OPEN | REACH | START | TOUCH | KERNEL)


@pytest.fixture(scope="module")
def tried() -> dict[str, Any]:
    """What each attempt gave inside the sandbox: an error number, or what it returned."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("attempt", FORBIDDEN)
def test_a_sandboxed_process_is_refused(attempt: str, tried: dict[str, Any]) -> None:
    assert tried["after"][attempt] == {"errno": errno.EPERM}


@pytest.mark.parametrize(
    "attempt", ["openat", "stat", "pipe", "memfd_create", "socketpair", "kill parent", "pidfd_open"]
)
def test_the_same_call_works_before(attempt: str, tried: dict[str, Any]) -> None:
    assert "returned" in tried["before"][attempt]


def test_clone3_is_unknown_so_that_glibc_takes_clone(tried: dict[str, Any]) -> None:
    assert tried["after"]["clone3"] == {"errno": errno.ENOSYS}


def test_calls_of_the_x32_table_are_unknown(tried: dict[str, Any]) -> None:
    assert tried["after"]["x32 getpid"] == {"errno": errno.ENOSYS}


@pytest.mark.parametrize("attempt", ["compute", "thread", "memory", "clock", "talk", "threads from before"])
def test_a_sandboxed_process_can_still(attempt: str, tried: dict[str, Any]) -> None:
    assert tried["after"][attempt] == {"ok": True}


def test_a_thread_that_ran_before_is_filtered_too(tried: dict[str, Any]) -> None:
    assert tried["after"]["open in an older thread"] == {"errno": errno.EPERM}


def test_limits_of_the_process_are_set(tried: dict[str, Any]) -> None:
    limits = tried["limits"]
    assert limits["core"] == limits["fsize"] == 0
    assert 0 < limits["nofile"] <= 16
    assert 0 < limits["cpu"] <= 3_600
    assert limits["capabilities"] == 0
    assert limits["NoNewPrivs"] == 1
    assert limits["Seccomp"] == 2


def test_memory_beyond_the_limit_is_an_error_of_that_allocation(tried: dict[str, Any]) -> None:
    assert tried["after"]["too much memory"] == {"error": "MemoryError"}
    assert tried["after"]["memory"] == {"ok": True}


@pytest.mark.parametrize(("column", "audit"), [(0, 0xC000003E), (1, 0xC00000B7)])
def test_the_filter_of_each_machine_is_a_program_that_linux_takes(column: int, audit: int) -> None:
    code = program(column, audit, 1)
    assert len(code) % 8 == 0
    assert len(code) // 8 <= 4_096
    jumps = [(at, code[8 * at : 8 * at + 8]) for at in range(len(code) // 8) if code[8 * at] & 0x07 == 0x05]
    assert all(at + 1 + max(part[2], part[3]) < len(code) // 8 for at, part in jumps)
    assert code[-8] == 0x06  # it ends with a return
    load, test, kill = (code[8 * at : 8 * at + 8] for at in range(3))
    assert (load[0], int.from_bytes(load[4:], "little")) == (0x20, 4), "the architecture comes first"
    assert (test[0], test[2], test[3], int.from_bytes(test[4:], "little")) == (0x15, 1, 0, audit)
    assert (kill[0], int.from_bytes(kill[4:], "little")) == (0x06, 0x80000000), "and any other one ends the process"
