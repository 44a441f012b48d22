"""Features of many clips, of any lengths and specs, as launches: one sequence for the whole batch.

``launches`` is all of it but the GPU: the tests run what it gives on the host. ``gpuflow/ops/audio_gpu.py`` is the GPU's
part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.kernels import Defines, Launch
from gpuflow.ops.mel_jobs import MelJob
from gpuflow.ops.mel_records import CHUNK, records
from gpuflow.ops.mel_signal import noise
from gpuflow.ops.tables import Tables
from gpuflow.presets.mel import MelSpec

GROUP_BYTES = 24 << 20  # of levels at once: 16 clips of 30 s with 128 bands; an H200's L2 has 50 MB
MAX_BLOCKS = 1 << 30
MAX_DELTA_WINDOW = 17  # kernels/audio/mel_finish.cu
_SHARED_BYTES = 48 << 10  # every GPU has them without being asked
_SIDE = 32  # kernels/audio/mel_finish.cu
_LANES = 128  # kernels/mel.cuh
_WAVE_BLOCKS = 1_024  # kernels/audio/wave_norm.cu: each reads the statistics of a whole clip
_FINISH_SHARED_BYTES = 4 * _SIDE * (_SIDE + MAX_DELTA_WINDOW) + 12 * _SIDE
_THREADS = 256
_ALIGN_BYTES = 256

_Fft = tuple[int, str]
"""Its size, and the precision."""


def obstacle(spec: MelSpec) -> str | None:
    """Why the kernels cannot make these features; ``None`` where they can."""
    if spec.kind == "raw":
        steps = spec.dither or spec.signal_preemphasis
        return f"{spec.name}: waveforms are scaled and normalised on a GPU, no more" if steps else None
    if spec.n_fft < 32 or not frames_per_block(spec.n_fft, spec.precision) or _rest(spec.n_fft // 2) > 1:
        most = 6_142 if spec.precision == "float32" else 3_070
        return f"{spec.name}: n_fft is 32 .. {most} and twice a product of 2, 3 and 5 on a GPU; got {spec.n_fft}"
    if spec.delta_window > MAX_DELTA_WINDOW:
        return f"{spec.name}: deltas reach over {MAX_DELTA_WINDOW} frames on a GPU; got {spec.delta_window}"
    if spec.delta_window and spec.normalize != "none":
        return f"{spec.name}: deltas of normalised bands are not made on a GPU"
    return None


def frames_per_block(n_fft: int, precision: str = "float32") -> int:
    """As ``kernels/audio/mel.cu`` has it; 0 where not even one fits."""
    fitting = (frames for frames in (8, 4, 2, 1) if mel_shared_bytes(n_fft, frames, precision) <= _SHARED_BYTES)
    return next(fitting, 0)


def mel_shared_bytes(n_fft: int, frames: int, precision: str = "float32") -> int:
    """Of a block of that many frames."""
    return 2 * np.dtype(precision).itemsize * (frames | 1) * n_fft + 4


def launches(
    jobs: Sequence[MelJob],
    *,
    tables: Tables,
    upload: Callable[[NDArray[np.uint8]], int],
    scratch: Callable[[int], int],
    group_bytes: int = GROUP_BYTES,
    blocks: int = MAX_BLOCKS,
) -> list[Launch]:
    """The launches that write the features of every job, to be run in this order. ``obstacle`` has none of their specs.

    Clips go group by group through the same scratch, so that levels are read from L2. ``upload``: bytes to the address
    where kernels read and write them; ``scratch``: the address of so many more. Both last until the launches have run.
    ``blocks``: at most so many of one launch.
    """
    if not jobs:
        return []
    clips = records(jobs, tables)
    clips["noise"] = [upload(noise(job.own).view(np.uint8)) if job.spec.dither and job.own else 0 for job in jobs]
    begin = scratch(_place_in_scratch(clips, group_bytes))
    bounds = [*np.flatnonzero(clips["levels"] == 0).tolist(), len(jobs)]
    of_bands = clips["roots"] != 0
    clips["levels"] = np.where(of_bands, clips["levels"] + np.uint64(begin), clips["samples"])
    clips["statistics"] = np.where(clips["chunks"] > 0, clips["statistics"] + np.uint64(begin), 0)
    ffts = [(job.spec.n_fft, job.spec.precision) if live else None for job, live in zip(jobs, of_bands, strict=True)]
    groups = [_group(clips[first:last], ffts[first:last]) for first, last in itertools.pairwise(bounds)]
    return _launched(groups, upload, blocks)


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """One launch, without what only memory's address says. ``of``: which clip each of its pieces is of."""

    name: str
    of: NDArray[np.int32]
    threads: int
    shared_bytes: int
    defines: Defines = ()
    takes_maxima: bool = True
    most_blocks: int = MAX_BLOCKS


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Clips that are in scratch at once."""

    clips: NDArray[Any]
    maxima: NDArray[np.int32]
    stages: list[_Stage]

    @property
    def parts(self) -> list[NDArray[Any]]:
        """What kernels read."""
        return [self.clips, self.maxima, *(stage.of for stage in self.stages)]


def _place_in_scratch(clips: NDArray[Any], group_bytes: int) -> int:
    """Set ``levels`` and ``statistics`` from the beginning of scratch, where the first clip of each group has 0; how many
    bytes the largest group has."""
    own = np.where(clips["roots"] != 0, 4 * clips["n_mels"].astype(np.int64) * clips["pitch"], 0)
    levels, statistics = _aligned(own), _aligned(12 * clips["n_mels"].astype(np.int64) * clips["chunks"])
    begins, at = [], 0
    for nbytes in (levels + statistics).tolist():
        at = 0 if at and at + nbytes > group_bytes else at
        begins.append(at)
        at += max(nbytes, _ALIGN_BYTES)  # the next one does not begin at 0
    clips["levels"] = begins
    clips["statistics"] = begins + levels
    return int((begins + levels + statistics).max()) or _ALIGN_BYTES


def _group(clips: NDArray[Any], ffts: Sequence[_Fft | None]) -> _Group:
    """``ffts``: of each clip, ``None`` of a waveform."""
    waves, stages = np.array([fft is None for fft in ffts]), []
    for fft in sorted({fft for fft in ffts if fft is not None}):  # the kernel is compiled for each
        n_fft, precision = fft
        frames = frames_per_block(n_fft, precision)
        of = _pieces(clips, "first_tile", np.where([own == fft for own in ffts], -(-clips["live"] // frames), 0))
        shared_bytes = mel_shared_bytes(n_fft, frames, precision)
        real: Defines = (("REAL", "double"),) if precision == "float64" else ()
        stages.append(_Stage("audio/mel", of, _THREADS, shared_bytes, (("N_FFT", str(n_fft)), *real)))
    of = _pieces(clips, "first_chunk", clips["n_mels"] * clips["chunks"])
    stages.append(_Stage("audio/mel_statistics", of, _LANES, 4 * _LANES))
    tiles = -(-clips["frames"] // _SIDE) * -(-clips["n_mels"] // _SIDE)
    of = _pieces(clips, "first_finish", np.where(waves, 0, tiles))
    stages.append(_Stage("audio/mel_finish", of, _THREADS, _FINISH_SHARED_BYTES))
    of = _pieces(clips, "first_finish", np.where(waves, -(-clips["frames"] // CHUNK), 0))
    stages.append(_Stage("audio/wave_norm", of, _THREADS, 4 * _LANES, takes_maxima=False, most_blocks=_WAVE_BLOCKS))
    return _Group(clips, _ordered(clips["silence"]), [stage for stage in stages if len(stage.of)])


def _pieces(clips: NDArray[Any], field: str, counts: NDArray[Any]) -> NDArray[np.int32]:
    """Which clip each piece is of; ``field`` gets where those of a clip begin."""
    first = np.cumsum(counts) - counts
    clips[field] = np.where(counts > 0, first, clips[field])
    return np.repeat(np.arange(len(clips), dtype=np.int32), counts)


def _launched(groups: Sequence[_Group], upload: Callable[[NDArray[np.uint8]], int], blocks: int) -> list[Launch]:
    """All that kernels read goes up at once."""
    parts = [part for group in groups for part in group.parts]
    starts = list(itertools.accumulate((int(_aligned(part.nbytes)) for part in parts), initial=0))
    packed = np.zeros(starts[-1], np.uint8)
    for part, start in zip(parts, starts, strict=False):
        packed[start : start + part.nbytes] = np.ascontiguousarray(part).view(np.uint8)
    base = upload(packed)
    addresses = (base + start for start in starts)
    return [launch for group in groups for launch in _of_group(group, addresses, blocks)]


def _of_group(group: _Group, addresses: Iterator[int], blocks: int) -> Iterator[Launch]:
    clips, maxima = next(addresses), next(addresses)
    for stage in group.stages:
        count = len(stage.of)
        given: tuple[np.generic, ...] = (np.uint64(clips), np.uint64(next(addresses)), np.int32(count))
        if stage.takes_maxima:
            given = (*given, np.uint64(maxima))
        grid = (min(blocks, stage.most_blocks, count), 1)
        yield Launch(stage.name, stage.defines, grid, (stage.threads, 1), given, stage.shared_bytes)


def _ordered(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """As the kernels compare floats: whole numbers in the same order."""
    bits = np.ascontiguousarray(values).view(np.int32)
    return np.where(bits >= 0, bits, bits ^ np.int32(0x7FFFFFFF)).astype(np.int32)


def _aligned(nbytes: Any) -> Any:
    return -(-nbytes // _ALIGN_BYTES) * _ALIGN_BYTES


def _rest(number: int) -> int:
    """Without its factors 2, 3 and 5."""
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number
