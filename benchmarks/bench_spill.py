"""Blocks to a lower tier and back: gpuflow's tiers against plain ``pwritev``/``preadv`` and a copy in memory.

Both files are preallocated, on the same filesystem, through the page cache. gpuflow's times hold a checksum each way.

    python -m benchmarks.bench_spill [--rounds N] [--quick] [--directory FOLDER]
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks.bench_transfer import MIB, label
from gpuflow.memory import FileTier, HostTier, Lease, Slab
from gpuflow.memory.tiers import Ticket, Tier
from gpuflow.transfer.nixl_tier import NixlFileTier


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    sizes = [MIB] if wanted.quick else [MIB, 16 * MIB, 64 * MIB]
    with tempfile.TemporaryDirectory() as folder, Slab("512MiB") as slab:
        rows = [row for size in sizes for row in _rows(size, slab, Path(folder))]
        measured = measure(rows, rounds=wanted.rounds)
    print(save("spill", measured, out=wanted.out, note="preallocated files, page cache; checksums included"))


def _rows(size: int, slab: Slab, folder: Path) -> list[Row]:
    block, back = slab.allocate(size), slab.allocate(size)
    block.memory()[:] = np.random.default_rng(0).bytes(size)
    block.seal()
    plain = os.open(folder / f"plain-{size}", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(plain, 0, size)
    copy = np.empty(size, np.uint8)
    tiers: dict[str, Tier] = {
        "gpuflow FileTier": FileTier(folder, 2 * size),
        "gpuflow NixlFileTier, POSIX": NixlFileTier(slab, folder, 2 * size, backend="POSIX"),
        "gpuflow HostTier": HostTier(2 * size),
    }
    held = {name: tier.put(block) for name, tier in tiers.items()}
    os.pwritev(plain, [block.memory()], 0)

    def check(name: str, result: Any) -> None:
        assert result == size, name
        if "back" in name:
            assert back.memory() == block.memory(), name

    down = [Contender(name, lambda tier=tier: _put(tier, block)) for name, tier in tiers.items()]  # type: ignore[misc]
    down += [
        Contender("pwritev", lambda: os.pwritev(plain, [block.memory()], 0)),
        Contender("copy in memory", lambda: _copy(copy, block)),
    ]
    up = [
        Contender(name, lambda tier=tier, ticket=held[name]: _get(tier, ticket, back))  # type: ignore[misc]
        for name, tier in tiers.items()
    ]
    up.append(Contender("preadv", lambda: os.preadv(plain, [back.memory()], 0)))
    return [Row(f"spill {label(size)}", down, check), Row(f"restore {label(size)}", up, check)]


def _put(tier: Tier, block: Lease) -> int:
    ticket = tier.put(block)
    tier.drop(ticket)
    return ticket.nbytes


def _get(tier: Tier, ticket: Ticket, back: Lease) -> int:
    tier.get(ticket, back)
    return ticket.nbytes


def _copy(target: Any, block: Lease) -> int:
    np.copyto(target, np.frombuffer(block.memory(), np.uint8))
    return int(target.nbytes)


if __name__ == "__main__":
    main()
