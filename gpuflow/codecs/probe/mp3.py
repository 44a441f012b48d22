"""What MP3 and ADTS files claim: their tags, their first frame, and the length that a Xing or VBRI header names.

Source: ISO 11172-3, ISO 13818-3 and -7; the Xing and VBRI headers as LAME's and Fraunhofer's encoders write them.
"""

from __future__ import annotations

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, seconds_of
from gpuflow.codecs.probe.id3 import skip_tags
from gpuflow.codecs.probe.mpeg import AudioFrame, adts_frame, is_adts, is_mpeg_audio, mpeg_frame
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_MAX_TRIES = 4_096  # sync bytes in what stands between the tags and the first frame
_XING_AT = {(True, False): 36, (True, True): 21, (False, False): 21, (False, True): 13}  # by MPEG-1?, mono?
_VBRI_AT = 36
_HAS_FRAMES = 1


def mp3_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The first frame behind all tags that another of its kind follows.

    Raises:
        CorruptMedia: a tag larger than the file, or no frame.
    """
    at = skip_tags(data)
    for _ in range(_MAX_TRIES):
        at = data.find(b"\xff", at)
        if at < 0:
            break
        if is_mpeg_audio(data, at) or (
            (frame := mpeg_frame(data, at)) and _claimed_frames(data, at, frame) is not None
        ):
            return _mp3(data, at)
        at += 1
    raise CorruptMedia("no MPEG audio frame follows the tags")


def adts_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The first frame. Its header has no length; nor has the file.

    Raises:
        CorruptMedia: a tag larger than the file, or no frame after it.
    """
    at = skip_tags(data)
    frame = adts_frame(data, at)
    if frame is None or not is_adts(data, at):
        raise CorruptMedia("the bytes are no ADTS frames")
    return ContainerClaims("aac", (TrackClaims("audio", "aac", sample_rate=frame.hertz, channels=frame.channels),))


def _mp3(data: bytes, at: int) -> ContainerClaims:
    frame = mpeg_frame(data, at)
    if frame is None:
        raise CorruptMedia("no MPEG audio frame follows the tags")
    frames = _claimed_frames(data, at, frame)
    samples = None if not frames else frames * frame.samples
    track = TrackClaims(
        "audio",
        f"mp{frame.layer}",
        sample_rate=frame.hertz,
        channels=frame.channels,
        num_samples=samples,
        duration_seconds=seconds_of(samples or 0, frame.hertz),
    )
    return ContainerClaims("mp3", (track,), track.duration_seconds)


def _claimed_frames(data: bytes, at: int, frame: AudioFrame) -> int | None:
    """How many frames a Xing, Info or VBRI header in the first one names; 0 where it does not say, ``None`` without one."""
    xing = at + _XING_AT[frame.is_mpeg1, frame.channels == 1]
    if data[xing : xing + 4] in (b"Xing", b"Info"):
        flags = int.from_bytes(data[xing + 4 : xing + 8], "big")
        return int.from_bytes(data[xing + 8 : xing + 12], "big") if flags & _HAS_FRAMES else 0
    vbri = at + _VBRI_AT
    if data[vbri : vbri + 4] == b"VBRI":
        return int.from_bytes(data[vbri + 14 : vbri + 18], "big")
    return None
