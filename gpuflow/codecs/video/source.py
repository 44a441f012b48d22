"""A clip that is opened: its packets, its displayed frames, its facts, and the plan for wanted frames."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise

from gpuflow.codecs._backends import pyav, pyav_demux
from gpuflow.codecs.base import MAX_NOMINAL_FPS, MIN_NOMINAL_FPS, Deadline, MediaType, VideoInfo
from gpuflow.codecs.probe import container_claims
from gpuflow.codecs.probe.claims import check_size
from gpuflow.codecs.video.plan import DecodePlan, display_order, plan_by_count, plan_by_time
from gpuflow.codecs.video.references import role_reader
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat

_FALLBACK_FPS = 25.0


class PacketSource:
    """``open`` one; then ``info``, ``pts_seconds``, ``key_indices`` and ``plan`` are facts of its packets, not of its
    header.

    ``pts_seconds``: when each displayed frame appears, ascending, in seconds after the first one. ``key_indices``: which
    of them are keyframes. ``sequential``: the packets' times do not name pictures, so the clip was decoded through once
    and frames are counted.
    """

    def __init__(
        self,
        demuxed: pyav_demux.Demuxed,
        info: VideoInfo,
        order: Sequence[int] | None,
        pts: list[float],
        key_indices: tuple[int, ...] = (),
    ) -> None:
        self.demuxed = demuxed
        self.info = info
        self.pts_seconds = pts
        self.key_indices = key_indices
        self._order = order

    @property
    def sequential(self) -> bool:
        """Whether only decoding from the first packet on finds frames."""
        return self._order is None

    @classmethod
    def open(cls, data: bytes, kind: MediaType, *, limits: Limits, deadline: Deadline) -> PacketSource:
        """Read a clip's packets; decode one picture for its colour and rotation.

        Raises:
            CorruptMedia: it cannot be read, or shows no picture.
            UnsupportedFormat: a codec that is not on the list.
            NoSuchStream: no video stream.
            LimitExceeded: larger, longer or with larger tables than ``limits`` allows.
            DeadlineExceeded: the time is over.
        """
        if not kind.format or kind.modality == "image":
            raise UnsupportedFormat(f"{kind.name} is no container of video")
        claimed = container_claims(data, kind, limits, wanted="video").first("video")
        demuxed = pyav_demux.demux(
            data, kind, limits=limits, deadline=deadline, claimed_codec=claimed.codec if claimed is not None else ""
        )
        return cls.of(demuxed, limits=limits, deadline=deadline)

    @classmethod
    def of(cls, demuxed: pyav_demux.Demuxed, *, limits: Limits, deadline: Deadline) -> PacketSource:
        """The clip whose packets were read; raises as ``open``."""
        facts = pyav.first_picture(demuxed)
        check_size(facts.width, facts.height, limits)
        order = None if demuxed.order_unknown else display_order(demuxed.rows)
        if order is None:
            surveyed = pyav.survey(demuxed, limits=limits, deadline=deadline)
            told: list[int | None] = [at for at, _ in surveyed]
            pts, keys = _surveyed_times(demuxed, told), [key for _, key in surveyed]
        else:
            known = [demuxed.rows[position].pts or 0 for position in order]
            told, pts = [*known], _seconds(demuxed, known)
            keys = [demuxed.rows[position].key for position in order]
        if not pts:
            raise CorruptMedia("the clip shows no picture: its packets are all cut away or cannot be decoded")
        duration = pts[-1] + _last_seconds(demuxed, order, pts)
        if duration > limits.max_video_seconds:
            raise LimitExceeded(f"{duration:g} s of video; Limits.max_video_seconds is {limits.max_video_seconds:g}")
        shown_keys = tuple(index for index, key in enumerate(keys) if key)
        info = _describe(demuxed, facts, pts, duration, origin_seconds=_origin_seconds(demuxed, told))
        return cls(demuxed, info, order, pts, shown_keys)

    def plan(self, indices: Iterable[int], *, limits: Limits) -> DecodePlan:
        """What to decode for these displayed frames.

        Raises:
            LimitExceeded: more packets than ``Limits.max_decoded_frames``.
        """
        if self._order is None:
            plan = plan_by_count(len(self.demuxed.packets), indices)
        else:
            plan = plan_by_time(self.demuxed.rows, self._order, indices)
            # of a file that is still coming, segments are thinned when their packets are here
            read = role_reader(self.demuxed.codec, self.demuxed.extradata or b"")
            if read is not None and self.demuxed.arrival is None:
                packets = self.demuxed.packets
                plan = plan.thinned(self.demuxed.rows, lambda position: read(memoryview(packets[position])))
        if plan.num_packets > limits.max_decoded_frames:
            raise LimitExceeded(
                f"{plan.num_packets} pictures would have to be decoded; Limits.max_decoded_frames is {limits.max_decoded_frames}"
            )
        return plan


def _describe(
    demuxed: pyav_demux.Demuxed, facts: pyav.PictureFacts, pts: list[float], duration: float, *, origin_seconds: float
) -> VideoInfo:
    return VideoInfo(
        codec=demuxed.codec,
        width=facts.width,
        height=facts.height,
        num_frames=len(pts),
        fps=(len(pts) - 1) / pts[-1] if pts[-1] > 0 else (1 / duration if duration > 0 else 0.0),
        duration_seconds=duration,
        rotation=facts.rotation,
        mirrored=facts.mirrored,
        interlaced=facts.interlaced,
        matrix=facts.matrix,
        full_range=facts.full_range,
        bit_depth=facts.bit_depth,
        chroma=facts.chroma,
        profile=facts.profile,
        nominal_fps=_nominal_fps(demuxed),
        origin_seconds=origin_seconds,
    )


def _nominal_fps(demuxed: pyav_demux.Demuxed) -> float:
    """The claimed rate, if it is sane; else 0."""
    return demuxed.claimed_rate if MIN_NOMINAL_FPS <= demuxed.claimed_rate <= MAX_NOMINAL_FPS else 0.0


def _seconds(demuxed: pyav_demux.Demuxed, pts: Sequence[int]) -> list[float]:
    base = demuxed.time_base
    # integers divided once: the float nearest to the true time, so that i / 30 written elsewhere compares equal
    return [(value - pts[0]) * base.numerator / base.denominator for value in pts]


def _origin_seconds(demuxed: pyav_demux.Demuxed, pts: Sequence[int | None]) -> float:
    """The container's time of the first picture that has one."""
    first = next((value for value in pts if value is not None), 0)
    return first * demuxed.time_base.numerator / demuxed.time_base.denominator


def _surveyed_times(demuxed: pyav_demux.Demuxed, pts: Sequence[int | None]) -> list[float]:
    """Times of pictures that were counted: their own where they all rise, else at the claimed rate, if it is sane."""
    known = [value for value in pts if value is not None]
    told = len(known) == len(pts) and (len(pts) == 1 or len(set(known)) > 1)
    if told and known == sorted(known):
        return _seconds(demuxed, known)
    fps = _nominal_fps(demuxed) or _FALLBACK_FPS
    return [index / fps for index in range(len(pts))]


def _last_seconds(demuxed: pyav_demux.Demuxed, order: Sequence[int] | None, pts: list[float]) -> float:
    """How long the last frame stays: its packet's duration, or the usual distance of frames where none is given."""
    base = demuxed.time_base
    claimed = demuxed.rows[order[-1]].duration if order else 0
    if claimed > 0:
        return claimed * base.numerator / base.denominator
    if len(pts) < 2:
        return 1 / _FALLBACK_FPS
    return statistics.median(later - earlier for earlier, later in pairwise(pts))
