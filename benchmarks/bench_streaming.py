"""The first frames of a clip: how soon ``frames`` hands out a chunk, against loading the whole.

    python -m benchmarks.bench_streaming [--rounds N] [--quick] [--device cuda]

A row starts from bytes in memory, or from a server on loopback that sends so many MiB a second, and takes the same K
frames. Its first contender ends when it has its first chunk of 16; leaving is timed too. Frame numbers are checked.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing as mp
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks._clips import ClipSpec, clip, number
from benchmarks._harness import Contender, Row, arguments, measure, save
from gpuflow.config import FetchPolicy, Limits, VideoOptions
from gpuflow.flow.sync import SyncFlow

CHUNK = 16
MIB = 1 << 20
POLICY = FetchPolicy(
    allowed_schemes=("http",), allow_private_networks=("127.0.0.0/8",), allow_direct_ip=True, allow_direct_port=True
)


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    jobs = [
        (ClipSpec("libx264", 1280, 720, 30, 20.0), 128),
        (ClipSpec("libx264", 1280, 720, 250, 20.0), 128),
        (ClipSpec("libx264", 640, 360, 60, 20.0), 600),
    ]
    if wanted.quick:
        jobs = [(ClipSpec("libx264", 320, 180, 15, 2.0), 48)]
    speed = 4 * MIB
    limits = Limits(max_video_frames=1_024, max_output_bytes=512 * MIB)
    with SyncFlow(device=wanted.device, slab_bytes="2GiB", limits=limits, fetch=POLICY) as flow:
        rows = [_memory_row(flow, *job) for job in jobs]
        data = _header_first(clip(jobs[0][0]))
        with _server(data, speed) as url:
            rows.append(_network_row(flow, url, *jobs[0], speed))
            measured = measure(rows, rounds=wanted.rounds)
    note = "to the first chunk of 16 RGB frames, or to all of them"
    print(save("streaming", measured, out=wanted.out, device=flow.flow.device.name, note=note))


def _memory_row(flow: SyncFlow, spec: ClipSpec, count: int) -> Row:
    data, indices = clip(spec), _indices(spec, count)
    contenders = _ours(flow, data, count)
    contenders.append(Contender(f"PyAV until {CHUNK} frames", lambda: _pyav(data, indices[:CHUNK])))
    contenders.append(Contender("PyAV until the last frame", lambda: _pyav(data, indices)))
    return Row(f"{spec}, {count} of {spec.num_frames} frames", contenders, _checked(indices))


def _network_row(flow: SyncFlow, url: str, spec: ClipSpec, count: int, speed: int) -> Row:
    name = f"{spec}, {count} of {spec.num_frames} frames, header first, at {speed // MIB} MiB/s"
    return Row(name, _ours(flow, url, count), _checked(_indices(spec, count)))


def _ours(flow: SyncFlow, source: object, count: int) -> list[Contender]:
    options = VideoOptions(num_frames=count)

    def first_chunk() -> list[Any]:
        for chunk in flow.frames(source, chunk=CHUNK, options=options):
            with chunk:
                return list(chunk.numpy().copy())
        return []

    def every_chunk() -> list[Any]:
        kept: list[Any] = []
        for chunk in flow.frames(source, chunk=CHUNK, options=options):
            with chunk:
                kept += list(chunk.numpy().copy())
        return kept

    def whole() -> list[Any]:
        with flow.load(source, options=options) as frames:
            return list(frames.numpy().copy())

    return [
        Contender("gpuflow, first chunk", first_chunk),
        Contender("gpuflow, every chunk", every_chunk),
        Contender("gpuflow, load", whole),
    ]


def _pyav(data: bytes, indices: Sequence[int]) -> list[Any]:
    import av

    wanted, kept = set(indices), []
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
                if len(kept) == len(wanted):
                    break
    return kept


def _indices(spec: ClipSpec, count: int) -> list[int]:
    return [round(index) for index in np.linspace(0, spec.num_frames - 1, count)]


def _checked(indices: list[int]) -> Any:
    def check(name: str, result: Sequence[Any]) -> None:
        few = name in ("gpuflow, first chunk", f"PyAV until {CHUNK} frames")
        assert [number(frame) for frame in result] == indices[: CHUNK if few else None], name

    return check


def _header_first(data: bytes) -> bytes:
    """The same packets, as web servers hold them; the muxer needs a file for that."""
    import av

    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        options = {"movflags": "+faststart"}
        with av.open(io.BytesIO(data)) as source, av.open(file.name, "w", format="mp4", options=options) as output:
            copied = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = copied
                    output.mux(packet)
        return file.read()


@contextmanager
def _server(data: bytes, speed: int) -> Iterator[str]:
    here, there = mp.get_context("spawn").Pipe()
    process = mp.get_context("spawn").Process(target=_serve, args=(there, data, speed), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/clip.mp4"
    finally:
        process.kill()
        process.join()


def _serve(pipe: Connection, data: bytes, speed: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n" % len(data))
                step = speed // 50
                for at in range(0, len(data), step):
                    writer.write(data[at : at + step])
                    await writer.drain()
                    await asyncio.sleep(0.02)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async def run() -> None:
        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(listener.sockets[0].getsockname()[1])
        await listener.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
