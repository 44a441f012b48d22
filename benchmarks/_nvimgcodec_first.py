"""What the first use of nvImageCodec costs in a process that has none yet: time, and memory of the GPU for its context."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from benchmarks import _gpu_place as on
from benchmarks import _nvimgcodec as nv
from benchmarks._nvimgcodec_steps import by_libjpeg, decoded, photograph


def first_call(quick: bool) -> dict[str, Any]:
    """11: milliseconds and MiB of the GPU for each part: the library, a context, a decoder, its first and second picture."""
    data, found = photograph(quick), {}
    at: list[Any] = [time.perf_counter(), gpu_memory_mib()]

    def note(name: str) -> None:
        now, memory = time.perf_counter(), gpu_memory_mib()
        grown = None if memory is None or at[1] is None else memory - at[1]
        found[name] = {"ms": round(1e3 * (now - at[0]), 2), "gpu_mib": grown}
        at[:] = time.perf_counter(), memory

    from nvidia import nvimgcodec

    note(f"import nvimgcodec {nvimgcodec.__version__}")
    on.PLACE.settle()
    note("CUDA context, by CuPy")
    buffer = on.PLACE.empty(by_libjpeg(data).shape)
    note("a buffer")
    decoder = nv.decoder(on.PLACE.device)
    note("decoder")
    for name in ("first picture", "second picture"):
        decoded(decoder, data, into=buffer)
        on.PLACE.settle()
        note(name)
    return found


def gpu_memory_mib() -> int | None:
    """What the GPU has given out, to all processes, as nvidia-smi says; ``None`` without it."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return int(said.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
