"""Clips to measure with: moving noise over a scene, every frame numbered, made by real encoders once and kept."""

from __future__ import annotations

import functools
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._priority import never_real_time
from gpuflow.demo import samples

FPS = 30
KEPT = Path(tempfile.gettempdir()) / "gpuflow-benchmark-clips"
_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "bf": "3"},
    "libx265": {"preset": "ultrafast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12"},
}
NAMES = {"libx264": "H.264", "libx265": "HEVC", "libvpx-vp9": "VP9", "libsvtav1": "AV1"}


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """What a clip is encoded as."""

    codec: str
    width: int
    height: int
    gop: int
    seconds: float

    @property
    def num_frames(self) -> int:
        """Frames at ``FPS``."""
        return round(self.seconds * FPS)

    @property
    def container(self) -> str:
        """PyAV's name of the container."""
        return "webm" if self.codec == "libvpx-vp9" else "mp4"

    def __str__(self) -> str:
        return f"{NAMES[self.codec]} {self.width}x{self.height}, GOP {self.gop}"


def clip(spec: ClipSpec) -> bytes:
    """The encoded clip, 4 Mbit/s; made once a machine."""
    path = KEPT / f"{spec.codec}-{spec.width}x{spec.height}-{spec.gop}-{spec.seconds:g}s.{spec.container}"
    if not path.exists():
        KEPT.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(_encode(spec))
        part.rename(path)
    return path.read_bytes()


def number(frame: Any) -> int:
    """The number that was written into a frame, ``(H, W, 3)``."""
    side = frame.shape[1] // 32
    row, columns = frame.shape[0] - side // 2, [side // 2 + side * bit for bit in range(samples.CODE_BITS)]
    return sum(int(frame[row, column].mean() > 127) << bit for bit, column in enumerate(columns))


def _encode(spec: ClipSpec) -> bytes:
    import av

    never_real_time()
    options = {"g": str(spec.gop)} | _OPTIONS[spec.codec]
    if spec.codec == "libx265":
        options["x265-params"] = f"log-level=none:keyint={spec.gop}:open-gop={int(spec.gop == 30)}"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=spec.container) as container:
        stream = container.add_stream(spec.codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = spec.width, spec.height, "yuv420p", 4_000_000
        scene = _texture(spec.width * 2, spec.height)
        for index in range(spec.num_frames):
            picture = scene[:, index * 5 % spec.width :][:, : spec.width].copy()
            _stamp(picture, index)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@functools.cache
def _texture(width: int, height: int) -> Any:
    """Noise whose amplitude falls with frequency, as in photographs."""
    rng = np.random.default_rng(1)
    total = np.zeros((height, width, 3))
    for octave in range(6):
        step = 2**octave
        coarse = rng.normal(0, 6 * step**0.8, (-(-height // step), -(-width // step), 3))
        total += coarse.repeat(step, 0).repeat(step, 1)[:height, :width]
    return (128 + total).clip(0, 255).astype(np.uint8)


def _stamp(picture: Any, index: int) -> None:
    side = picture.shape[1] // 32
    for bit in range(samples.CODE_BITS):
        picture[-side:, bit * side : (bit + 1) * side] = 255 * (index >> bit & 1)
