"""Where gpuflow's audio kernels run when they are measured: a GPU by CuPy. Tests put the host's build of them in its place."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.ops.audio_gpu import Clip, FeatureClip, WaveClip, batch_launches, sound_kernels
from gpuflow.ops.kernels import Launch, kernel
from gpuflow.ops.pcm import PcmSamples
from gpuflow.ops.sound_plan import sound_plan
from gpuflow.presets.clip_plan import clip_plan
from gpuflow.presets.mel import MelSpec

LIMITS = Limits()
STATIC_SHARED_BYTES = 48 << 10  # more has to be asked for
ITEM_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}  # bfloat16 as its bits


class Place(Protocol):
    """Memory and kernels, by their names here."""

    device: str

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array, every byte 0xAA."""
        ...

    def copied(self, values: NDArray[Any]) -> Any:
        """A copy of a host array."""
        ...

    def host(self, array: Any) -> NDArray[Any]:
        """As numpy, once all work is done."""
        ...

    def address(self, array: Any) -> int:
        """Of its first byte."""
        ...

    def write(self, clips: Sequence[Clip]) -> None:
        """Run the kernels on all clips."""
        ...

    def launches(self, clips: Sequence[Clip]) -> list[Launch]:
        """What ``write`` runs; their memory lasts as long as this place."""
        ...

    def queue(self, launch: Launch) -> None:
        """Run one launch."""
        ...

    def microseconds(self, run: Callable[[], Any], *, rounds: int = 20) -> float:
        """Median time of what a call queues, by the device's clock."""
        ...


class Cuda:
    """``Place`` on the current GPU."""

    device = "cuda"

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """See ``Place``."""
        import cupy

        made = cupy.empty(shape, dtype)
        cupy.cuda.runtime.memset(made.data.ptr, 0xAA, made.nbytes)
        return made

    def copied(self, values: NDArray[Any]) -> Any:
        """See ``Place``."""
        import cupy

        return cupy.asarray(values)

    def host(self, array: Any) -> NDArray[Any]:
        """See ``Place``."""
        import cupy

        cupy.cuda.Device().synchronize()
        values: NDArray[Any] = array.get()
        return values

    def address(self, array: Any) -> int:
        """See ``Place``."""
        return int(array.data.ptr)

    def write(self, clips: Sequence[Clip]) -> None:
        """See ``Place``."""
        import cupy

        sound_kernels(cupy.cuda.Device().id).write(clips, stream=cupy.cuda.get_current_stream())

    def launches(self, clips: Sequence[Clip]) -> list[Launch]:
        """See ``Place``."""
        return batch_launches(clips, tables=self._table, upload=self._upload, scratch=self._scratch)

    def queue(self, launch: Launch) -> None:
        """See ``Place``."""
        if launch.shared_bytes > STATIC_SHARED_BYTES:
            kernel(launch.name, launch.defines).max_dynamic_shared_size_bytes = launch.shared_bytes
        launch.queue()

    def microseconds(self, run: Callable[[], Any], *, rounds: int = 20) -> float:
        """See ``Place``; CUDA events around each call."""
        import cupy

        run()
        times = []
        for _ in range(rounds):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(1e3 * cupy.cuda.get_elapsed_time(begin, end))
        return float(round(statistics.median(times), 2))

    def _table(self, key: object, make: Callable[[], Any]) -> int:
        return self._upload(np.ascontiguousarray(make()).view(np.uint8).reshape(-1))

    def _upload(self, array: NDArray[np.uint8]) -> int:
        self._kept.append(self.copied(array))
        return self.address(self._kept[-1])

    def _scratch(self, nbytes: int) -> int:
        self._kept.append(self.empty((nbytes,), np.uint8))
        return self.address(self._kept[-1])


PLACE: Place = Cuda()


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips, the new arrays that each is written to, and what else must last as long."""

    clips: list[Clip]
    outs: list[Any]
    kept: list[Any]


def queue_all(launches: Sequence[Launch]) -> None:
    """Run all, in order."""
    for launch in launches:
        PLACE.queue(launch)


def feature_batch(
    pcms: Sequence[PcmSamples], spec: MelSpec, dtype: str = "float32", *, outs: Sequence[Any] | None = None
) -> Batch:
    """Clips under a spec, at its rate or resampled to it. ``outs``: arrays to write to, new ones without them."""
    made = Batch([], [], [])
    for number, pcm in enumerate(pcms):
        sound = sound_plan(pcm, spec.sample_rate, limits=LIMITS)
        plan = clip_plan(spec, sound.outputs, dtype=dtype)
        shape = plan.tensors[spec.features_name][1]
        out = outs[number] if outs is not None else PLACE.empty(shape, ITEM_TYPES[dtype])
        made.clips.append(FeatureClip(sound, plan, PLACE.address(out)))
        made.outs.append(out)
        made.kept.append(pcm)
    return made


def wave_batch(pcms: Sequence[PcmSamples], to_hz: int, *, outs: Sequence[Any] | None = None) -> Batch:
    """Clips to one channel at a rate. ``outs``: as of ``feature_batch``."""
    plans = [sound_plan(pcm, to_hz, limits=LIMITS) for pcm in pcms]
    outs = [PLACE.empty(plan.shape, np.float32) for plan in plans] if outs is None else list(outs)
    clips: list[Clip] = [WaveClip(plan, PLACE.address(out)) for plan, out in zip(plans, outs, strict=True)]
    return Batch(clips, outs, list(pcms))


def on_device(pcm: PcmSamples) -> PcmSamples:
    """The same samples where the kernels read them without a copy."""
    return replace(pcm, samples=PLACE.copied(pcm.bytes_on_host()))


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Features of any type; uint16 are bfloat16's bits."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
