"""What every codec backend is: a name, a device, what it can do here, and one decode call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gpuflow.device import Capability as Capability
from gpuflow.errors import GpuflowError, UnsupportedFormat
from gpuflow.media import Modality
from gpuflow.planes import Planes

Guard = Callable[[], AbstractContextManager[None]]
"""What calls of a GPU decoder run inside; ``gpuflow.codecs.canary``."""


MIN_NOMINAL_FPS, MAX_NOMINAL_FPS = 0.01, 1000.0  # what a container claims outside is taken for none


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a backend takes this very input, and why not."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class MediaType:
    """What the first bytes say: ``name`` is ours (``"jpeg"``, ``"mp4"``, ...), ``format`` FFmpeg's demuxer."""

    name: str
    modality: Modality
    format: str = ""


Color = Literal["rgb", "gray", "palette", "ycbcr", "cmyk", "ycck"]


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts from an image's header alone; ``width`` and ``height`` as shown (orientation applied).

    ``channels`` counts alpha, and of a palette what its entries have. ``bit_depth``: of a stored sample, or of a number
    of a palette's entry. ``color``: how colours are stored; ``chroma``: how often, as ``"420"``, where ``color`` has any.
    ``num_frames``: frames, or of a TIFF pages, which have facts of their own: these are of the page that was asked for.
    ``icc``: a colour profile is there; it is not applied.
    """

    format: str
    width: int
    height: int
    channels: int = 3
    bit_depth: int = 8
    orientation: int = 1
    has_alpha: bool = False
    num_frames: int = 1
    progressive: bool = False
    color: Color = "rgb"
    chroma: str = ""
    icc: bool = False

    @property
    def animated(self) -> bool:
        """Whether its frames follow each other in time; pages do not."""
        return self.num_frames > 1 and self.format != "tiff"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """``(H, W, 3)`` before the orientation is applied."""
        height, width = (self.width, self.height) if self.orientation > 4 else (self.height, self.width)
        return height, width, 3


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts of a video stream; ``width`` and ``height`` as coded. What is shown is mirrored left to right where
    ``mirrored``, then turned by ``rotation`` degrees counter-clockwise. Pixels that are not square are left as they are,
    as FFmpeg's tools leave them. ``fps`` is of the displayed frames' times, ``nominal_fps`` the container's word, which
    servers go by; 0 where it has none between ``MIN_NOMINAL_FPS`` and ``MAX_NOMINAL_FPS``. ``origin_seconds``: the container's
    time of the first displayed frame."""

    codec: str
    width: int
    height: int
    num_frames: int
    fps: float
    duration_seconds: float
    rotation: int = 0
    matrix: str = "bt601"
    full_range: bool = False
    bit_depth: int = 8
    chroma: str = "420"
    profile: str = ""
    mirrored: bool = False
    interlaced: bool = False
    nominal_fps: float = 0.0
    origin_seconds: float = 0.0

    @property
    def displayed_size(self) -> tuple[int, int]:
        """``(height, width)`` after rotation."""
        return (self.width, self.height) if self.rotation % 180 else (self.height, self.width)


def check_same_size(info: VideoInfo, size: tuple[int, int], wanted: Sequence[int]) -> None:
    """Refuse a picture of the displayed ``size`` where one of ``wanted[:2]`` is to be written.

    Raises:
        UnsupportedFormat: they differ.
    """
    if size != tuple(wanted[:2]):
        (height, width), (other_height, other_width) = info.displayed_size, size
        raise UnsupportedFormat(
            f"the picture size changes from {width}x{height} to {other_width}x{other_height} within the clip: give a size, "
            "to which every picture is resized"
        )


class ImageDecoder(Protocol):
    """Bytes of one image to RGB."""

    name: str
    device: Literal["cpu", "cuda"]

    def capability(self) -> Capability: ...

    def supports(self, info: ImageInfo) -> Support: ...

    def decode(self, data: bytes, info: ImageInfo, *, frame: int = 0, out: Any = None) -> Any:
        """``(H, W, 3)`` or ``(H, W, 4)`` uint8, orientation applied; alpha is kept where the image has it.

        With ``out`` (a numpy or CuPy view of that shape) the pixels are written there and ``out`` is returned;
        without it the array is the backend's own (CPU backends only). Raises ``CorruptMedia``.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One image of a batch. ``out``: ``(H, W, 3)`` uint8, numpy or CuPy, where it is written as it is stored: the
    orientation is not applied."""

    data: bytes
    info: ImageInfo
    out: Any


class BatchDecoder(Protocol):
    """Bytes of many images to RGB, in one call."""

    name: str

    def obstacle(self, info: ImageInfo) -> str | None:
        """Why it does not take such an image here; ``None`` where it does."""
        ...

    def decode_batch(self, jobs: Sequence[Encoded]) -> list[GpuflowError | None]:
        """Decode each into its place; when it returns the pixels are there. What a job's image failed with, or ``None``:
        one that fails harms no other.

        Raises:
            DeviceLost: the GPU's context is lost.
        """
        ...


class Surface(Protocol):
    """One decoded picture, valid only inside ``FrameSink.put``."""

    @property
    def displayed_size(self) -> tuple[int, int]:
        """``(height, width)`` of this picture, which need not be that of the clip's first."""
        ...

    @property
    def corrupt(self) -> bool:
        """Whether the decoder says that it, or what it may refer to, was damaged; false where a decoder does not say."""
        ...

    def planes(self) -> Planes | None:
        """It as it lies in memory, for the kernel of a GPU; ``None`` where it is nothing that the kernel takes.

        Raises:
            UnsupportedFormat: it is not of the clip's kind, and cannot be read.
        """
        ...

    def rgb_into(self, out: Any) -> None:
        """Write the displayed picture (matrix, range and rotation applied) to ``(H, W, 3)`` uint8 of its size."""
        ...


class FrameSink(Protocol):
    """Takes pictures as they are decoded, in any order, from any thread."""

    def put(self, index: int, surface: Surface) -> None: ...


class PCM(Protocol):
    """Decoded audio: ``samples`` is ``(channels, samples)`` float32, C-contiguous numpy."""

    samples: Any
    sample_rate: int
    codec: str


class Deadline(Protocol):
    """Checked between packets; ``check()`` raises ``DeadlineExceeded`` when the time is over or the work unwanted."""

    def check(self) -> None: ...
