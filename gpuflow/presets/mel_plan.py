"""One clip of so many samples under a spec, in numbers: what is computed, what is filled, what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from gpuflow.presets.mel import MelSpec


@dataclass(frozen=True, slots=True)
class MelPlan:
    """Frames ``[0, live)`` touch a sample of the clip and are computed. ``[live, framed)`` touch padding alone and get the
    level of silence, ``[framed, frames)`` are 0. All counts are before stacking but ``valid`` and ``shape``.

    ``samples``: how many of the clip's are used. ``padded``: with the spec's padding; the reflection mirrors at its ends.
    ``valid``: how many frames of the result are the clip's. ``shape``: of the features.
    """

    samples: int
    padded: int
    live: int
    framed: int
    frames: int
    valid: int
    shape: tuple[int, ...]


def mel_plan(spec: MelSpec, num_samples: int) -> MelPlan:
    """The plan of one clip, or of one part of a clip that is split.

    Source: the feature extractors of transformers, at a batch of one.
    """
    samples = num_samples if spec.max_samples is None else min(num_samples, spec.max_samples)
    padded = _padded(spec, max(samples, spec.min_samples))
    framed = _framed(spec, padded)
    frames = -(-framed // spec.frame_multiple) * spec.frame_multiple
    live = min(framed, (samples + spec.pad_left - 1) // spec.hop_length + 1) if samples else 0
    if spec.pad_to == "none":
        live = framed
    valid = min(_valid(spec, max(samples, spec.min_samples)), framed)
    bands = spec.n_mels * (2 if spec.delta_window else 1) * spec.stack
    rows = frames // spec.stack
    shape = (bands, rows) if spec.layout == "MT" else (rows, bands)
    return MelPlan(samples, padded, live, framed, frames, valid // spec.stack, shape)


def _padded(spec: MelSpec, samples: int) -> int:
    if spec.pad_to == "fixed":
        return max(samples, spec.pad_samples)
    if spec.pad_to == "multiple":
        return -(-samples // spec.pad_samples) * spec.pad_samples
    return samples


def _framed(spec: MelSpec, padded: int) -> int:
    reach = spec.n_fft if spec.window_at == "centre" else spec.win_length + spec.frame_extra
    count = (padded + spec.pad_left + spec.pad_right - reach) // spec.hop_length + 1
    return max(0, count - spec.drop_last)


def _valid(spec: MelSpec, samples: int) -> int:
    """By the spec's rule, of a clip of so many samples."""
    hop = spec.hop_length
    if spec.valid == "ceil_hop":
        return -(-samples // hop)
    if spec.valid == "floor_hop":
        return samples // hop
    if spec.valid == "floor_hop_p1":
        return samples // hop + 1
    reach = spec.win_length + (spec.frame_extra if spec.valid == "last_sample" else 0)
    left = spec.pad_left if spec.valid == "last_sample" else 0
    return max(0, (samples + left - reach) // hop + 1)
