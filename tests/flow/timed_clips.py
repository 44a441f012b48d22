"""Clips whose sound is heard at a time of its own: late, with packets lost or with times that are off."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from tests.flow.audio_files import chirp

RATE = 48_000
SOUND = chirp(12.0, RATE)


@dataclass(frozen=True, slots=True)
class Made:
    """A file, when its first sample was meant to be heard after the first picture, and how long a packet is."""

    data: bytes
    packet_seconds: float


def _shifted(packet: Any, ticks: int, *, order: bool = True) -> Any:
    packet.pts += ticks
    packet.dts += ticks if order else 0
    return packet


@functools.cache
def clip(
    muxer: str,
    codec: str,
    seconds: float = 3.0,
    *,
    sound_at: float = 0.0,
    video_at: float = 0.0,
    dropped: tuple[int, int] = (0, 0),
    late: tuple[int, float] = (0, 0.0),
    jitter_seconds: float = 0.0,
    liar: float = 0.0,
    video: bool = True,
) -> Made:
    """``seconds`` of ``SOUND``, and as much of MPEG-4 with B-frames, from those times on. Packets ``dropped`` of the sound are
    left out; those from ``late[0]`` on come ``late[1]`` seconds later; each is off by up to ``jitter_seconds``.
    One of them is ``liar`` seconds late, alone."""
    out, rng, samples = io.BytesIO(), np.random.default_rng(3), SOUND[:, : round(seconds * RATE)]
    with av.open(out, "w", format=muxer) as container:
        pictures: Any = container.add_stream("mpeg4", rate=10, options={"bf": "2"}) if video else None
        sound: Any = container.add_stream(codec, rate=RATE, options={"aac_pns": "0"} if codec == "aac" else {})
        sound.layout = "mono"
        packets: list[Any] = []
        if video:
            pictures.width, pictures.height = 32, 16
            for number in range(round(10 * seconds)):
                picture = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 2 * number, np.uint8), format="rgb24")
                picture.pts, picture.time_base = number + round(10 * video_at), Fraction(1, 10)
                packets += pictures.encode(picture)
            packets += pictures.encode(None)
        heard: list[Any] = []
        for first in range(0, samples.shape[1], RATE):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, first : first + RATE]), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, first + round(sound_at * RATE), Fraction(1, RATE)
            heard += sound.encode(frame)
        heard += sound.encode(None)
        packet_seconds = float(heard[3].duration * heard[3].time_base)
        for number, packet in enumerate(heard):
            ticks = late[1] if late[1] and number >= late[0] else 0.0
            ticks += rng.uniform(-jitter_seconds, jitter_seconds) if number > 1 else 0.0
            ticks += liar if number == 31 else 0.0
            if not dropped[0] <= number < dropped[1]:
                packets.append(_shifted(packet, round(ticks / packet.time_base), order=number != 31))
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return Made(out.getvalue(), packet_seconds)
