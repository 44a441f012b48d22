"""Other readers of sampled frames: encoded bytes in memory and frame numbers to ``(K, H, W, 3)`` uint8 RGB."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Peer = Callable[[bytes, Sequence[int]], Any]


def pyav_all(data: bytes, indices: Sequence[int]) -> Any:
    """Decode everything with FFmpeg's frame threads and keep what is wanted, as Dynamo's frontend does."""
    import av

    wanted, kept = set(indices), []
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
    return np.stack(kept)


def pyav_seek(data: bytes, indices: Sequence[int]) -> Any:
    """Seek where the wanted frame lies over a second ahead, else decode on; takes the rate for constant."""
    import av

    kept = []
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        rate = stream.average_rate or 30
        frames, shown = container.decode(stream), -1
        for index in indices:
            target = round(index / rate / stream.time_base)
            if shown < 0 or target - shown > round(1 / stream.time_base):  # over a second ahead: a seek may pay
                container.seek(target, stream=stream)
                frames = container.decode(stream)
            for frame in frames:
                shown = frame.pts
                if shown >= target:
                    kept.append(frame.to_ndarray(format="rgb24"))
                    break
    return np.stack(kept)


def torchcodec(data: bytes, indices: Sequence[int], *, mode: str, threads: int) -> Any:
    """``VideoDecoder.get_frames_at``."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(data, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode=mode)
    return decoder.get_frames_at(list(indices)).data.numpy()


def decord(data: bytes, indices: Sequence[int]) -> Any:
    """``VideoReader.get_batch``, as vLLM's and Hugging Face's older loaders call it."""
    import decord as library

    return library.VideoReader(io.BytesIO(data), num_threads=1).get_batch(list(indices)).asnumpy()


def opencv(data: bytes, indices: Sequence[int]) -> Any:
    """Grab every frame and retrieve what is wanted, as vLLM's default loader does."""
    import cv2

    stream: Any = io.BytesIO(data)  # OpenCV does not keep it alive: a temporary one crashes
    capture = cv2.VideoCapture(stream, cv2.CAP_FFMPEG, [])
    kept, wanted = [], set(indices)
    for number in range(max(indices) + 1):
        capture.grab()
        if number in wanted:
            kept.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(kept)


PEERS: dict[str, Peer] = {
    "torchcodec exact, 1 thread": functools.partial(torchcodec, mode="exact", threads=1),
    "torchcodec exact, auto threads": functools.partial(torchcodec, mode="exact", threads=0),
    "torchcodec approximate": functools.partial(torchcodec, mode="approximate", threads=1),
    "PyAV seek": pyav_seek,
    "PyAV decode-all, frame threads": pyav_all,
    "decord2": decord,
    "OpenCV grab-all": opencv,
}
