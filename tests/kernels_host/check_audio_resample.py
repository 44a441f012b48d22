"""What `audio/resample` must do, against float64 sums: ratios up and down with and without rows for the first outputs,
tiles that divide nothing, fewer blocks than tiles, encodings mixed on the way, clips shorter than the filter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.kernels import Launch
from gpuflow.ops.pcm import StoredPcm
from gpuflow.ops.pcm_kernel import SoundJob, sound_launches
from gpuflow.ops.resample_table import ResampleTable
from tests.kernels_host.building import HostTables
from tests.kernels_host.check_image_views import HostMemory
from tests.kernels_host.sounds import levels, mean, stored

Case = tuple[StoredPcm, ResampleTable, bool]
TOLERANCE = 4e-7  # of the sum of all magnitudes; measured 1.1e-7


def check(run: Callable[[Launch], None]) -> None:
    """Raise ``AssertionError`` unless ``run`` does what the kernel's header says."""
    wide = table_of(1, 31, 40, before=19)
    cases: list[Case] = [
        (stored("s16", 2, 300), table_of(160, 441, 24, before=11, starts=3), True),
        (stored("f32", 1, 90), table_of(3, 1, 8, before=3), True),
        (stored("s24", 3, 77, interleaved=False), table_of(4, 3, 20, before=9, starts=11), False),
        (stored("u8", 1, 5), table_of(1, 3, 32, before=15), True),
        (stored("f64", 2, 1_000), wide, True),
        (stored("alaw", 1, 1), table_of(2, 1, 4, before=0, starts=1), True),
        (stored("s32", 2, 64), table_of(1, 1, 12, before=40), True),
    ]
    expect(run, cases, most_outputs=13, blocks=2)
    expect(run, cases[::-1], most_outputs=40, blocks=1)
    expect(run, cases[:3])


def table_of(up: int, down: int, taps: int, *, before: int, starts: int = 0) -> ResampleTable:
    """Weights of which none is like another."""
    weights = np.random.default_rng((up, down, taps)).standard_normal((taps // 4, starts + up, 4))
    return ResampleTable(up, down, before, starts, weights.astype(np.float32))


def expect(run: Callable[[Launch], None], cases: list[Case], most_outputs: int = 256, blocks: int = 1 << 30) -> None:
    """Run all cases side by side, each with a number more on either side, and compare everything."""
    counts = [pcm.count * table.up // table.down + 1 for pcm, table, _ in cases]
    outs = [
        np.full((1 if mono else pcm.channels) * count + 2, 77, np.float32)
        for (pcm, _, mono), count in zip(cases, counts, strict=True)
    ]
    jobs = [
        SoundJob(pcm, int(out.ctypes.data) + 4, count, table, mono)
        for (pcm, table, mono), count, out in zip(cases, counts, outs, strict=True)
    ]
    memory, tables = HostMemory(), HostTables()
    for launch in sound_launches(jobs, tables=tables, upload=memory.upload, most_outputs=most_outputs, blocks=blocks):
        run(launch)
    for (pcm, table, mono), count, out in zip(cases, counts, outs, strict=True):
        planar = levels(pcm)
        for row, found in zip([mean(planar)] if mono else planar, out[1:-1].reshape(-1, count), strict=True):
            expected, magnitude = filtered(row, table, count)
            assert (np.abs(found - expected) <= TOLERANCE * magnitude).all(), f"{table.up}:{table.down}"
        assert out[0] == out[-1] == 77


def filtered(
    row: NDArray[np.float32], table: ResampleTable, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sums in float64, and of their magnitudes."""
    taps = table.taps
    padded = np.concatenate([np.zeros(table.before), row, np.zeros(taps + count * table.down // table.up)])
    sums, magnitudes = np.zeros(count), np.zeros(count)
    for k in range(count):
        column = k if k < table.starts else table.starts + k % table.up
        products = table.weights[:, column].reshape(-1) * padded[k * table.down // table.up :][:taps]
        sums[k], magnitudes[k] = products.sum(), np.abs(products).sum()
    return sums, magnitudes + 1e-30
