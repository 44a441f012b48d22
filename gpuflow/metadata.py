"""What is known of a medium besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """Facts of the decoded image; ``width`` and ``height`` as shown (orientation applied). ``region``: what was taken of
    it: (left, top, right, bottom); ``None`` is all."""

    format: str
    width: int
    height: int
    orientation: int = 1
    had_alpha: bool = False
    frame: int = 0
    num_frames: int = 1
    region: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class VideoMetadata:
    """Facts of the clip and of the frames taken from it; times in seconds after the first displayed frame.

    ``num_frames``: displayed ones. ``rotation`` and ``mirrored`` were applied. ``source_fps`` is of their times,
    ``nominal_fps`` the container's word (0: none, or one outside 0.01 .. 1000).
    ``keyframes``: whether each frame that was taken is one. ``missing_indices``: frames that were wanted and did not come
    out. ``corrupt_indices``: frames that were taken although libavcodec marks them as damaged and concealed, or a picture
    before them, since the last keyframe, that they may refer to and that was decoded on the way. Of valid streams there
    are none. That there are none does not prove a stream valid: libavcodec marks pictures of H.264 and MPEG-4, and not all;
    of those that NVDEC or DALI decoded it is unknown. ``sampler``: whose rule chose, if any. ``origin_seconds``: the
    container's own time of the first displayed frame.
    """

    codec: str
    width: int
    height: int
    num_frames: int
    source_fps: float
    duration_seconds: float
    frame_indices: tuple[int, ...]
    timestamps_seconds: tuple[float, ...]
    rotation: int = 0
    color_matrix: str = "bt601"
    color_range: str = "limited"
    bit_depth: int = 8
    mirrored: bool = False
    nominal_fps: float = 0.0
    keyframes: tuple[bool, ...] = ()
    missing_indices: tuple[int, ...] = ()
    sampler: str | None = None
    corrupt_indices: tuple[int, ...] = ()
    origin_seconds: float = 0.0

    def for_servers(self, video_backend: str = "gpuflow") -> dict[str, Any]:
        """What vLLM's loaders and transformers' ``VideoMetadata`` hold of these frames.

        ``do_sample_frames`` is true only where all frames were taken, as in vLLM: a processor that samples frames which
        were sampled already thins them out twice. Dynamo's frontend has the same facts as ``source_fps``,
        ``source_duration``, ``source_total_frames``, ``frames_indices`` and ``sampled_timestamps``.
        """
        fps = self.nominal_fps or self.source_fps
        return {
            "total_num_frames": self.num_frames,
            "fps": fps,
            "duration": self.num_frames / fps if fps else self.duration_seconds,
            "video_backend": video_backend,
            "frames_indices": list(self.frame_indices),
            "do_sample_frames": len(self.frame_indices) == self.num_frames,
        }


@dataclass(frozen=True, slots=True)
class AudioMetadata:
    """Facts of the decoded audio; ``channels`` and ``source_rate`` are the file's, ``sample_rate`` the result's. ``parts``:
    where ``AudioOptions.split`` cuts it: the first sample and the one behind the last of each. ``stream``: which of the
    container's ``num_streams`` audio streams it is.

    Sample ``n`` is heard at ``begins_seconds + n / sample_rate``, on the clock of a video's ``timestamps_seconds`` where the
    container has a video, else after the first sample of all. ``filled_seconds``: how much of the section is silence of ours,
    put where the container's times leave a gap, or, beside a video, before its sound begins: so that the rest stays in time.
    """

    codec: str
    channels: int
    source_rate: int
    sample_rate: int
    num_samples: int
    duration_seconds: float
    start_seconds: float = 0.0
    parts: tuple[tuple[int, int], ...] = ()
    stream: int = 0
    num_streams: int = 1
    begins_seconds: float = 0.0
    filled_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FeatureMetadata:
    """What the features were made of, by which preset or spec; ``valid_length`` is in frames (audio), those of all parts,
    or ``None``.

    ``parts``: of audio that was split, the first sample and the one behind the last of each part, at the spec's rate and
    after ``start_seconds``; ``valid_lengths``: the frames of each.
    """

    preset: str
    source: ImageMetadata | VideoMetadata | AudioMetadata
    valid_length: int | None = None
    num_tokens: int | None = None
    parts: tuple[tuple[int, int], ...] = ()
    valid_lengths: tuple[int, ...] = ()


Metadata = ImageMetadata | VideoMetadata | AudioMetadata | FeatureMetadata
