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

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.audio_parts import Parts
from gpuflow.ops.batch_memory import BatchMemory
from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel_launch import launches as mel_launches
from gpuflow.ops.mel_records import MelJob
from gpuflow.ops.pcm_kernel import SoundJob, sound_launches
from gpuflow.ops.sound_plan import SoundPlan
from gpuflow.ops.tables import Tables, device_tables
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import MelPlan, mel_plan


@dataclass(frozen=True, slots=True)
class FeaturePart:
    """One part of a clip: the samples of ``plan`` from ``first`` on, to ``out`` as ``MelJob`` has it. ``noise``: address of
    the normal noise that a spec with ``dither`` adds."""

    first: int
    plan: MelPlan
    out: int
    strides: tuple[int, ...]
    noise: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class FeatureClip:
    """A clip and the features of its parts. ``sound`` is mono, at ``spec.sample_rate``."""

    sound: SoundPlan
    spec: MelSpec
    parts: tuple[FeaturePart, ...]
    dtype: str = "float32"


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
    jobs, mels = [], []
    for clip in clips:
        if isinstance(clip, WaveClip):
            jobs.append(_job(clip.sound, clip.out))
            continue
        samples = clip.sound.pcm.address if clip.sound.as_it_lies else scratch(4 * clip.sound.outputs)
        if not clip.sound.as_it_lies:
            jobs.append(_job(clip.sound, samples))
        mels += [
            MelJob(samples + 4 * part.first, clip.spec, part.plan, part.out, part.strides, clip.dtype, part.noise)
            for part in clip.parts
        ]
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


def place_features_on_gpu(
    sound: SoundPlan, spec: MelSpec, lease: Lease, tensor: TensorSpec, *, parts: Parts | None = None
) -> tuple[MelPlan, ...]:
    """Write the features of a clip into a block on a GPU, queued on this thread's stream, which is noted on the lease.

    ``sound``: mono, at the spec's rate; its samples may be changed once this returns. ``parts``: the first sample of each
    and the one behind its last; the tensor has a first axis of parts then. Without them it is the whole clip, whose
    features are cut where the spec has ``split="after_mel"`` and the tensor an axis more. Returns the plan of each part.

    Raises:
        BackendUnavailable: no kernel makes these features, or it cannot be compiled here.
        InvalidOptions: a tensor of another shape or type.
    """
    import cupy

    target: Any = lease.array(tensor)
    with target.device, cupy.cuda.Stream.ptds as stream:
        made = feature_parts(sound, spec, int(target.data.ptr), target.strides, parts)
        sound_kernels(target.device.id).write([FeatureClip(sound, spec, made, tensor.dtype)], stream=stream)
        lease.record_stream(stream)
    return tuple(part.plan for part in made)


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


def feature_parts(
    sound: SoundPlan, spec: MelSpec, out: int, strides: tuple[int, ...], parts: Parts | None = None
) -> tuple[FeaturePart, ...]:
    """Where the features of each part go: ``out`` is the tensor's address, ``strides`` are bytes along its axes."""
    if parts is None:
        return (FeaturePart(0, mel_plan(spec, sound.outputs), out, strides),)
    return tuple(
        FeaturePart(first, mel_plan(spec, last - first), out + number * strides[0], strides[1:])
        for number, (first, last) in enumerate(parts)
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
