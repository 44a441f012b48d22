"""All tensors of one clip under a mel spec, in names, types and shapes, with the parts that it is cut into."""

from __future__ import annotations

from dataclasses import dataclass

from gpuflow.errors import InvalidOptions, NoSuchStream
from gpuflow.presets.audio_tokens import num_tokens
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_plan import MelPlan, mel_plan

Parts = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """``parts``: the first sample and the one behind the last of each. ``plans``: one of each part, or of the whole clip
    where features are cut behind the mel (``split="after_mel"``). ``in_parts``: whether tensors have a first axis of parts.

    ``tensors``: name to type and shape, without the batch axis, the features first. ``valid_lengths``: rows of each part
    that hold the clip. ``num_tokens``: places in a prompt, of the whole clip.
    """

    spec: MelSpec
    parts: Parts
    plans: tuple[MelPlan, ...]
    in_parts: bool
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    valid_lengths: tuple[int, ...]
    num_tokens: int | None

    @property
    def dtype(self) -> str:
        """Of the features."""
        return self.tensors[self.spec.features_name][0]


def clip_plan(spec: MelSpec, num_samples: int, *, parts: Parts | None = None, dtype: str = "float32") -> ClipPlan:
    """The plan of a clip of so many samples at the spec's rate.

    Args:
        parts: where it is cut; ``None``: where the spec's own rule cuts it. Parts of a spec that does not split are clips
            of their own, and the tensors have a first axis of parts.
        dtype: of the features.

    Raises:
        NoSuchStream: a part is too short for a frame.
        InvalidOptions: parts of a clip whose features are cut behind the mel.
    """
    if parts is not None and spec.split == "after_mel":
        raise InvalidOptions(f"{spec.name} cuts features, not sound: leave split out")
    in_parts = parts is not None or spec.split != "none"
    cut = _own_parts(spec, num_samples) if parts is None else parts
    plans = (mel_plan(spec, num_samples),) if spec.split == "after_mel" else tuple(
        mel_plan(spec, last - first) for first, last in cut
    )  # fmt: skip
    _require_frames(spec, plans)
    valid = _valid_lengths(spec, plans, len(cut))
    tokens = _num_tokens(spec, valid)
    tensors = _tensors(spec, plans, (len(cut),) if in_parts else (), tokens, dtype)
    return ClipPlan(spec, cut, plans, in_parts, tensors, valid, tokens)


def _own_parts(spec: MelSpec, num_samples: int) -> Parts:
    """Where its own rule cuts a clip, as far as the clip's length alone says."""
    count = num_samples if spec.most_samples is None else min(num_samples, spec.most_samples)
    size = spec.split_frames * spec.hop_length
    if spec.split in ("none", "quietest") or count <= size:
        return ((0, count),)
    return tuple((first, min(first + size, count)) for first in range(0, count, size))


def _require_frames(spec: MelSpec, plans: tuple[MelPlan, ...]) -> None:
    for plan in plans:
        if 0 in plan.shape or (spec.normalize == "feature" and not plan.valid_frames):
            raise NoSuchStream(
                f"{plan.samples} samples at {spec.sample_rate} Hz are too short for a frame of {spec.name}"
            )


def _valid_lengths(spec: MelSpec, plans: tuple[MelPlan, ...], num_parts: int) -> tuple[int, ...]:
    if spec.split != "after_mel":
        return tuple(plan.valid for plan in plans)
    before = (part * spec.split_frames for part in range(num_parts))
    return tuple(max(0, min(spec.split_frames, plans[0].valid - frames)) for frames in before)


def _num_tokens(spec: MelSpec, valid: tuple[int, ...]) -> int | None:
    """Parts that the spec makes are one clip's; others are clips of their own."""
    if spec.split != "none":
        return num_tokens(spec, valid)
    counts = [num_tokens(spec, (frames,)) for frames in valid]
    return None if spec.tokens is None else sum(count or 0 for count in counts)


def _tensors(
    spec: MelSpec, plans: tuple[MelPlan, ...], axis: tuple[int, ...], tokens: int | None, dtype: str
) -> dict[str, tuple[str, tuple[int, ...]]]:
    at = row_axis(spec)
    rows = spec.split_frames if spec.split == "after_mel" else max(plan.shape[at] for plan in plans)
    shape = tuple(rows if side == at else length for side, length in enumerate(plans[0].shape))
    made = {spec.features_name: (dtype, (*axis, *shape))}
    if spec.mask_name is not None:
        made[spec.mask_name] = (spec.mask_dtype, (tokens or 0,) if spec.mask_of == "tokens" else (*axis, rows))
    if spec.sizes_name is not None:
        made[spec.sizes_name] = ("int64", (1,))
    return made


def row_axis(spec: MelSpec) -> int:
    """Which axis of the features of one part counts their frames."""
    return 1 if spec.kind == "mel" and spec.layout == "MT" else 0
