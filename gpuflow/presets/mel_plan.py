"""One clip of so many samples under a spec, in numbers: what is computed, what is filled, what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from gpuflow.presets.mel import MelSpec


@dataclass(frozen=True, slots=True)
class MelPlan:
    """Frames ``[0, live)`` touch a sample of the clip and are computed. ``[live, framed)`` touch padding alone and get the
    level of silence, ``[framed, frames)`` are 0. All counts are before stacking but ``valid`` and ``shape``; of raw samples
    a frame is a sample, or ``frame_samples`` of them.

    ``samples``: how many of the clip's are used. ``padded``: with the spec's padding; the reflection mirrors at its ends.
    ``valid``: how many frames of the result are the clip's; ``valid_frames``: before stacking. ``shape``: of the features;
    one of its sides is 0 where the clip is too short for a frame, or to be reflected.
    """

    samples: int
    padded: int
    live: int
    framed: int
    frames: int
    valid: int
    shape: tuple[int, ...]
    valid_frames: int


def mel_plan(spec: MelSpec, num_samples: int) -> MelPlan:
    """The plan of one clip, or of one part of a clip that is split before its features are computed.

    Source: the feature extractors of transformers, at a batch of one.
    """
    samples = num_samples if spec.max_samples is None else min(num_samples, spec.max_samples)
    own = max(samples, spec.min_samples)
    padded = _padded(spec, own)
    if spec.kind == "raw":
        return _raw_plan(spec, samples, own, padded)
    framed = _framed(spec, padded)
    frames = -(-framed // spec.frame_multiple) * spec.frame_multiple
    valid = min(_valid(spec, own), framed)
    rows, bands = frames // spec.stack, spec.n_mels * (2 if spec.delta_window else 1) * spec.stack
    shape = (bands, rows) if spec.layout == "MT" else (rows, bands)
    live = _live(spec, samples, padded, framed)
    return MelPlan(samples, padded, live, framed, frames, valid // spec.stack, shape, valid)


def _raw_plan(spec: MelSpec, samples: int, own: int, padded: int) -> MelPlan:
    side = spec.frame_samples
    if not side:
        return MelPlan(samples, padded, samples, padded, padded, own, (padded,), own)
    live, valid, frames = (-(-count // side) for count in (samples, own, padded))
    return MelPlan(samples, padded, live, frames, frames, valid, (frames, side), valid)


def _padded(spec: MelSpec, own: int) -> int:
    if spec.pad_to == "fixed":
        return max(own, spec.pad_samples)
    if spec.pad_to == "multiple":
        return -(-own // spec.pad_samples) * spec.pad_samples
    if spec.pad_to == "frames":
        return max(own, (_stacked_up(spec, own) - 1) * spec.hop_length + 1)
    return own


def _stacked_up(spec: MelSpec, own: int) -> int:
    """Frames that have their middle within the clip, but for the last, rounded up to whole stacks."""
    return -(-(own // spec.hop_length) // spec.stack) * spec.stack


def _framed(spec: MelSpec, padded: int) -> int:
    if spec.pad_mode == "reflect" and padded <= max(spec.pad_left, spec.pad_right):
        return 0
    reach = spec.n_fft if spec.window_at == "centre" else spec.win_length + spec.frame_extra
    count = max(0, (padded + spec.pad_left + spec.pad_right - reach) // spec.hop_length + 1 - spec.drop_last)
    return min(count, _stacked_up(spec, padded)) if spec.pad_to == "frames" else count


def _live(spec: MelSpec, samples: int, padded: int, framed: int) -> int:
    """Frames that begin before the clip ends; all of them where the clip's end is mirrored."""
    if not samples:
        return 0
    if spec.pad_mode == "reflect" and samples >= padded - spec.pad_right:
        return framed
    return min(framed, (samples + spec.pad_left - 1) // spec.hop_length + 1)


def _valid(spec: MelSpec, samples: int) -> int:
    """By the spec's rule, of a clip of so many samples."""
    hop = spec.hop_length
    if spec.valid == "ceil_hop":
        return -(-samples // hop)
    if spec.valid == "floor_hop":
        return samples // hop
    if spec.valid == "floor_hop_p1":
        return samples // hop + 1
    last = spec.valid == "last_sample"
    reach = spec.win_length + (spec.frame_extra if last else 0)
    return max(0, (samples + (spec.pad_left if last else 0) - reach) // hop + 1)
