"""The first frames of a clip: how soon ``frames`` hands out a chunk, against loading the whole.

    python -m benchmarks.bench_streaming [--rounds N] [--quick] [--device cuda]

All start from the same bytes in memory and take the same K frames. A row's first contender ends when it has its first
chunk of 16; it then leaves, which is timed too. Frame numbers in the pictures are checked.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks.bench_video import FPS, _number, encode
from gpuflow.config import Limits, VideoOptions
from gpuflow.flow.sync import SyncFlow

CHUNK = 16


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    if wanted.quick:
        clips = [("libx264", 320, 180, 15, 2.0, 48)]
    else:
        clips = [
            ("libx264", 1280, 720, 30, 20.0, 128),
            ("libx264", 1280, 720, 250, 20.0, 128),
            ("libx264", 640, 360, 60, 20.0, 600),
        ]
    with SyncFlow(device=wanted.device, slab_bytes="2GiB", limits=Limits(max_video_frames=1_024)) as flow:
        rows = [_row(flow, *clip) for clip in clips]
        measured = measure(rows, rounds=wanted.rounds)
        note = "bytes in memory to the first chunk of 16 RGB frames, or to all of them"
        print(save("streaming", measured, out=wanted.out, device=flow.flow.device.name, note=note))


def _row(flow: SyncFlow, codec: str, width: int, height: int, gop: int, seconds: float, count: int) -> Row:
    data = encode(codec, width, height, gop, seconds)
    total = round(seconds * FPS)
    options = VideoOptions(num_frames=count)
    indices = [round(i) for i in np.linspace(0, total - 1, count)]

    def first_chunk() -> list[Any]:
        for chunk in flow.frames(data, chunk=CHUNK, options=options):
            with chunk:
                return list(chunk.numpy().copy())
        return []

    def every_chunk() -> list[Any]:
        kept: list[Any] = []
        for chunk in flow.frames(data, chunk=CHUNK, options=options):
            with chunk:
                kept += list(chunk.numpy().copy())
        return kept

    def whole() -> list[Any]:
        with flow.load(data, options=options) as frames:
            return list(frames.numpy().copy())

    def pyav(count: int) -> list[Any]:
        import av

        wanted, kept = set(indices[:count]), []
        with av.open(io.BytesIO(data)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    kept.append(frame.to_ndarray(format="rgb24"))
                    if len(kept) == len(wanted):
                        break
        return kept

    contenders = [
        Contender("gpuflow, first chunk", first_chunk),
        Contender("gpuflow, every chunk", every_chunk),
        Contender("gpuflow, load", whole),
        Contender(f"PyAV until {CHUNK} frames", lambda: pyav(CHUNK)),
        Contender("PyAV until the last frame", lambda: pyav(count)),
    ]

    def check(name: str, result: Sequence[Any]) -> None:
        few = name in ("gpuflow, first chunk", f"PyAV until {CHUNK} frames")
        assert [_number(frame) for frame in result] == indices[: CHUNK if few else count], name

    return Row(f"{codec[3:]} {width}x{height}, GOP {gop}, {count} of {total} frames", contenders, check)


if __name__ == "__main__":
    main()
