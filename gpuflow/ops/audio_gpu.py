"""Sound on its way through a GPU: stored PCM is copied there as it is; down-mix, resampling and features are kernels'.

``batch_launches`` is all of it but the GPU: the tests run what it gives on the host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import BackendUnavailable, InvalidOptions
from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.batch_memory import BatchMemory
from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel import write_beside
from gpuflow.ops.mel_jobs import MelJob, jobs_of
from gpuflow.ops.mel_launch import launches as mel_launches
from gpuflow.ops.mel_launch import obstacle
from gpuflow.ops.mel_records import mel_bytes
from gpuflow.ops.pcm_kernel import OUT_BYTES, SoundJob, sound_launches
from gpuflow.ops.sound_plan import SoundPlan
from gpuflow.ops.tables import Tables, device_tables
from gpuflow.presets.clip_plan import ClipPlan


@dataclass(frozen=True, slots=True, eq=False)
class FeatureClip:
    """A clip, mono at its spec's rate, and the address of its features, C-contiguous.

    Raises:
        InvalidOptions: a plan of more samples than there are.
    """

    sound: SoundPlan
    clip: ClipPlan
    out: int

    def __post_init__(self) -> None:
        wanted = max(last for _, last in self.clip.parts)
        if not self.sound.mono or wanted > self.sound.outputs:
            raise InvalidOptions(f"features of {wanted} samples need as many of one row; got {self.sound.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class WaveClip:
    """A clip and the address of its ``sound.shape`` of float32."""

    sound: SoundPlan
    out: int


Clip = FeatureClip | WaveClip


def batch_launches(
    clips: Sequence[Clip],
    *,
    tables: Tables,
    upload: Callable[[NDArray[np.uint8]], int],
    scratch: Callable[[int], int],
) -> list[Launch]:
    """The launches that write every clip, to be run in this order; the samples of each lie where the kernels read.

    ``upload``: bytes to the address where kernels read and write them; ``scratch``: the address of so many more. Both last
    until the launches have run.

    Raises:
        InvalidOptions: samples or features that begin between two numbers.
    """
    jobs: list[SoundJob] = []
    mels: list[MelJob] = []
    for clip in clips:
        if isinstance(clip, WaveClip):
            jobs.append(_job(clip.sound, clip.out))
            continue
        samples = clip.sound.pcm.address if clip.sound.as_it_lies else scratch(OUT_BYTES * clip.sound.outputs)
        if not clip.sound.as_it_lies:
            jobs.append(_job(clip.sound, samples))
        mels += jobs_of(clip.clip, samples, clip.out)
    made = sound_launches(jobs, tables=tables, upload=upload)
    return made + mel_launches(mels, tables=tables, upload=upload, scratch=scratch)


class SoundKernels:
    """The kernels on one GPU. Safe from any thread; ``sound_kernels`` keeps one a GPU."""

    def __init__(self, device_index: int) -> None:
        import cupy

        self._device = cupy.cuda.Device(device_index)
        self._tables = device_tables(device_index)

    def write(self, clips: Sequence[Clip], *, stream: Any) -> None:
        """Queue on a CuPy ``stream`` what writes every clip, all side by side.

        Sound on the host is copied first, all of it at once as it is stored, from where it may be changed once this
        returns; sound on the GPU must stay as it is until the stream is done with it.

        Raises:
            BackendUnavailable: no kernel makes these features (``obstacle``), or it cannot be compiled here; or CUDA pins
                no memory.
            InvalidOptions: see ``batch_launches``.
        """
        for spec in {clip.clip.spec for clip in clips if isinstance(clip, FeatureClip)}:
            if (reason := obstacle(spec)) is not None:
                raise BackendUnavailable(reason)
        with self._device, stream:
            memory = BatchMemory(self._device.id, stream)
            here = _on_gpu(clips, memory)
            self._tables.queue(
                lambda tables: batch_launches(here, tables=tables, upload=memory.upload, scratch=memory.scratch),
                stream=stream,
            )


@functools.cache
def sound_kernels(device_index: int) -> SoundKernels:
    """The one of that GPU."""
    return SoundKernels(device_index)


@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """One clip on its way into a block on a GPU: a waveform, the first of ``tensors``, or all tensors of ``clip``.

    ``sound``: its samples may be changed once they are placed; mono and at the spec's rate where there is a ``clip``. Where
    that is cut by what it sounds like, somebody has resampled it on the host for that: then ``sound`` is of those samples.
    """

    sound: SoundPlan
    lease: Lease
    tensors: Sequence[TensorSpec]
    clip: ClipPlan | None = None

    def kernels_clip(self, address: int) -> Clip:
        """What the kernels write, where the first tensor has that address.

        Raises:
            InvalidOptions: a plan of more samples than there are, or tensors of another clip.
        """
        wanted = ("float32", self.sound.shape) if self.clip is None else self.clip.tensors[self.clip.spec.features_name]
        first = self.tensors[0]
        if (first.dtype, first.shape) != wanted:
            raise InvalidOptions(f"{first.name} is {wanted[1]} of {wanted[0]}; got {first.shape} of {first.dtype}")
        return WaveClip(self.sound, address) if self.clip is None else FeatureClip(self.sound, self.clip, address)

    @property
    def gpu_bytes(self) -> int:
        """What it takes of the GPU's memory on its way, beside its block, or little less: samples as they are stored, as
        float32, levels and noise. Levels are counted as if each clip had its own."""
        source = self.sound.pcm.nbytes if self.sound.pcm.on_host else 0
        if self.clip is None:
            return source
        mono = 0 if self.sound.as_it_lies else OUT_BYTES * self.sound.outputs
        return source + mono + sum(map(mel_bytes, jobs_of(self.clip, 0, 0)))

    def beside(self) -> dict[TensorSpec, NDArray[Any]]:
        """What stands beside the features, on the host."""
        found = {tensor: np.empty(tensor.shape, tensor.dtype) for tensor in self.tensors[1:]}
        if self.clip is not None:
            write_beside(self.clip, {tensor.name: array for tensor, array in found.items()})
        return found


def place_on_gpu(placings: Sequence[Placing]) -> None:
    """Write clips into blocks of one GPU, all in one sequence of launches on this thread's stream, which is noted on the
    leases, also where this raises.

    Raises:
        BackendUnavailable: no kernel makes these features (``obstacle``), or one cannot be compiled here.
        InvalidOptions: as ``Placing.kernels_clip``.
    """
    import cupy

    targets: list[Any] = [placing.lease.array(placing.tensors[0]) for placing in placings]
    clips = [placing.kernels_clip(int(target.data.ptr)) for placing, target in zip(placings, targets, strict=True)]
    device = targets[0].device
    with device, cupy.cuda.Stream.ptds as stream:
        try:
            sound_kernels(device.id).write(clips, stream=stream)
            for placing in placings:
                for tensor, array in placing.beside().items():
                    placing.lease.array(tensor).set(array, stream=stream)
        finally:  # also of what was queued before an error
            for placing in placings:
                placing.lease.record_stream(stream)


def _job(sound: SoundPlan, out: int) -> SoundJob:
    return SoundJob(sound.pcm, out, sound.outputs, sound.table, sound.mono)


def _on_gpu(clips: Sequence[Clip], memory: BatchMemory) -> list[Clip]:
    """The same clips, whose samples lie where kernels read."""
    on_host = [clip.sound.pcm for clip in clips if clip.sound.pcm.on_host]
    copies = iter(memory.copies([pcm.bytes_on_host() for pcm in on_host]))
    return [
        replace(clip, sound=clip.sound.with_samples(next(copies))) if clip.sound.pcm.on_host else clip for clip in clips
    ]
