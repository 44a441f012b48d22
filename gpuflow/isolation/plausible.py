"""Whether what a worker says can be true: its types were checked when it was decoded, its values are here.

A worker may have been taken over by what it decoded. Nothing is allocated, divided by, shown or used as a label before.
"""

from __future__ import annotations

import math
from itertools import pairwise

from gpuflow.codecs._backends.pyav_demux import CODECS, MAX_PACKETS
from gpuflow.codecs.base import MAX_NOMINAL_FPS, MIN_NOMINAL_FPS, ImageInfo, VideoInfo
from gpuflow.codecs.images import smaller
from gpuflow.config import Limits
from gpuflow.isolation import wire
from gpuflow.isolation.wire import AudioWanted, Disconnected

_BACKENDS = frozenset({"simplejpeg", "pillow", "pillow-heif", "pyav", "soundfile"})
_MATRICES = frozenset({"bt601", "bt709", "bt2020", "smpte240m", "fcc"})
_ROTATIONS = frozenset({0, 90, 180, 270})
_MAX_NAME = 40
_STREAMS_A_TRACK = 2  # as many as libavformat is allowed
_MORE_SECONDS = 1.0  # a section ends with a whole frame of the codec's


def check_pixels(found: wire.Pixels, info: ImageInfo, least_size: tuple[int, int] | None = None) -> None:
    """Raise ``Disconnected`` unless this can be the decoded image, whose header is known, or may be smaller."""
    divisor, name = smaller(info, least_size)
    _require(found.backend in _BACKENDS or (divisor > 1 and found.backend == name))
    if found.backend in _BACKENDS:
        divisor = 1
    _require((found.height, found.width) == (info.height // divisor, info.width // divisor))
    _require(found.channels in (3, 4))


def check_sound(found: wire.Sound, wanted: AudioWanted, limits: Limits) -> None:
    """Likewise of decoded audio."""
    origin = found.origin
    seconds = min(limits.max_audio_seconds, wanted.duration_seconds or math.inf)
    _require(min(found.shape) >= 1 and 4 * math.prod(found.shape) <= limits.max_pcm_bytes)
    _require(origin.backend in _BACKENDS and _is_name(origin.codec))
    _require(found.shape[0] == (1 if wanted.mono else origin.channels))
    _require(1 <= origin.channels <= limits.max_audio_channels)
    _require(found.shape[1] <= math.ceil((seconds + _MORE_SECONDS) * found.sample_rate))
    _require(wanted.max_samples is None or found.shape[1] <= wanted.max_samples)
    _require(limits.min_sample_rate_hz <= origin.sample_rate <= limits.max_sample_rate_hz)
    _require(found.sample_rate == (wanted.sample_rate or origin.sample_rate))
    _require(wanted.native or found.dtype == "float32")
    _require(0 <= origin.stream < origin.num_streams <= _STREAMS_A_TRACK * limits.max_tracks)
    _require(isinstance(wanted.stream, str) or origin.stream == (wanted.stream or 0))
    _require(math.isfinite(origin.begins_seconds) and 0.0 <= origin.filled_seconds <= seconds + _MORE_SECONDS)
    beside = wanted.zero_seconds is not None
    _require(not beside or abs(origin.begins_seconds - wanted.start_seconds) <= 1 / origin.sample_rate)


def check_clip(found: wire.Opened, limits: Limits) -> None:
    """Likewise of an opened clip."""
    info, times = found.info, found.pts_seconds
    _check_picture(info, limits)
    _require(len(times) == info.num_frames >= 1 and times[0] == 0.0)
    _require(all(earlier <= later for earlier, later in pairwise(times)))  # not true of NaN
    _require(math.isfinite(info.fps) and info.fps >= 0.0 and times[-1] <= info.duration_seconds)
    _require(info.duration_seconds <= limits.max_video_seconds and math.isfinite(info.origin_seconds))
    _require(info.nominal_fps == 0.0 or MIN_NOMINAL_FPS <= info.nominal_fps <= MAX_NOMINAL_FPS)
    keys = found.key_indices
    _require(all(0 <= index < len(times) for index in keys))
    _require(all(earlier < later for earlier, later in pairwise(keys)))


def check_plan(found: wire.Planned, wanted: set[int], limits: Limits) -> None:
    """Likewise of what is to be decoded for the frames ``wanted``."""
    segments = found.segments
    _require(all(0 <= segment.first <= segment.last < MAX_PACKETS for segment in segments))
    _require(all(earlier.last < later.first for earlier, later in pairwise(segments)))
    for segment in segments:
        places = [segment.first, *segment.skipped, segment.last + 1]
        _require(all(earlier < later for earlier, later in pairwise(places)))  # a keyframe is never left out
    _require(sum(segment.num_packets for segment in segments) <= limits.max_decoded_frames)
    _require(sorted(index for segment in segments for index in segment.targets.values()) == sorted(wanted))


def check_frame(found: wire.Frame, info: VideoInfo) -> tuple[int, int]:
    """Likewise of a frame in a slot that has room for one of the clip's size: its height and width."""
    _require(min(found.height, found.width) >= 1 and found.height * found.width <= info.height * info.width)
    return found.height, found.width


def check_table(found: wire.Table, num_packets: int) -> None:
    """Likewise of what the container says about so many packets."""
    _require(len(found.rows) == num_packets)


def check_pieces(found: wire.Payloads, span: tuple[int, int], room: int, *, begun: bool) -> int:
    """Likewise of pieces of packets that lie in a block: no empty ones, in their order, whole at the end. ``span``: the
    first and last position that may come; ``begun``: a piece of the first one came already. Returns their bytes."""
    used = sum(piece.nbytes for piece in found.pieces)
    _require(all(piece.nbytes > 0 for piece in found.pieces) and used <= room)
    positions = [span[0], *(piece.position for piece in found.pieces), span[1]]
    _require(all(earlier <= later for earlier, later in pairwise(positions)))
    _require(not begun or not found.pieces or found.pieces[0].position == span[0])
    _require(all(one.whole or one.position == other.position for one, other in pairwise(found.pieces)))
    _require(found.ended or bool(found.pieces))
    _require(not found.ended or (found.pieces[-1].whole if found.pieces else not begun))
    return used


def _check_picture(info: VideoInfo, limits: Limits) -> None:
    _require(min(info.width, info.height) >= 1 and max(info.width, info.height) <= limits.max_video_side)
    _require(info.width * info.height <= limits.max_video_pixels)
    _require(info.rotation in _ROTATIONS and info.matrix in _MATRICES and info.bit_depth in range(1, 17))
    _require(info.codec in CODECS and _is_name(info.chroma) and len(info.profile) <= _MAX_NAME)


def _is_name(text: str) -> bool:
    return len(text) <= _MAX_NAME and text.isascii() and text.isprintable()


def _require(possible: bool) -> None:
    if not possible:
        raise Disconnected("the worker says what cannot be")
