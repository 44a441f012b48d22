"""What a decode worker may still do once it has loaded everything: compute, write to memory that it has, and talk over
the one socket that it was given.

A list of what is allowed, not of what is forbidden: a system call that Linux gains tomorrow is refused. A call that is
not on the list fails with EPERM, so that a library reports an error instead of taking the worker with it.
Source: seccomp(2), and the call numbers of ``asm/unistd_64.h`` and ``asm-generic/unistd.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from gpuflow.errors import BackendUnavailable

MAX_FILES = 16
MAX_CPU_SECONDS = 3_600
_ALLOWED = {  # name: (x86_64, aarch64); -1 where the machine has no such call
    "read": (0, 63), "write": (1, 64), "recvfrom": (45, 207), "sendto": (44, 206), "futex": (202, 98),
    "brk": (12, 214), "munmap": (11, 215), "mremap": (25, 216),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "times": (100, 153), "poll": (7, -1), "ppoll": (271, 73), "select": (23, -1),
    "pselect6": (270, 72), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "set_robust_list": (273, 99), "rseq": (334, 293), "membarrier": (324, 283),
    "getrandom": (318, 278), "getrusage": (98, 165), "getrlimit": (97, 163), "sysinfo": (99, 179), "uname": (63, 160),
    "getpid": (39, 172), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "exit": (60, 93),
    "exit_group": (231, 94),
}  # fmt: skip
_CHECKED = {
    "clone": (56, 220), "clone3": (435, 435), "tgkill": (234, 131), "prctl": (157, 167), "prlimit64": (302, 261),
    "mmap": (9, 222), "madvise": (28, 233), "mprotect": (10, 226), "fcntl": (72, 25), "seccomp": (317, 277),
}  # fmt: skip
_CLONE_THREAD = 0x10000
_PROT_EXEC = 4
_MAP_SHARED = 1  # also a bit of MAP_SHARED_VALIDATE; such memory counts for no limit
_ADVICE = (0, 4, 8, 14, 15)  # NORMAL, DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE: what allocators give
_FCNTL = (1, 2, 3, 4)  # F_GETFD, F_SETFD, F_GETFL, F_SETFL: none names another process
_PRCTL = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of threads and of memory
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL = 9
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000


@dataclass(frozen=True, slots=True)
class _Machine:
    column: int
    audit: int


_MACHINES = {"x86_64": _Machine(0, 0xC000003E), "aarch64": _Machine(1, 0xC00000B7)}


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    Raises:
        ProcessLookupError: it has ended already.
    """
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError("the parent has ended")


def limit_resources(memory_bytes: int) -> None:
    """No core dump, no byte to any file, few descriptors, and ``memory_bytes`` beyond what is mapped now. Shared memory
    does not count."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_CPU: MAX_CPU_SECONDS,
        resource.RLIMIT_DATA: _data_bytes() + memory_bytes,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def forbid_system_calls() -> None:
    """Filter every thread of this process, now and for good.

    Raises:
        BackendUnavailable: the kernel has no seccomp filters, or the machine is none of x86_64 and aarch64.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise BackendUnavailable(f"isolation knows no system calls of {platform.machine()}: use isolation='none'")
    code = program(machine.column, machine.audit, os.getpid())
    holder = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(holder))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    _drop_capabilities(libc)
    call = ctypes.c_long(_CHECKED["seccomp"][machine.column])
    if libc.syscall(call, ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(_ALL_THREADS), header) != 0:
        raise BackendUnavailable(f"this kernel filters no system calls: {os.strerror(ctypes.get_errno())}")


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Root without any of root's rights (``capset``, version 3: three sets of 64 bits, all empty)."""
    if libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) != 0:
        raise BackendUnavailable(f"capabilities cannot be dropped: {os.strerror(ctypes.get_errno())}")


def program(column: int, audit: int, process: int) -> bytes:
    """The filter of one machine as BPF instructions, for the process ``process``."""
    number = {name: columns[column] for name, columns in _CHECKED.items()}
    parts = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, audit, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        _instruction(_JUMP_AT_LEAST, _X32, 0, 1),
        _instruction(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    allowed = [columns[column] for columns in _ALLOWED.values() if columns[column] >= 0]
    parts += [_when(call, [_instruction(_RETURN, _ALLOW)]) for call in allowed]
    parts += [
        _when(number["mmap"], _if_private_data()),
        _when(number["madvise"], _if_one_of(2, _ADVICE)),
        _when(number["mprotect"], _unless_bits(2, _PROT_EXEC)),
        _when(number["clone"], _if_bits(0, _CLONE_THREAD)),
        _when(number["clone3"], [_instruction(_RETURN, _ERRNO | errno.ENOSYS)]),  # glibc then takes clone
        _when(number["tgkill"], _if_one_of(0, (process,))),  # abort() tells itself
        _when(number["prctl"], _if_one_of(0, _PRCTL)),
        _when(number["fcntl"], _if_one_of(1, _FCNTL)),
        _when(number["prlimit64"], _if_own_limits_are_read()),
        _instruction(_RETURN, _ERRNO | errno.EPERM),
    ]
    return b"".join(parts)


def _when(number: int, then: Sequence[bytes]) -> bytes:
    """Instructions for one call; each way through ``then`` ends with a return."""
    return _instruction(_JUMP_EQUAL, number, 0, len(then)) + b"".join(then)


def _if_bits(argument: int, bits: int) -> list[bytes]:
    return [_argument(argument), _instruction(_JUMP_BITS, bits, 0, 1), _verdict(True), _verdict(False)]


def _unless_bits(argument: int, bits: int) -> list[bytes]:
    return [_argument(argument), _instruction(_JUMP_BITS, bits, 0, 1), _verdict(False), _verdict(True)]


def _if_private_data() -> list[bytes]:
    """Of ``mmap``: nothing that can be executed, and nothing shared."""
    return [
        _argument(2), _instruction(_JUMP_BITS, _PROT_EXEC, 3, 0),
        _argument(3), _instruction(_JUMP_BITS, _MAP_SHARED, 1, 0),
        _verdict(True), _verdict(False),
    ]  # fmt: skip


def _if_one_of(argument: int, values: Sequence[int]) -> list[bytes]:
    tests = [_instruction(_JUMP_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [_argument(argument), *tests, _verdict(False), _verdict(True)]


def _if_own_limits_are_read() -> list[bytes]:
    """The process is 0, the caller; the new limit is a null pointer, both halves of it."""
    return [
        _argument(0), _instruction(_JUMP_EQUAL, 0, 0, 5),
        _argument(2), _instruction(_JUMP_EQUAL, 0, 0, 3),
        _instruction(_LOAD, _ARGUMENTS + 8 * 2 + 4), _instruction(_JUMP_EQUAL, 0, 0, 1),
        _verdict(True), _verdict(False),
    ]  # fmt: skip


def _argument(index: int) -> bytes:
    return _instruction(_LOAD, _ARGUMENTS + 8 * index)  # the low half: both machines are little-endian


def _verdict(allowed: bool) -> bytes:
    return _instruction(_RETURN, _ALLOW if allowed else _ERRNO | errno.EPERM)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*(ctypes.c_ulong(number) for number in (option, value, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def _data_bytes() -> int:
    """Private writable memory, as RLIMIT_DATA counts it."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
