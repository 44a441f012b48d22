"""What a container claims, as values; and the limits on claims, applied before a demuxer is opened.

Claims are refused or passed on for information; nothing is ever allocated or divided by them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded
from gpuflow.media import Modality

Kind = Literal["video", "audio", "other"]


@dataclass(frozen=True, slots=True)
class TrackClaims:
    """One stream as its header describes it. 0, ``""`` or ``None``: it does not say.

    ``num_samples``: pictures, or samples of one audio channel where the format counts those. ``even_seconds``: of all its
    packets, where the tables say that each takes as long as the others, the last aside, and that one comes after another.
    """

    kind: Kind
    codec: str = ""
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    num_samples: int | None = None
    duration_seconds: float | None = None
    even_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ContainerClaims:
    """A container as its headers describe it. ``index_entries``: of all tracks, where it has such tables."""

    format: str
    tracks: tuple[TrackClaims, ...] = ()
    duration_seconds: float | None = None
    index_entries: int = 0

    def first(self, kind: str) -> TrackClaims | None:
        """The first track of a kind."""
        return next((track for track in self.tracks if track.kind == kind), None)

    def taken(self, kind: str, stream: int | str | None) -> TrackClaims | None:
        """The track of a kind at that place, the first by default; ``None`` of one that is named by its language."""
        of_kind = [track for track in self.tracks if track.kind == kind]
        place = stream or 0
        return of_kind[place] if isinstance(place, int) and 0 <= place < len(of_kind) else None


def check_claims(
    claims: ContainerClaims, wanted: Modality, until_seconds: float, limits: Limits, stream: int | str | None = None
) -> None:
    """Hold the claims to the limits: pictures of every track (to open a container is to decode some), rate, channels and
    seconds of what is wanted. ``stream``: its place among those of its kind; of one that is named only its decoder says.

    Raises:
        LimitExceeded: too many tracks, a picture too large, a rate, channels or seconds out of range.
    """
    check_count(len(claims.tracks), limits.max_tracks, "tracks", "max_tracks")
    for track in claims.tracks:
        check_size(track.width, track.height, limits)
    taken = claims.taken(wanted, stream)
    if taken is not None and wanted == "audio":
        check_sound(taken.sample_rate, taken.channels, limits)
    allowed = limits.max_audio_seconds if wanted == "audio" else limits.max_video_seconds
    if taken is not None and taken.duration_seconds is not None:
        seconds = min(taken.duration_seconds, until_seconds)
        if seconds > allowed:
            raise LimitExceeded(
                f"the {claims.format} claims {seconds:g} s of {wanted}; Limits.max_{wanted}_seconds is {allowed:g}"
            )


def check_size(width: int, height: int, limits: Limits) -> None:
    """Refuse a picture that is larger than allowed.

    Raises:
        LimitExceeded: too many pixels, or a side too long.
    """
    if max(width, height) > limits.max_video_side or width * height > limits.max_video_pixels:
        raise LimitExceeded(
            f"pictures of {width}x{height}; at most {limits.max_video_side} on a side and {limits.max_video_pixels} pixels are allowed"
        )


def check_sound(sample_rate: int, channels: int, limits: Limits) -> None:
    """Refuse a sample rate or a number of channels that is out of range; 0 is a header that does not say.

    Raises:
        LimitExceeded: either.
    """
    if sample_rate and not limits.min_sample_rate_hz <= sample_rate <= limits.max_sample_rate_hz:
        raise LimitExceeded(
            f"sample rate {sample_rate} Hz; Limits allows {limits.min_sample_rate_hz} .. {limits.max_sample_rate_hz} Hz"
        )
    if channels > limits.max_audio_channels:
        raise LimitExceeded(f"{channels} audio channels; Limits.max_audio_channels is {limits.max_audio_channels}")


def check_count(claimed: int, allowed: int, what: str, name: str = "") -> None:
    """Refuse a number that is larger than allowed, by the limit ``name`` or by what any sane file has.

    Raises:
        LimitExceeded: it is.
    """
    if claimed > allowed:
        rule = f"Limits.{name} is {allowed}" if name else f"{allowed} are allowed"
        raise LimitExceeded(f"the file claims {claimed} {what}; {rule}")


def check_room(claimed: int, room: int, what: str) -> None:
    """Refuse a table or an element that claims more bytes than there are: decoders allocate by such claims.

    Raises:
        CorruptMedia: it does.
    """
    if claimed > room:
        raise CorruptMedia(f"{what} claims {claimed} bytes where {room} are left")


def seconds_of(duration: float, per_second: float) -> float | None:
    """A duration in units of ``1 / per_second``; ``None`` where it is 0, endless or no number."""
    if not (per_second > 0 and math.isfinite(duration) and duration > 0):
        return None
    return duration / per_second


def longest(tracks: Iterable[TrackClaims]) -> float | None:
    """The longest claim among tracks."""
    return max((track.duration_seconds for track in tracks if track.duration_seconds is not None), default=None)
