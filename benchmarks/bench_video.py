"""Video bytes to K sampled RGB frames: gpuflow's packet plan against the readers that servers use today.

    python -m benchmarks.bench_video [--rounds N] [--quick] [--device cuda]

All start from the same bytes in memory and end with the same K frames as (K, H, W, 3) uint8; the frame numbers in the
pictures are checked. "PyAV decode-all" keeps the wanted frames while it decodes everything, as Dynamo's frontend does.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from gpuflow.config import VideoOptions
from gpuflow.demo import samples
from gpuflow.flow.sync import SyncFlow

FPS = 30


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    if wanted.quick:
        clips = [("libx264", 320, 180, 30, 2.0, 4)]
    else:
        clips = [
            ("libx264", 1280, 720, 30, 20.0, 16),
            ("libx264", 1280, 720, 250, 20.0, 16),
            ("libx264", 1920, 1080, 30, 20.0, 16),
            ("libx265", 1280, 720, 250, 20.0, 16),
            ("libvpx-vp9", 1280, 720, 250, 20.0, 16),
        ]
    with SyncFlow(device=wanted.device) as flow:
        rows = [_row(flow, *clip) for clip in clips]
        measured = measure(rows, rounds=wanted.rounds)
        print(
            save("video", measured, out=wanted.out, device=flow.flow.device.name, note="bytes in memory to RGB frames")
        )


def _row(flow: SyncFlow, codec: str, width: int, height: int, gop: int, seconds: float, count: int) -> Row:
    data = encode(codec, width, height, gop, seconds)
    total = round(seconds * FPS)
    indices = [round(i) for i in np.linspace(0, total - 1, count)]

    def ours() -> Any:
        with flow.load(data, options=VideoOptions(num_frames=count)) as frames:
            return frames.numpy().copy()

    def pyav() -> Any:
        import av

        wanted, kept = set(indices), []
        with av.open(io.BytesIO(data)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    kept.append(frame.to_ndarray(format="rgb24"))
        return np.stack(kept)

    def opencv() -> Any:
        import cv2

        stream: Any = io.BytesIO(data)  # OpenCV does not keep it alive: a temporary one crashes
        capture = cv2.VideoCapture(stream, cv2.CAP_FFMPEG, [])
        kept, wanted = [], set(indices)
        for number in range(total):
            capture.grab()
            if number in wanted:
                kept.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
        capture.release()
        return np.stack(kept)

    def torchcodec(mode: str) -> Any:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(data, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=mode)
        return decoder.get_frames_at(indices).data.numpy()

    contenders = [Contender("gpuflow", ours), Contender("PyAV decode-all, frame threads", pyav)]
    contenders.append(Contender("OpenCV grab-all", opencv))
    absent = {}
    if reason := _torchcodec_missing():
        absent["torchcodec"] = reason
    else:
        contenders += [
            Contender(f"torchcodec {mode}", functools.partial(torchcodec, mode)) for mode in ("exact", "approximate")
        ]

    def check(name: str, result: Any) -> None:
        assert result.shape == (count, height, width, 3), name
        assert [_number(frame) for frame in result] == indices, name

    name = f"{codec.removeprefix('lib')} {width}x{height}, GOP {gop}, {count} of {total} frames"
    return Row(name, contenders, check, absent)


def encode(codec: str, width: int, height: int, gop: int, seconds: float) -> bytes:
    """A clip of moving noise over a scene, every frame numbered by a code of 12 squares."""
    import av

    options = {"g": str(gop)} | {
        "libx264": {"preset": "veryfast", "bf": "3"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    }[codec]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm" if "vp9" in codec else "mp4") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
        scene = _texture(width * 2, height)
        for number in range(round(seconds * FPS)):
            picture = scene[:, number * 5 % width :][:, :width].copy()
            _stamp(picture, number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _texture(width: int, height: int) -> Any:
    """Noise whose amplitude falls with frequency, as in photographs."""
    rng = np.random.default_rng(1)
    total = np.zeros((height, width, 3))
    for octave in range(6):
        step = 2**octave
        coarse = rng.normal(0, 6 * step**0.8, (-(-height // step), -(-width // step), 3))
        total += coarse.repeat(step, 0).repeat(step, 1)[:height, :width]
    return (128 + total).clip(0, 255).astype(np.uint8)


def _stamp(picture: Any, number: int) -> None:
    side = picture.shape[1] // 32
    for bit in range(samples.CODE_BITS):
        picture[-side:, bit * side : (bit + 1) * side] = 255 * (number >> bit & 1)


def _number(frame: Any) -> int:
    side = frame.shape[1] // 32
    row, columns = frame.shape[0] - side // 2, [side // 2 + side * bit for bit in range(samples.CODE_BITS)]
    return sum(int(frame[row, column].mean() > 127) << bit for bit, column in enumerate(columns))


@functools.cache
def _torchcodec_missing() -> str:
    try:
        from torchcodec import decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return f"does not load here: {str(error).strip().splitlines()[0][:80]}"
    return ""


if __name__ == "__main__":
    main()
