"""The ways from a publisher to a reader, and which of them can be taken here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from gpuflow.errors import BackendUnavailable

Transport = Literal["inproc", "shm", "nixl"]
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)


def available(wanted: Transport | Iterable[Transport] | None) -> frozenset[Transport]:
    """``wanted``, or with ``None`` all ways that can be taken here.

    Raises:
        ValueError: no such way.
        BackendUnavailable: NIXL was asked for and is not installed.
    """
    from gpuflow.transfer.nixl import capabilities

    nixl = capabilities()["nixl"]
    if wanted is None:
        return frozenset(way for way in TRANSPORTS if way != "nixl" or nixl)
    names = {wanted} if isinstance(wanted, str) else set(wanted)
    chosen = frozenset(way for way in TRANSPORTS if way in names)
    if not names or len(chosen) != len(names):
        raise ValueError(f"transports are some of {', '.join(TRANSPORTS)}; got {sorted(names)}")
    if "nixl" in chosen and not nixl:
        raise BackendUnavailable(nixl.reason)
    return chosen
