"""What a sampler is: what it knows of a clip, what is wished of it, what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpuflow.errors import InvalidOptions, LimitExceeded

MIN_FPS = 1e-6
MAX_CANDIDATES = 1_000_000  # a rule may look at more frames than it keeps; at no more than these


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """A clip as samplers see it: displayed frames, frames a second, seconds. ``pts_seconds``: when each is shown, after
    the first; only rules that go by time need it."""

    num_frames: int
    fps: float
    duration_seconds: float
    pts_seconds: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for, under the names of ``VideoOptions``."""

    num_frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the fields that are not ``None``."""
        return tuple(name for name in self.__slots__ if getattr(self, name) is not None)


Rule = Callable[[ClipFacts, Wish], list[int]]


@dataclass(frozen=True, slots=True)
class Sampler:
    """``takes``: the fields of ``Wish`` that the rule reads. ``source``: whose rule it is, and of which version.
    ``duration``: what that server takes for the clip's: frames over rate, or the time from its first to its last."""

    name: str
    source: str
    takes: tuple[str, ...]
    rule: Rule
    duration: Literal["frames", "clip"] = "frames"

    def check(self, wish: Wish) -> None:
        """Raise ``InvalidOptions`` for a field that the rule does not read."""
        ignored = [name for name in wish.given if name not in self.takes]
        if ignored:
            allowed = " and ".join(self.takes) or "no number"
            raise InvalidOptions(f"sampler {self.name!r} takes {allowed}; got {' and '.join(ignored)}")

    def choose(self, clip: ClipFacts, wish: Wish) -> list[int]:
        """Numbers of the frames among the displayed ones, as the server orders and repeats them.

        Raises:
            InvalidOptions: a field that the rule does not read; a wish that the server refuses, or that gives no frame.
            LimitExceeded: a rate that names more than a million frames.
        """
        self.check(wish)
        if clip.fps <= 0:
            raise InvalidOptions(f"sampler {self.name!r} needs the clip's frame rate, which is not known")
        if wish.fps is not None and wish.fps < MIN_FPS:
            raise InvalidOptions(f"fps is {MIN_FPS:g} or more for a sampler; got {wish.fps:g}")
        if wish.fps is not None and wish.fps * clip.duration_seconds > MAX_CANDIDATES:
            raise LimitExceeded(
                f"{wish.fps:g} frames a second of {clip.duration_seconds:g} s: more than {MAX_CANDIDATES}"
            )
        chosen = self.rule(clip, wish)
        if not chosen:
            raise InvalidOptions(f"sampler {self.name!r} chooses no frame of this clip")
        return chosen


def refuse_more_than(clip: ClipFacts, count: int) -> None:
    """Raise ``InvalidOptions`` where a server refuses to choose more frames than there are."""
    if count > clip.num_frames:
        raise InvalidOptions(
            f"{count} frames were asked for and the clip has {clip.num_frames}; this sampler repeats none"
        )


def require_frames(count: int) -> int:
    """``count``, if it is above 0: where it is not, the servers divide by it."""
    if count < 1:
        raise InvalidOptions("the clip is too short for this sampler: it would choose no frame")
    return count
