"""The questions about PyNvVideoCodec and NVDEC that only a GPU answers; each step returns what it found as plain values.

The core decoder is called bare here, not through gpuflow's sessions: what is asked is what those are built on.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._clips import ClipSpec, clip
from gpuflow.codecs._backends.pynv_caps import CODECS, library
from gpuflow.codecs._backends.pynv_surface import planes
from gpuflow.codecs.base import VideoInfo
from gpuflow.codecs.probe import sniff
from gpuflow.codecs.video.source import PacketSource
from gpuflow.config import Limits
from gpuflow.flow.context import Deadline

Found = dict[str, Any]
CLIPS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9"}


def spec(codec: str, *, quick: bool, height: int = 720, gop: int = 30, seconds: float = 4.0) -> ClipSpec:
    """A clip of a codec; tiny where quick."""
    if quick:
        return ClipSpec(CLIPS[codec], 320, 192, 10, 1.0)
    return ClipSpec(CLIPS[codec], height * 16 // 9, height, gop, seconds)


def opened(which: ClipSpec) -> PacketSource:
    """The clip's packets by our own demuxer."""
    data = clip(which)
    return PacketSource.open(data, sniff(data), limits=Limits(), deadline=Deadline(600.0))


def make(info: VideoInfo, *, latency: str = "NATIVE", largest: tuple[int, int] | None = None, stream: int = 0) -> Any:
    """A bare core decoder."""
    nvc = library()
    width, height = largest or (info.width, info.height)
    return nvc.CreateDecoder(
        gpuid=0, codec=getattr(nvc.cudaVideoCodec, CODECS[info.codec]), cudastream=stream, usedevicememory=1,
        maxwidth=width, maxheight=height, outputColorType=nvc.OutputColorType.NATIVE,
        latency=getattr(nvc.DisplayDecodeLatencyType, latency),
    )  # fmt: skip


def fed(decoder: Any, payloads: Sequence[tuple[int, bytes]] | Iterator[tuple[int, bytes]]) -> Iterator[Any]:
    """Frames of these packets, then of the drained decoder."""
    nvc = library()
    for position, payload in payloads:
        raw = np.frombuffer(payload, np.uint8)
        packet = nvc.PacketData()
        packet.bsl_data, packet.bsl, packet.pts = raw.ctypes.data, raw.size, position
        yield from decoder.Decode(packet)
    end = nvc.PacketData()
    end.bsl = 0
    yield from decoder.Decode(end)


def nv12(frame: Any, info: VideoInfo) -> NDArray[Any]:
    """A frame's two planes on the host, ``(3 * H / 2, W)``."""
    import cupy

    luma, _, pitch = planes([view.__cuda_array_interface__ for view in frame.cuda()], info)
    cupy.cuda.Device().synchronize()
    item = 2 if info.bit_depth > 8 else 1
    rows = info.height + -(-info.height // 2)
    memory = cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(luma, rows * pitch, frame), 0)
    whole = cupy.ndarray((rows, pitch // item), np.uint16 if item == 2 else np.uint8, memory)
    return np.asarray(whole.get())[:, : info.width]


def reference(source: PacketSource) -> list[NDArray[Any]]:
    """The clip as NV12 (P016 left as it is) by libavcodec, in display order."""
    import av

    with av.open(io.BytesIO(source.demuxed.data)) as container:
        name = "nv12" if source.info.bit_depth == 8 else "p016le"
        return [frame.reformat(format=name).to_ndarray() for frame in container.decode(video=0)]


def edited(data: bytes, frames: int) -> bytes:
    """The same packets so many frames earlier: an edit list cuts the first ones away."""
    import av

    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(buffer, "w", format="mp4", options={"avoid_negative_ts": "disabled"}) as output,
    ):
        stream = source.streams.video[0]
        copied = output.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts -= frames * (packet.duration or 0)
                packet.dts -= frames * (packet.duration or 0)
                packet.stream = copied
                output.mux(packet)
    return buffer.getvalue()


def digest(picture: NDArray[Any]) -> str:
    """What a picture is told from others by."""
    return hashlib.sha1(np.ascontiguousarray(picture).tobytes()).hexdigest()


def whole(source: PacketSource) -> list[tuple[int, bytes]]:
    """All packets."""
    return list(source.demuxed.payloads(0, len(source.demuxed.packets) - 1))


def packets(quick: bool) -> Found:
    """1: does the core decoder take packets made in Python, and does ``getPTS`` give back what they were given?"""
    found: Found = {}
    for codec in CLIPS:
        source = opened(spec(codec, quick=quick))
        expected = [digest(picture) for picture in reference(source)]
        order = [position for position, _ in sorted(enumerate(source.demuxed.rows), key=lambda row: row[1].pts or 0)]
        seen, same = [], []
        for frame in fed(make(source.info), whole(source)):
            seen.append(int(frame.getPTS()))
            same.append(digest(nv12(frame, source.info)))
        found[codec] = {
            "frames": len(seen), "of": len(expected), "pts_are_positions_in_display_order": seen == order,
            "bit_equal": sum(a == b for a, b in zip(same, expected, strict=False)),
        }  # fmt: skip
    return found


def drain(quick: bool) -> Found:
    """2: does an empty packet drain, and does the same decoder take the next segment? What does each way cost?"""
    found: Found = {}
    for codec in CLIPS:
        source = opened(spec(codec, quick=quick))
        keys = [position for position, row in enumerate(source.demuxed.rows) if row.key]
        ends = [*(key - 1 for key in keys[1:]), len(source.demuxed.rows) - 1]
        segments = [list(source.demuxed.payloads(*span)) for span in zip(keys, ends, strict=True)][:4]
        expected = [digest(picture) for picture in reference(source)]
        for latency in ("NATIVE", "LOW"):
            decoder, frames, times = make(source.info, latency=latency), [], []
            for segment in reversed(segments):
                began = time.perf_counter()
                frames += [digest(nv12(frame, source.info)) for frame in fed(decoder, segment)]
                times.append(round(1e3 * (time.perf_counter() - began), 2))
            wanted = sum(len(segment) for segment in segments)
            found[f"{codec} {latency}"] = {
                "frames": len(frames), "of": wanted, "of_the_clip": len(set(frames) & set(expected)),
                "segment_ms": times,
            }  # fmt: skip
        began = time.perf_counter()
        decoder = make(source.info)
        list(fed(decoder, segments[0]))
        found[f"{codec} new decoder and first segment ms"] = round(1e3 * (time.perf_counter() - began), 2)
    return found


def drop(quick: bool) -> Found:
    """3: without packets that nothing refers to, are the others exact?"""
    found: Found = {}
    for codec in ("h264", "hevc"):
        source = opened(spec(codec, quick=quick))
        total = len(source.pts_seconds)
        wanted = sorted({*range(0, total, 7), total - 1})
        expected = reference(source)
        lost, wrong, skipped = 0, 0, 0
        for segment in source.plan(wanted, limits=Limits()).segments:
            skipped += len(segment.skipped)
            rows = source.demuxed.rows
            targets = {place: segment.targets[rows[place].pts or 0] for place in range(segment.first, segment.last + 1)
                       if (rows[place].pts or 0) in segment.targets}  # fmt: skip
            got = {}
            payloads = source.demuxed.payloads(segment.first, segment.last, segment.skipped)
            for frame in fed(make(source.info), payloads):
                if (index := targets.get(int(frame.getPTS()))) is not None:
                    got[index] = digest(nv12(frame, source.info))
            lost += len(set(targets.values()) - set(got))
            wrong += sum(found != digest(expected[index]) for index, found in got.items())
        found[codec] = {"wanted": len(wanted), "lost": lost, "wrong": wrong, "packets_left_out": skipped}
    return found


def validity(quick: bool) -> Found:
    """4: is a frame still itself after the next call, after ``del``; which stream is it written on?"""
    import cupy

    source = opened(spec("h264", quick=quick))
    own = cupy.cuda.Stream(non_blocking=True)
    found: Found = {"own_stream": own.ptr}
    for name, stream in (("stream 0", 0), ("own stream", own.ptr)):
        held: list[tuple[Any, str]] = []
        streams, changed = set(), 0
        for frame in fed(make(source.info, stream=stream), whole(source)[:40]):
            streams.add(frame.cuda()[0].__cuda_array_interface__.get("stream"))
            if held:
                changed += digest(nv12(held[-1][0], source.info)) != held[-1][1]
            held = [(frame, digest(nv12(frame, source.info)))]
        found[name] = {
            "frames_that_changed_after_the_next_call": changed,
            "interface_streams": sorted(map(str, streams)),
        }
    unsynchronised = 0
    expected = [digest(picture) for picture in reference(source)]
    for place, frame in enumerate(fed(make(source.info, stream=own.ptr), whole(source)[:40])):
        luma, _, pitch = planes([view.__cuda_array_interface__ for view in frame.cuda()], source.info)
        rows = source.info.height * 3 // 2
        memory = cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(luma, rows * pitch, frame), 0)
        with own:  # copied on our stream, with nothing but the order of the stream
            copied = cupy.ndarray((rows, pitch), np.uint8, memory).copy()
        own.synchronize()
        if place < 30:
            unsynchronised += digest(np.asarray(copied.get())[:, : source.info.width]) != expected[place]
    found["wrong_when_read_on_the_own_stream_without_an_event"] = unsynchronised
    found["strides"] = [str(view.__cuda_array_interface__) for view in frame.cuda()]
    return found


def reconfigure(quick: bool) -> Found:
    """5: what a new session and a change of size cost, in time and in memory; the same for ``SimpleDecoder``."""
    import cupy

    small, large = opened(spec("h264", quick=quick)), opened(spec("h264", quick=quick, height=480))
    found: Found = {"bytes_of_a_session": {}, "new_ms": []}
    for side in (640, 1_280, 1_920, 4_096):
        kept = []
        before = cupy.cuda.runtime.memGetInfo()[0]
        for _ in range(2):
            began = time.perf_counter()
            kept.append(make(small.info, largest=(max(side, small.info.width), max(side, small.info.height))))
            list(fed(kept[-1], whole(small)[:12]))
            found["new_ms"].append(round(1e3 * (time.perf_counter() - began), 1))
        found["bytes_of_a_session"][side] = (before - cupy.cuda.runtime.memGetInfo()[0]) // 2
    decoder = make(small.info, largest=(1_920, 1_920))
    right: list[bool] = []
    times = []
    for source in (small, large, small, large):
        began = time.perf_counter()
        decoder.setReconfigParams(source.info.width, source.info.height)
        first = next(iter(fed(decoder, whole(source))))
        times.append(round(1e3 * (time.perf_counter() - began), 1))
        right.append(digest(nv12(first, source.info)) == digest(reference(source)[0]))
        decoder = make(small.info, largest=(1_920, 1_920)) if not right[-1] else decoder
        list(fed(decoder, []))
    found |= {"changed_ms": times, "first_frame_right_after_a_change": right}
    nvc, simple, times = library(), None, []
    for which in (small, large, small):
        descriptor = os.memfd_create("clip")
        os.write(descriptor, which.demuxed.data)
        began = time.perf_counter()
        path = f"/proc/self/fd/{descriptor}"
        if simple is None:
            simple = nvc.SimpleDecoder(path, gpu_id=0)
        else:
            simple.reconfigure_decoder(path)
        frame = simple.get_batch_frames_by_index([3])[0]
        times.append(round(1e3 * (time.perf_counter() - began), 1))
        found.setdefault("simple_right", []).append(digest(nv12(frame, which.info)) == digest(reference(which)[3]))
        found["simple_metadata"] = str(simple.get_stream_metadata().codec_name)
        os.close(descriptor)
    return found | {"simple_ms": times}


def capabilities(quick: bool) -> Found:
    """6a: what ``GetDecoderCaps`` says, and what asking costs."""
    found: Found = {}
    nvc = library()
    for codec, name in CODECS.items():
        for depth in (8, 10, 12):
            began = time.perf_counter()
            try:
                answer: Any = dict(nvc.GetDecoderCaps(gpuid=0, codec=getattr(nvc.cudaVideoCodec, name), bitdepth=depth))
            except Exception as error:  # noqa: BLE001 - what it raises is the answer
                answer = f"{type(error).__name__}: {str(error)[:120]}"
            found[f"{codec} {depth}"] = {"caps": answer, "ms": round(1e3 * (time.perf_counter() - began), 2)}
    return found


def rates(quick: bool) -> Found:
    """6b: frames a second by sessions, per codec and size: the table that is published nowhere for this chip."""
    found: Found = {}
    for codec in CLIPS:
        for height in (192,) if quick else (720, 1_080):
            source = opened(spec(codec, quick=quick, height=height))
            payloads = whole(source)
            for sessions in (1, 2) if quick else (1, 2, 4, 6, 7, 8, 14):
                found[f"{codec} {height}p, {sessions} sessions"] = _rate(source.info, payloads, sessions, quick)
    return found


def _rate(info: VideoInfo, payloads: list[tuple[int, bytes]], sessions: int, quick: bool) -> Found:
    seconds = 0.2 if quick else 2.0
    ready, counts = threading.Barrier(sessions), [0] * sessions
    spans: list[float] = [0.0] * sessions

    def run(number: int) -> None:
        decoder = make(info)
        counted = sum(1 for _ in fed(decoder, payloads))  # warm
        ready.wait(60)
        began, counted = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            counted += sum(1 for _ in fed(decoder, payloads))
        spans[number], counts[number] = time.perf_counter() - began, counted

    cpu = time.process_time()
    with ThreadPoolExecutor(sessions) as pool:
        list(pool.map(run, range(sessions)))
    return {
        "frames_per_second": round(sum(count / span for count, span in zip(counts, spans, strict=True))),
        "cpu_seconds_per_1000_frames": round(1e3 * (time.process_time() - cpu) / max(1, sum(counts)), 3),
    }


def colour(quick: bool) -> Found:
    """7: our kernel against swscale; and whether two sessions through the library's own RGB output disturb each other."""
    import torch

    from gpuflow.config import VideoOptions
    from gpuflow.flow.sync import SyncFlow

    found: Found = {}
    with SyncFlow(device="cuda", slab_bytes="1GiB") as gpu, SyncFlow(device="cpu", slab_bytes="1GiB") as cpu:
        for codec in CLIPS:
            data = clip(spec(codec, quick=quick))
            options = VideoOptions(num_frames=8)
            with gpu.load(data, options=options) as there, cpu.load(data, options=options) as here:
                off = np.abs(there.numpy().astype(int) - here.numpy())
                found[codec] = {"backend": there.backend, "max": int(off.max()), "mean": round(float(off.mean()), 4)}
    nvc, source = library(), opened(spec("h264", quick=quick))

    def library_rgb(_: int) -> str:
        decoder = nvc.CreateDecoder(
            gpuid=0, codec=nvc.cudaVideoCodec.H264, usedevicememory=1, outputColorType=nvc.OutputColorType.RGB,
            maxwidth=source.info.width, maxheight=source.info.height,
        )  # fmt: skip
        frames = [torch.utils.dlpack.from_dlpack(frame).clone() for frame in fed(decoder, whole(source)[:20])]
        torch.cuda.synchronize()
        return digest(torch.stack(frames).cpu().numpy())

    with ThreadPoolExecutor(4) as pool:
        found["digests_of_4_sessions_of_the_librarys_rgb"] = len(set(pool.map(library_rgb, range(8))))
    return found
