"""What whoever encodes AV1 here does first; tests do too."""

from __future__ import annotations

import ctypes

_CAPABILITIES_V3, _SYS_NICE = 0x20080522, 23  # linux/capability.h


def never_real_time() -> None:
    """Give up the right to real-time priority, for this thread and those that it starts.

    Whoever encodes with SVT-AV1 as root calls this first: that library gives the calling thread SCHED_FIFO 99 and
    leaves it so. All threads and processes made later have it too, and two of them that spin stop a machine of two cores:
    NIXL's, after a test that had made an AV1 clip, stopped this project's CI for hours.
    """
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        for place in (0, 1):  # effective; and permitted, from which a change of user would bring it back
            sets[place] &= ~(1 << _SYS_NICE)
        libc.capset(header, sets)
