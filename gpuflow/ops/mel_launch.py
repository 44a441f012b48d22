"""Features of many clips, of any lengths and specs, as launches: one sequence for the whole batch.

``launches`` is all of it but the GPU: the tests run what it gives on the host. ``gpuflow/ops/mel_kernel.py`` is the GPU's
part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel_records import CHUNK, CLIP, MelJob, record, silence, tiles
from gpuflow.ops.tables import Tables
from gpuflow.presets.mel import MelSpec

GROUP_BYTES = 26 << 20  # of levels at once: 16 clips of 30 s with 128 bands; an H200's L2 has 50 MB
MAX_BLOCKS = 1 << 30
MAX_DELTA_WINDOW = 17  # kernels/audio/mel_finish.cu
_SHARED_BYTES = 48 << 10  # every GPU has them without being asked
_SIDE = 32  # kernels/audio/mel_finish.cu
_LANES = 128  # kernels/audio/mel_statistics.cu
_FINISH_SHARED_BYTES = 4 * _SIDE * (_SIDE + MAX_DELTA_WINDOW) + 12 * _SIDE
_ALIGN_BYTES = 256


def obstacle(spec: MelSpec) -> str | None:
    """Why the kernels cannot make these features; ``None`` where they can."""
    if spec.kind == "raw":
        steps = spec.dither or spec.signal_preemphasis
        return f"{spec.name}: waveforms are normalised on a GPU, not dithered or emphasised" if steps else None
    if not frames_per_block(spec.n_fft) or spec.n_fft < 32 or _rest(spec.n_fft // 2) > 1:
        return f"{spec.name}: n_fft is 32 .. 6144 and twice a product of 2, 3 and 5 on a GPU; got {spec.n_fft}"
    if spec.delta_window > MAX_DELTA_WINDOW:
        return f"{spec.name}: deltas reach over {MAX_DELTA_WINDOW} frames on a GPU; got {spec.delta_window}"
    if spec.delta_window and spec.normalize != "none":
        return f"{spec.name}: deltas of normalised bands are not made on a GPU"
    return None


def frames_per_block(n_fft: int) -> int:
    """As ``kernels/audio/mel.cu`` has it; 0 where not even one fits."""
    return next((frames for frames in (8, 4, 2, 1) if mel_shared_bytes(n_fft, frames) <= _SHARED_BYTES), 0)


def mel_shared_bytes(n_fft: int, frames: int) -> int:
    """Of a block of that many frames."""
    return 8 * (frames | 1) * n_fft + 4 * frames + 4


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

    Raises:
        InvalidOptions: bin statistics of another number of bands.
    """
    groups = list(_groups(jobs, group_bytes))
    if not groups:
        return []
    memory = scratch(max(sum(map(_scratch_bytes, group)) for group in groups) or 1)
    made = [_Group(group, memory, tables) for group in groups]
    parts = [part for group in made for part in group.parts]
    starts = list(itertools.accumulate((_aligned(part.nbytes) for part in parts), initial=0))
    packed = np.zeros(starts[-1], np.uint8)
    for part, start in zip(parts, starts, strict=False):
        packed[start : start + part.nbytes] = part.view(np.uint8)
    base = upload(packed)
    addresses = iter(base + start for start in starts)
    return [launch for group in made for launch in group.launches(addresses, blocks)]


@dataclass(frozen=True, slots=True)
class _Stage:
    """One launch of a group, without what only memory's address says. ``takes_maxima``: whether the kernel does."""

    name: str
    defines: tuple[tuple[str, str], ...]
    clip_of: NDArray[np.int32]
    threads: int
    shared_bytes: int
    takes_maxima: bool = True


class _Group:
    """Clips that are in scratch at once."""

    def __init__(self, jobs: Sequence[MelJob], memory: int, tables: Tables) -> None:
        first_tile, mels = _mel_stages(jobs)
        first_chunk, statistics = tiles([job.bands * job.chunks for job in jobs])
        first_finish, finishes = _finish_stages(jobs)
        self._stages = [*mels, _Stage("audio/mel_statistics", (), statistics, _LANES, 4 * _LANES), *finishes]
        self._stages = [stage for stage in self._stages if len(stage.clip_of)]
        records = []
        for index, job in enumerate(jobs):
            counts = 12 * job.bands * job.chunks
            places = {"statistics": memory} if counts else {}
            memory += _aligned(counts)
            if not job.raw:
                places["levels"] = memory
            memory += _aligned(4 * job.level_floats)
            places |= {"first_tile": first_tile[index], "first_chunk": first_chunk[index]}
            records.append(record(job, tables, **places, first_finish=first_finish[index]))
        maxima = _ordered(np.array([silence(job.spec) for job in jobs], np.float32))
        self.parts = [np.array(records, CLIP), maxima, *(stage.clip_of for stage in self._stages)]

    def launches(self, addresses: Iterator[int], blocks: int) -> Iterator[Launch]:
        """``addresses``: of the parts, in their order."""
        clips, maxima = next(addresses), next(addresses)
        for stage in self._stages:
            given: tuple[np.generic, ...] = (np.uint64(clips), np.uint64(next(addresses)), np.int32(len(stage.clip_of)))
            if stage.takes_maxima:
                given = (*given, np.uint64(maxima))
            grid = (min(blocks, len(stage.clip_of)), 1)
            yield Launch(stage.name, stage.defines, grid, (stage.threads, 1), given, stage.shared_bytes)


def _mel_stages(jobs: Sequence[MelJob]) -> tuple[list[int], list[_Stage]]:
    """One launch a size of the FFT; and where the tiles of each clip begin in its own."""
    first, stages = [0] * len(jobs), []
    for n_fft in sorted({job.spec.n_fft for job in jobs if not job.raw}):
        frames = frames_per_block(n_fft)
        counts = [-(-job.plan.live // frames) * (not job.raw and job.spec.n_fft == n_fft) for job in jobs]
        begins, clip_of = tiles(counts)
        first = [begin if count else kept for begin, count, kept in zip(begins, counts, first, strict=True)]
        shared_bytes = mel_shared_bytes(n_fft, frames)
        stages.append(_Stage("audio/mel", (("N_FFT", str(n_fft)),), clip_of, 256, shared_bytes))
    return first, stages


def _finish_stages(jobs: Sequence[MelJob]) -> tuple[list[int], list[_Stage]]:
    """One launch for features and one for waveforms."""
    features = [0 if job.raw else -(-job.frames // _SIDE) * -(-job.bands // _SIDE) for job in jobs]
    waves = [-(-job.frames // CHUNK) if job.raw else 0 for job in jobs]
    (first_feature, feature_of), (first_wave, wave_of) = tiles(features), tiles(waves)
    first = [wave if job.raw else feature for job, wave, feature in zip(jobs, first_wave, first_feature, strict=True)]
    return first, [
        _Stage("audio/mel_finish", (), feature_of, 256, _FINISH_SHARED_BYTES),
        _Stage("audio/wave_norm", (), wave_of, 256, 0, takes_maxima=False),
    ]


def _groups(jobs: Sequence[MelJob], group_bytes: int) -> Iterator[list[MelJob]]:
    group: list[MelJob] = []
    nbytes = 0
    for job in jobs:
        more = _scratch_bytes(job)
        if group and nbytes + more > group_bytes:
            yield group
            group, nbytes = [], 0
        group.append(job)
        nbytes += more
    if group:
        yield group


def _scratch_bytes(job: MelJob) -> int:
    return _aligned(4 * job.level_floats) + _aligned(12 * job.bands * job.chunks)


def _ordered(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """As the kernels compare floats: whole numbers in the same order."""
    bits = values.view(np.int32)
    return np.where(bits >= 0, bits, bits ^ np.int32(0x7FFFFFFF)).astype(np.int32)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGN_BYTES) * _ALIGN_BYTES


def _rest(number: int) -> int:
    """Without its factors 2, 3 and 5."""
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number
