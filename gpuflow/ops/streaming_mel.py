"""Mel features of sound that is still coming: chunks of any size in, the frames that they complete out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpuflow.errors import Closed, InvalidOptions
from gpuflow.ops.live_sound import LiveSound, Samples
from gpuflow.ops.mel_finish import to_logs, to_scale
from gpuflow.ops.mel_power import mel_power
from gpuflow.ops.mel_signal import conditioned
from gpuflow.ops.mel_tables import reach
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import mel_plan
from gpuflow.presets.mel_specs import mel_spec
from gpuflow.values import shown


class StreamingMel:
    """The features of one live source, frame by frame, bit for bit those of the whole clip on the CPU.

    ::

        mel = gpuflow.StreamingMel("voxtral-realtime", sample_rate=48_000, channels=2)
        for chunk in microphone:  # (2, n), float32 in -1..1 or int16
            encoder.feed(mel.push(chunk))  # (128, frames), none to many
        encoder.feed(mel.finish())

    Taken are specs whose frames do not depend on what comes after them: ``voxtral-realtime``, ``nemotron-streaming``,
    ``gemma3n``, ``gemma4``, ``phi4-multimodal``, ``lasr`` and the like; not those that clamp to the clip's maximum
    (Whisper), normalise over the clip (Parakeet), dither by its length, stack frames or pad to a fixed length. A frame comes
    with the last sample that it needs: 12 ms of sound after its middle with Whisper's window. A stream does not end at the
    spec's ``max_samples``: offline features are cut off there, these go on.

    A source of another rate goes through soxr's own stream, bit for bit what resampling the whole clip gives, in blocks:
    its samples come 6 to 57 ms late, from 8 kHz up to 115. Several channels become their mean first. Kept are less than a
    window and a hop of samples, and the resampler's state, however long the stream. A chunk of 10 ms takes some 60 us on
    one core of a two-core machine. Not thread-safe: one source, one thread at a time.

    Args:
        spec: its name, or a ``MelSpec``.
        sample_rate: of what is pushed, in Hz; ``None``: the spec's.
        channels: of what is pushed.

    Raises:
        InvalidOptions: a spec whose frames depend on the whole clip, or a rate or number of channels beyond ``Limits``'
            defaults.
    """

    def __init__(self, spec: str | MelSpec, *, sample_rate: int | None = None, channels: int = 1) -> None:
        self.spec = _streamable(mel_spec(spec) if isinstance(spec, str) else spec)
        rate = self.spec.sample_rate
        self._sound = LiveSound(rate if sample_rate is None else sample_rate, channels=channels, to_hz=rate)
        self._num_samples = 0  # at the spec's rate
        self._num_frames = 0
        self._last = np.zeros(1, np.float32)  # what pre-emphasis sees before the next sample
        self._padded: Samples = np.zeros(0, np.float32)  # of the clip with its padding, from ``_origin`` on
        self._origin = 0
        self._opened = False
        self._finished = False

    @property
    def num_frames(self) -> int:
        """Frames that came out."""
        return self._num_frames

    def push(self, samples: Any) -> Samples:
        """The frames that these samples complete: ``(n_mels, frames)`` float32, ``(frames, n_mels)`` where the spec's
        layout is ``"TM"``; new memory. A chunk that is refused changes nothing.

        Args:
            samples: ``(n,)``, or ``(channels, n)``, float32 or int16, which is divided by 32,768; ``n`` may be 0.

        Raises:
            InvalidOptions: another shape or type.
            CorruptMedia: a sample is no finite number, or far beyond -1..1.
            Closed: the stream was finished.
        """
        self._require_open()
        self._take(self._sound.take(samples))
        return self._frames(self._complete())

    def finish(self) -> Samples:
        """The frames that the end of the clip completes, padded as the spec pads it.

        Raises:
            Closed: the stream was finished already.
        """
        self._require_open()
        self._finished = True
        self._take(self._sound.finish())
        plan = mel_plan(self.spec, self._num_samples)
        self._take(np.zeros(max(0, self.spec.min_samples - self._num_samples), np.float32))
        self._close(plan.padded - self._num_samples)
        first = self._num_frames
        frames = self._frames(plan.framed, zeros=plan.frames - plan.framed)
        if self.spec.zero_invalid:
            self._by_time(frames)[max(0, plan.valid - first) :] = 0
        self._padded = np.zeros(0, np.float32)
        return frames

    def _require_open(self) -> None:
        if self._finished:
            raise Closed("the stream was finished: its last frames are out; make another for the next source")

    def _take(self, samples: Samples) -> None:
        """Behind what came already: scaled, pre-emphasised."""
        if not len(samples):
            return
        self._num_samples += len(samples)
        behind_last = np.concatenate([self._last, samples])
        self._last = samples[-1:].copy()
        self._padded = np.concatenate([self._padded, conditioned(behind_last, self.spec)[1:]])
        self._open()

    def _open(self) -> None:
        """Put the padding before the first sample, as soon as what it mirrors is here."""
        left = self.spec.pad_left
        if self._opened or (self.spec.pad_mode == "reflect" and len(self._padded) <= left):
            return
        self._opened = True
        before = self._padded[left:0:-1] if self.spec.pad_mode == "reflect" else np.zeros(left, np.float32)
        self._padded = np.concatenate([before, self._padded])

    def _close(self, zeros: int) -> None:
        """Put the padding behind the last sample."""
        self._padded = np.concatenate([self._padded, np.zeros(zeros, np.float32)])
        self._open()
        right = self.spec.pad_right
        after = self._padded[-2 : -2 - right : -1] if self.spec.pad_mode == "reflect" else np.zeros(right, np.float32)
        self._padded = np.concatenate([self._padded, after])

    def _complete(self) -> int:
        """How many frames of the clip are known, whatever comes next."""
        if not self._opened:
            return 0
        spec, plan = self.spec, mel_plan(self.spec, self._num_samples)
        complete = (self._origin + len(self._padded) - reach(spec)) // spec.hop_length + 1
        return max(self._num_frames, min(complete, plan.framed, plan.valid if spec.zero_invalid else complete))

    def _frames(self, until: int, *, zeros: int = 0) -> Samples:
        """Compute frames up to ``until``, and forget the samples that no later frame needs; ``zeros`` frames follow."""
        spec, count = self.spec, max(0, until - self._num_frames)
        rows = count + zeros
        frames = np.zeros((rows, spec.n_mels) if spec.layout == "TM" else (spec.n_mels, rows), np.float32)
        if count:
            begin = self._num_frames * spec.hop_length - self._origin
            levels = np.empty((spec.n_mels, count), spec.precision)
            mel_power(self._padded[begin:], spec, first=0, count=count, out=levels)
            to_logs(levels, spec)
            to_scale(levels, spec, spec.fixed_max)
            self._by_time(frames).T[:, :count] = levels
            self._num_frames += count
            self._forget()
        self._num_frames += zeros
        return frames

    def _forget(self) -> None:
        """Keep what the next frame begins with, and what the end of the clip may mirror."""
        end = self._origin + len(self._padded)
        first = min(self._num_frames * self.spec.hop_length, end)
        if self.spec.pad_mode == "reflect":
            first = min(first, end - self.spec.pad_right - 1)
        if first > self._origin:
            self._padded = self._padded[first - self._origin :].copy()
            self._origin = first

    def _by_time(self, frames: Samples) -> Samples:
        return frames if self.spec.layout == "TM" else frames.T


def _streamable(spec: MelSpec) -> MelSpec:
    if not isinstance(spec, MelSpec):
        raise InvalidOptions(f"spec is the name of a mel spec or a MelSpec; got {shown(spec)}")
    reasons = {
        "its features are raw samples": spec.kind != "mel",
        "it clamps to the loudest frame of the clip": spec.clamp == "clip_max",
        "it normalises over the clip": spec.normalize != "none",
        "its dither depends on the clip's length": spec.dither != 0,
        "its deltas see frames on both sides": spec.delta_window != 0,
        "it stacks frames": spec.stack != 1,
        "it pads to a fixed length": spec.pad_to not in ("none", "multiple"),
        "it splits long clips": spec.split != "none",
    }
    for reason, holds in reasons.items():
        if holds:
            raise InvalidOptions(f"{spec.name} has no features of a live stream: {reason}; load the whole clip")
    return replace(spec, max_samples=None)
