"""Sound on its way through a GPU: stored PCM is copied there as it is; down-mix, resampling and features are kernels'.

``batch_launches`` is all of it but the GPU: the tests run what it gives on the host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import BackendUnavailable
from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.batch_memory import BatchMemory
from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel import write_beside
from gpuflow.ops.mel_launch import launches as mel_launches
from gpuflow.ops.mel_launch import obstacle
from gpuflow.ops.mel_records import MelJob
from gpuflow.ops.mel_signal import normal_noise
from gpuflow.ops.pcm_kernel import SoundJob, sound_launches
from gpuflow.ops.sound_plan import SoundPlan
from gpuflow.ops.tables import Tables, device_tables
from gpuflow.presets.clip_plan import ClipPlan


@dataclass(frozen=True, slots=True, eq=False)
class FeatureClip:
    """A clip, mono at its spec's rate, and where its features go: ``out`` is the tensor's address, ``strides`` are bytes
    along its axes. ``noise``: what a spec with ``dither`` adds to each part, as ``MelJob`` has it: addresses."""

    sound: SoundPlan
    clip: ClipPlan
    out: int
    strides: tuple[int, ...]
    noise: tuple[int, ...] = ()


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
        samples = clip.sound.pcm.address if clip.sound.as_it_lies else scratch(4 * clip.sound.outputs)
        if not clip.sound.as_it_lies:
            jobs.append(_job(clip.sound, samples))
        mels += _mel_jobs(clip, samples)
    made = sound_launches(jobs, tables=tables, upload=upload)
    return made + mel_launches(mels, tables=tables, upload=upload, scratch=scratch)


def unfilled(clip: ClipPlan) -> bool:
    """Whether parts are shorter than the tensor's rows, which are zeros beyond them."""
    return len({plan.shape for plan in clip.plans}) > 1


def noise_of(clip: ClipPlan) -> list[NDArray[np.float32]]:
    """What a spec with ``dither`` adds to each part, zeros up to its ``min_samples``; none without."""
    least = clip.spec.min_samples
    drawn = [normal_noise(plan.samples) for plan in clip.plans] if clip.spec.dither else []
    return [np.pad(noise, (0, max(0, least - len(noise)))) for noise in drawn]


class SoundKernels:
    """The kernels on one GPU. Safe from any thread; ``sound_kernels`` keeps one a GPU."""

    def __init__(self, device_index: int) -> None:
        import cupy

        self._device = cupy.cuda.Device(device_index)
        self._tables = device_tables(device_index)

    def write(self, clips: Sequence[Clip], *, stream: Any) -> None:
        """Queue on a CuPy ``stream`` what writes every clip, all side by side.

        Sound on the host is copied first, from where it may be changed once this returns; sound on the GPU must stay as
        it is until the stream is done with it.

        Raises:
            BackendUnavailable: a kernel cannot be compiled here.
            InvalidOptions: see ``batch_launches``.
        """
        memory = BatchMemory()
        with self._device, stream:
            here = [replace(clip, sound=_on_gpu(clip.sound, stream)) for clip in clips]
            uploaded = stream.record()
            self._tables.queue(
                lambda tables: batch_launches(here, tables=tables, upload=memory.upload, scratch=memory.scratch),
                stream=stream,
            )
            if any(clip.sound.pcm.on_host for clip in clips):
                uploaded.synchronize()  # what was copied may be used again


@functools.cache
def sound_kernels(device_index: int) -> SoundKernels:
    """The one of that GPU."""
    return SoundKernels(device_index)


def place_features_on_gpu(sound: SoundPlan, clip: ClipPlan, lease: Lease, tensors: Sequence[TensorSpec]) -> None:
    """Write all tensors of a clip into a block on a GPU, queued on this thread's stream, which is noted on the lease.

    ``sound``: mono, at the spec's rate; its samples may be changed once this returns.

    Raises:
        BackendUnavailable: no kernel makes these features (``obstacle``), or it cannot be compiled here.
    """
    import cupy

    if (reason := obstacle(clip.spec)) is not None:
        raise BackendUnavailable(reason)
    target: Any = lease.array(tensors[0])
    with target.device, cupy.cuda.Stream.ptds as stream:
        if unfilled(clip):
            cupy.cuda.runtime.memsetAsync(int(target.data.ptr), 0, target.nbytes, stream.ptr)
        memory = BatchMemory()
        noise = tuple(memory.upload(drawn.view(np.uint8)) for drawn in noise_of(clip))
        placed = FeatureClip(sound, clip, int(target.data.ptr), target.strides, noise)
        sound_kernels(target.device.id).write([placed], stream=stream)
        beside = {tensor.name: np.empty(tensor.shape, tensor.dtype) for tensor in tensors[1:]}
        write_beside(clip, beside)
        for tensor in tensors[1:]:
            lease.array(tensor).set(beside[tensor.name], stream=stream)
        lease.record_stream(stream)


def place_waveform_on_gpu(sound: SoundPlan, lease: Lease, tensor: TensorSpec) -> None:
    """Write a clip into a block on a GPU, ``sound.shape`` of float32, queued on this thread's stream, which is noted on the
    lease. Its samples may be changed once this returns.

    Raises:
        BackendUnavailable: a kernel cannot be compiled here.
    """
    import cupy

    target: Any = lease.array(tensor)
    with target.device, cupy.cuda.Stream.ptds as stream:
        sound_kernels(target.device.id).write([WaveClip(sound, int(target.data.ptr))], stream=stream)
        lease.record_stream(stream)


def _mel_jobs(placed: FeatureClip, samples: int) -> Iterator[MelJob]:
    clip, cut = placed.clip, placed.clip.spec.split == "after_mel"
    noise = placed.noise or (0,) * len(clip.plans)
    step, strides = (0, placed.strides) if cut or not clip.in_parts else (placed.strides[0], placed.strides[1:])
    for number, (plan, (first, _)) in enumerate(zip(clip.plans, clip.parts, strict=not cut)):
        yield MelJob(
            samples + 4 * first, clip.spec, plan, placed.out + number * step, strides, clip.dtype, noise[number]
        )


def _job(sound: SoundPlan, out: int) -> SoundJob:
    return SoundJob(sound.pcm, out, sound.outputs, sound.table, sound.mono)


def _on_gpu(sound: SoundPlan, stream: Any) -> SoundPlan:
    import cupy

    pcm = sound.pcm
    if not pcm.on_host:
        return sound
    copy = cupy.empty(pcm.nbytes, cupy.uint8)
    copy.set(pcm.bytes_on_host(), stream=stream)
    return replace(sound, pcm=replace(pcm, samples=copy))
