"""Clips laid out in host memory for the mel kernels, and what float64 numpy makes of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.kernels import Launch
from gpuflow.ops.mel_launch import launches
from gpuflow.ops.mel_records import CHUNK, CLIP, MelJob
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import mel_plan
from tests.kernels_host.building import HostTables
from tests.kernels_host.check_image_views import HostMemory
from tests.parity.mel_reference import reference

Run = Callable[[Launch], None]
UNWRITTEN = 77  # in every byte


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Samples, what becomes of them, and how the result lies: ``gap`` numbers behind each row, ``dtype``."""

    samples: NDArray[np.float32]
    spec: MelSpec
    dtype: str = "float32"
    gap: int = 0
    noise: NDArray[np.float32] | None = None


class Laid:
    """Clips with their launches and all that these read and write; ``run`` runs those of one kernel, or all."""

    def __init__(self, clips: Sequence[Clip], **options: Any) -> None:
        self.clips, self.outs = clips, [_out(clip) for clip in clips]
        self._memory, self._tables = HostMemory(), HostTables()
        jobs = [job_of(clip, out) for clip, out in zip(clips, self.outs, strict=True)]
        memory = {"upload": self._memory.upload, "scratch": self._memory.scratch}
        self.launches = launches(jobs, tables=self._tables, **memory, **options)

    def run(self, run: Run, name: str | None = None) -> None:
        """What was written is in ``outs``, ``levels`` and ``statistics`` then."""
        for launch in self.launches:
            if name in (None, launch.name):
                run(launch)

    @property
    def records(self) -> NDArray[Any]:
        """Of all clips, which must be one group; a view."""
        return _at(int(self.launches[0].arguments[0]), CLIP, len(self.clips))

    @property
    def maxima(self) -> NDArray[np.int32]:
        """Of each clip, as the kernels compare them; a view."""
        address = int(next(launch for launch in self.launches if len(launch.arguments) == 4).arguments[3])
        return _at(address, np.dtype(np.int32), len(self.clips))

    def levels(self, index: int) -> NDArray[np.float32]:
        """``(n_mels, live)``; a view."""
        clip = self.records[index]
        rows = _at(int(clip["levels"]), np.dtype(np.float32), int(clip["n_mels"] * clip["pitch"]))
        return rows.reshape(clip["n_mels"], -1)[:, : clip["live"]]

    def statistics(self, index: int) -> NDArray[np.float32]:
        """``(bands, chunks, 3)``; a view."""
        clip = self.records[index]
        rows = _at(int(clip["statistics"]), np.dtype(np.float32), int(3 * clip["n_mels"] * clip["chunks"]))
        return rows.reshape(clip["n_mels"], -1, 3)

    def features(self, index: int) -> NDArray[Any]:
        """As they were written, 16-bit ones as float32; the gaps must be as they were."""
        clip, out = self.clips[index], self.outs[index]
        inside = _inside(out, clip)
        if clip.gap:
            assert (out[..., -clip.gap :].view(np.uint8) == UNWRITTEN).all()
        return inside if clip.dtype != "bfloat16" else (inside.astype(np.uint32) << 16).view(np.float32)


def job_of(clip: Clip, out: NDArray[Any]) -> MelJob:
    """The clip's job on the host."""
    return MelJob(
        clip.samples.ctypes.data, clip.spec, mel_plan(clip.spec, len(clip.samples)), out.ctypes.data, out.strides, clip.dtype,
        0 if clip.noise is None else clip.noise.ctypes.data,
    )  # fmt: skip


def logs(clip: Clip) -> NDArray[np.float64]:
    """``(n_mels, framed)`` in float64: levels before they are clamped."""
    return reference(
        clip.samples,
        replace(
            clip.spec, clamp="none", scale=1.0, offset=0.0, bin_mean=(), bin_std=(), delta_window=0, normalize="none",
            zero_invalid=False, frame_multiple=1, stack=1, layout="MT", split="none", mask_name=None, mask_of="frames",
            sizes_name=None, tokens=None, norm_eps=0.0, eps_in_sqrt=False,
            pad_to="none" if clip.spec.pad_to == "frames" else clip.spec.pad_to,
        ),
    )  # fmt: skip


def linear(levels: Any, spec: MelSpec) -> NDArray[np.float64]:
    """What the levels are the logarithms of."""
    return np.asarray(np.exp(np.float64(levels) * (1.0 if spec.log == "ln" else np.log(10.0))))


def tone_and_noise(count: int, *, seed: int = 0, drop: bool = False, offset: float = 0.0) -> NDArray[np.float32]:
    """A tone in noise; ``drop``: the last two thirds 100 dB down; ``offset``: added to every sample."""
    random = np.random.default_rng((count, seed))
    made = 0.4 * np.sin(0.3 * np.arange(count) + seed) + 0.05 * random.normal(size=count)
    if drop:
        made[count // 3 :] *= 1e-5
    return (made + offset).astype(np.float32)


def _out(clip: Clip) -> NDArray[Any]:
    plan, spec = mel_plan(clip.spec, len(clip.samples)), clip.spec
    shape = plan.shape
    if spec.split == "after_mel":
        rows = shape[1 if spec.layout == "MT" else 0]
        parts = min(rows // spec.split_frames, spec.max_splits or rows)
        shape = (parts, shape[0], spec.split_frames) if spec.layout == "MT" else (parts, spec.split_frames, shape[1])
    dtype = np.dtype(np.uint16 if clip.dtype == "bfloat16" else clip.dtype)
    made = np.full((*shape[:-1], (shape[-1] + clip.gap) * dtype.itemsize), UNWRITTEN, np.uint8)
    return made.view(dtype)


def _inside(out: NDArray[Any], clip: Clip) -> NDArray[Any]:
    return out[..., : out.shape[-1] - clip.gap]


def _at(address: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    memory = (ctypes.c_uint8 * (dtype.itemsize * count)).from_address(address)
    return np.frombuffer(memory, dtype, count)


def chunked(values: NDArray[Any]) -> list[NDArray[Any]]:
    """A band's levels as the statistics take them."""
    return [values[first : first + CHUNK] for first in range(0, len(values), CHUNK)]
