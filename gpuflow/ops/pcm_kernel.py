"""Stored sound to float32 at a rate, as launches: clips of any encodings, channels, lengths and rates side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.media import ITEM_BYTES
from gpuflow.ops.kernels import Launch
from gpuflow.ops.pcm import SAMPLE_BYTES, PcmSamples
from gpuflow.ops.resample_table import ResampleTable
from gpuflow.ops.tables import Tables

_SOUND = [
    ("samples", np.uint64), *((name, np.int64) for name in ("frame_stride", "channel_stride", "frames")),
    *((name, np.int32) for name in ("encoding", "channels")),
]  # fmt: skip
PCM_JOB = np.dtype([*_SOUND, ("out", np.uint64), ("outputs", np.int64), ("first_tile", np.int32)], align=True)
"""``struct Job`` of ``kernels/audio/pcm.cu``."""
RESAMPLE_JOB = np.dtype(
    [
        *_SOUND, ("weights", np.uint64), ("out", np.uint64), ("outputs", np.int64),
        *((name, np.int32) for name in ("up", "down", "taps", "before", "starts", "tile", "first_tile")),
    ],
    align=True,
)  # fmt: skip
"""``struct Job`` of ``kernels/audio/resample.cu``."""

OUT_BYTES = ITEM_BYTES["float32"]
_THREADS = 256
_PCM_TILE = 4 * _THREADS
_MOST_OUTPUTS = 256
_SHARED_FRAMES = 12_288  # 48 KiB, which every GPU has without being asked
_LARGEST_GRID = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class SoundJob:
    """One clip to ``out``, the address of ``outputs`` float32, or of so many for each channel where it is not ``mono``.

    ``pcm`` lies where the kernel reads; ``table`` brings it to another rate.

    Raises:
        InvalidOptions: samples that begin between two of their numbers.
    """

    pcm: PcmSamples
    out: int
    outputs: int
    table: ResampleTable | None = None
    mono: bool = True

    def __post_init__(self) -> None:
        whole = 1 if self.pcm.encoding == "s24" else self.pcm.sample_bytes
        if self.pcm.address % whole:
            raise InvalidOptions(f"{self.pcm.encoding} begins at a multiple of {whole} bytes; got {self.pcm.address}")
        if self.out % OUT_BYTES:
            raise InvalidOptions(f"float32 begins at a multiple of {OUT_BYTES} bytes; got {self.out}")


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One row of the result: the mean of ``channels`` from ``first`` on."""

    job: SoundJob
    first: int
    channels: int

    def sound(self) -> tuple[int, ...]:
        """The fields of ``struct Sound``."""
        pcm = self.job.pcm
        frame_stride, channel_stride = pcm.strides
        samples = pcm.address + self.first * channel_stride
        encoding = list(SAMPLE_BYTES).index(pcm.encoding)
        return samples, frame_stride, channel_stride, pcm.count, encoding, self.channels

    @property
    def out(self) -> int:
        """Address of the row."""
        return self.job.out + OUT_BYTES * self.first * self.job.outputs


def sound_launches(
    jobs: Sequence[SoundJob],
    *,
    tables: Tables,
    upload: Callable[[NDArray[np.uint8]], int],
    most_outputs: int = _MOST_OUTPUTS,
    blocks: int = _LARGEST_GRID,
) -> list[Launch]:
    """The launches that write every job, in any order: one for those that keep their rate, one for each size of shared
    memory (a power of two) of those that do not. ``upload``: bytes to the address where kernels read them, until the
    launches have run. ``most_outputs``: of one tile; ``blocks``: of one launch.
    """
    rows = [row for job in jobs if job.outputs for row in _rows(job)]
    made = _pcm([row for row in rows if row.job.table is None], upload, blocks)
    resampled = [(row, row.job.table) for row in rows if row.job.table is not None]
    resampled.sort(key=lambda pair: _stage_bytes(pair[1], most_outputs))
    for stage_bytes, alike in itertools.groupby(resampled, lambda pair: _stage_bytes(pair[1], most_outputs)):
        made.append(_resample(list(alike), stage_bytes, tables, upload, most_outputs, blocks))
    return made


def tile_outputs(table: ResampleTable, most: int = _MOST_OUTPUTS) -> int:
    """How many outputs a block makes at once: what they see has room in shared memory."""
    return max(1, min(most, (_SHARED_FRAMES - table.taps - 1) * table.up // table.down))


def tile_frames(table: ResampleTable, outputs: int) -> int:
    """How many frames a tile sees at most."""
    return -(-(outputs - 1) * table.down // table.up) + table.taps


def _rows(job: SoundJob) -> Iterator[_Row]:
    if job.mono:
        yield _Row(job, 0, job.pcm.channels)
        return
    for channel in range(job.pcm.channels):
        yield _Row(job, channel, 1)


def _pcm(rows: Sequence[_Row], upload: Callable[[NDArray[np.uint8]], int], blocks: int) -> list[Launch]:
    if not rows:
        return []
    tiles = [-(-row.job.outputs // _PCM_TILE) for row in rows]
    first = itertools.accumulate(tiles, initial=0)
    records = [(*row.sound(), row.out, row.job.outputs, at) for row, at in zip(rows, first, strict=False)]
    given = (*_uploaded(np.array(records, PCM_JOB), tiles, upload), np.int32(_PCM_TILE))
    return [Launch("audio/pcm", (), (min(blocks, sum(tiles)), 1), (_THREADS, 1), given)]


def _resample(
    rows: Sequence[tuple[_Row, ResampleTable]],
    stage_bytes: int,
    tables: Tables,
    upload: Callable[[NDArray[np.uint8]], int],
    most_outputs: int,
    blocks: int,
) -> Launch:
    sides = [tile_outputs(table, most_outputs) for _, table in rows]
    tiles = [-(-row.job.outputs // side) for (row, _), side in zip(rows, sides, strict=True)]
    first = itertools.accumulate(tiles, initial=0)
    records = [
        (
            *row.sound(), _weights(table, tables), row.out, row.job.outputs,
            table.up, table.down, table.taps, table.before, table.starts, side, at,
        )
        for (row, table), side, at in zip(rows, sides, first, strict=False)
    ]  # fmt: skip
    given = _uploaded(np.array(records, RESAMPLE_JOB), tiles, upload)
    return Launch("audio/resample", (), (min(blocks, sum(tiles)), 1), (_THREADS, 1), given, stage_bytes)


def _weights(table: ResampleTable, tables: Tables) -> int:
    return tables(("resample", table.up, table.down, table.starts), lambda: table.weights)


def _stage_bytes(table: ResampleTable, most_outputs: int) -> int:
    frames = tile_frames(table, tile_outputs(table, most_outputs))
    return 4 * min(_SHARED_FRAMES, 1 << (frames - 1).bit_length())


def _uploaded(
    records: NDArray[np.void], tiles: Sequence[int], upload: Callable[[NDArray[np.uint8]], int]
) -> tuple[np.generic, ...]:
    """The kernels' first arguments: the records, whose a tile is, and how many tiles there are."""
    job_of = np.repeat(np.arange(len(records), dtype=np.int32), tiles)
    address = upload(np.concatenate([records.view(np.uint8), job_of.view(np.uint8)]))
    return np.uint64(address), np.uint64(address + records.nbytes), np.int32(len(job_of))
