"""Tries things before and after it gives them up, and prints what happened as JSON."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpuflow.isolation.sandbox import forbid_system_calls, limit_resources

MIB = 1 << 20
X86 = platform.machine() == "x86_64"
LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {  # x86_64, aarch64; None: the machine has no such call
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None), "stat": (262, 79),
    "readlink": (267, 78), "unlink": (263, 35), "mkdir": (258, 34), "chdir": (80, 49), "listdir": (217, 61),
    "memfd_create": (319, 279), "sendmsg": (46, 211), "recvmsg": (47, 212), "pipe": (293, 59), "connect": (42, 203),
    "bind": (49, 200), "socketpair": (53, 199), "execve": (59, 221), "execveat": (322, 281), "fork": (57, None),
    "vfork": (58, None), "clone without thread": (56, 220), "clone3": (435, 435), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kill parent": (62, 129),
    "tgkill parent": (234, 131), "pidfd_open": (434, 434), "setpriority": (141, 140), "fcntl owner": (72, 25),
    "prlimit of the parent": (302, 261), "raise own limit": (302, 261), "mount": (165, 40), "unshare": (272, 97),
    "setns": (308, 268), "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241),
    "keyctl": (250, 219), "add_key": (248, 217), "userfaultfd": (323, 282), "setuid": (105, 146), "chroot": (161, 51),
    "init_module": (175, 105), "seccomp again": (317, 277), "ioctl": (16, 29), "executable memory": (9, 222),
    "make memory executable": (10, 226), "shared memory": (9, 222), "shared and validated": (9, 222),
    "punch a hole": (28, 233), "poison a page": (28, 233), "dumpable": (157, 167),
}  # fmt: skip
PAGE = mmap.mmap(-1, mmap.PAGESIZE)
ADDRESS = ctypes.addressof(ctypes.c_char.from_buffer(PAGE))
PATH = ctypes.create_string_buffer(b"/etc/hostname")
BLOCK = ctypes.create_string_buffer(256)
TALK = socket.socketpair()
F_SETOWN, SIGNAL_0, AT_FDCWD = 8, 0, -100


def calls() -> dict[str, tuple[Any, ...]]:
    """The arguments of each call: harmless where it is allowed, as before the filter."""
    path, block, parent = PATH, BLOCK, os.getppid()
    return {
        "openat": (AT_FDCWD, path, 0), "openat2": (AT_FDCWD, path, block, 24), "open": (path, 0), "creat": (path, 0),
        "stat": (AT_FDCWD, path, block, 0), "readlink": (AT_FDCWD, path, block, 256), "unlink": (AT_FDCWD, path, 0),
        "mkdir": (AT_FDCWD, path, 0), "chdir": (path,), "listdir": (0, block, 256), "memfd_create": (path, 0),
        "sendmsg": (TALK[0].fileno(), block, 0), "recvmsg": (TALK[0].fileno(), block, 64), "pipe": (block, 0),
        "connect": (99, block, 16), "bind": (99, block, 16), "socketpair": (1, 1, 0, block),
        "execve": (path, 0, 0), "execveat": (AT_FDCWD, path, 0, 0, 0), "fork": (), "vfork": (),
        "clone without thread": (17, 0, 0, 0, 0), "clone3": (0, 0), "ptrace": (0, 0, 0, 0),
        "process_vm_readv": (parent, 0, 0, 0, 0, 0), "process_vm_writev": (parent, 0, 0, 0, 0, 0),
        "kill parent": (parent, SIGNAL_0), "tgkill parent": (parent, parent, SIGNAL_0), "pidfd_open": (parent, 0),
        "setpriority": (0, parent, 0), "fcntl owner": (TALK[0].fileno(), F_SETOWN, parent),
        "prlimit of the parent": (parent, resource.RLIMIT_CORE, 0, block),
        "raise own limit": (0, resource.RLIMIT_CPU, block, 0), "mount": (0, 0, 0, 0, 0), "unshare": (0,),
        "setns": (99, 0), "io_uring_setup": (1, block), "bpf": (0, block, 8), "perf_event_open": (block, 0, -1, -1, 0),
        "keyctl": (0, 0), "add_key": (path, path, 0, 0, 0), "userfaultfd": (0,), "setuid": (os.getuid(),),
        "chroot": (path,), "init_module": (0, 0, path), "seccomp again": (2, 0, block), "ioctl": (0, 0x5401, block),
        "shared memory": (0, 4096, 3, 0x21, -1, 0), "shared and validated": (0, 4096, 3, 0x23, -1, 0),
        "punch a hole": (ADDRESS, 4096, 9), "poison a page": (ADDRESS, 4096, 100),
        "executable memory": (0, 4096, 7, 0x22, -1, 0), "make memory executable": (ADDRESS, 4096, 7),
        "dumpable": (4, 0, 0, 0, 0),
    }  # fmt: skip


def call(name: str) -> dict[str, int]:
    """The outcome of one system call."""
    number = NUMBERS[name][0 if X86 else 1]
    if number is None:
        return {"errno": 1}
    return outcome(number, *calls()[name])


def outcome(number: int, *arguments: Any) -> dict[str, int]:
    """``{"errno": n}`` or ``{"returned": n}``."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    ctypes.set_errno(0)
    returned = LIBC.syscall(ctypes.c_long(number), *wide)
    return {"errno": ctypes.get_errno()} if returned == -1 else {"returned": returned}


def python(attempt: Callable[[], object]) -> dict[str, Any]:
    """The outcome of a piece of Python."""
    try:
        attempt()
    except OSError as error:
        return {"errno": error.errno}
    except MemoryError:
        return {"error": "MemoryError"}
    return {"ok": True}


def spawn() -> None:
    """Start another program as libc does it."""
    os.posix_spawn("/bin/true", ["true"], {})


def thread() -> None:
    """Start a thread and wait for it."""
    done = threading.Event()
    threading.Thread(target=done.set).start()
    assert done.wait(10)


def talk() -> None:
    """Send over a socket from before."""
    TALK[0].send(b"x")
    assert TALK[1].recv(1) == b"x"


def main() -> None:
    """Try, give up, try again, print."""
    older = ThreadPoolExecutor(1)
    older.submit(int).result()
    harmless = [name for name in NUMBERS if name not in ("fork", "vfork", "clone without thread", "setuid", "mkdir", "unlink", "creat", "dumpable", "raise own limit", "seccomp again", "fcntl owner", "recvmsg", "poison a page", "punch a hole")]  # fmt: skip
    before = {name: call(name) for name in harmless}
    status = open("/proc/self/status")  # noqa: SIM115 - read from inside
    limit_resources(256 * MIB)
    forbid_system_calls()
    after: dict[str, Any] = {name: call(name) for name in NUMBERS}
    after |= {
        "socket unix": python(lambda: socket.socket(socket.AF_UNIX)),
        "socket inet": python(socket.socket),
        "socket udp": python(lambda: socket.socket(type=socket.SOCK_DGRAM)),
        "posix_spawn": python(spawn),
        "x32 getpid": outcome(0x40000000 | 39),
        "compute": python(lambda: np.arange(1000).sum()),
        "thread": python(thread),
        "threads from before": python(lambda: older.submit(int).result(10)),
        "open in an older thread": older.submit(python, lambda: open("/etc/hostname")).result(10),  # noqa: SIM115
        "clock": python(time.monotonic),
        "talk": python(talk),
        "too much memory": python(lambda: bytearray(512 * MIB)),
        "memory": python(lambda: bytearray(64 * MIB)),
    }
    limits = {
        name: resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        for name in ("core", "fsize", "nofile", "cpu")
    }
    status.seek(0)
    told = dict(line.split(":", 1) for line in status)
    limits |= {name: int(told[name]) for name in ("NoNewPrivs", "Seccomp")}
    limits["capabilities"] = int(told["CapEff"], 16) | int(told["CapPrm"], 16) | int(told["CapInh"], 16)
    sys.stdout.write(json.dumps({"before": before, "after": after, "limits": limits}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
