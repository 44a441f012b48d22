"""Runs media through the whole way and proves it: load, publish, read in a second process, compare every byte."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuflow import __version__
from gpuflow.config import AudioOptions, ImageOptions, Options, VideoOptions
from gpuflow.demo import picture, samples
from gpuflow.demo.digest import digests
from gpuflow.errors import GpuflowError
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Features, Frames, Media, Source, Stage
from gpuflow.transfer import Publisher
from gpuflow.transfer.nixl import version as nixl_version

DEFAULT_OPTIONS: dict[str, Options] = {
    "image": ImageOptions(),
    "video": VideoOptions(num_frames=12),
    "audio": AudioOptions(features="whisper-128"),
}
WIDTH = 1200


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to load, under a name."""

    name: str
    source: Source
    options: Options | None
    count_frames: bool = False


@dataclass(slots=True)
class Result:
    """What became of it."""

    job: Job
    media: Media | None = None
    problems: list[str] = field(default_factory=list)
    stages: tuple[Stage, ...] = ()
    transport: str = "-"


def run(paths: Sequence[str], *, device: str = "auto", out: Path) -> int:
    """Run the demo; returns the exit status: 0 only if everything was loaded, read and equal."""
    jobs = _own_jobs(paths) if paths else _sample_jobs()
    with SyncFlow(device=device) as flow:
        print(f"gpuflow {__version__} on {flow.flow.device.name}: {flow.flow.device.reason}")
        _warm(flow)
        results = [_load(flow, job) for job in jobs]
        _transfer(flow, results)
        _draw(results, flow, out)
        print(_table(results))
        for result in results:
            if result.media is not None:
                result.media.release()
    problems = [f"{result.job.name}: {problem}" for result in results for problem in result.problems]
    for problem in problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    read = sum(result.transport != "-" for result in results)
    print(f"{read} of {len(results)} media read by a second process and equal byte for byte; picture: {out}")
    return 1 if problems else 0


def _sample_jobs() -> list[Job]:
    print("making media with real encoders: JPEG, PNG, WebP, a 20 s H.264 + AAC clip, MP3 speech")
    clip = samples.clip()
    images = [
        Job(f"image {name}", Source.of(samples.picture(name)), ImageOptions()) for name in ("JPEG", "PNG", "WEBP")
    ]
    return [
        *images,
        Job("image, clip-224", Source.of(samples.picture("JPEG")), ImageOptions(preset="clip-224")),
        Job("video, 12 frames", Source.of(clip), VideoOptions(num_frames=12), count_frames=True),
        Job("sound of the video", Source.of(clip, modality="audio"), AudioOptions(sample_rate=16_000)),
        Job("speech, whisper-128", Source.of(samples.recording()), AudioOptions(features="whisper-128")),
    ]


def _own_jobs(paths: Sequence[str]) -> list[Job]:
    return [Job(Path(path).name[-40:] or path, Source.of(path, trusted=True), None) for path in paths]


def _warm(flow: SyncFlow) -> None:
    """Load small things once, so that the times below are those of a running server."""
    for source, options in (
        (samples.picture("JPEG", width=64, height=64), ImageOptions(preset="clip-224")),
        (samples.clip(seconds=0.2), VideoOptions(num_frames=1)),
        (samples.recording(), AudioOptions(features="whisper-128")),
    ):
        flow.load(source, options=options).release()


def _load(flow: SyncFlow, job: Job) -> Result:
    result = Result(job)
    try:
        result.media = _load_any(flow, job)
    except GpuflowError as error:
        result.problems.append(f"{error.code}: {error}")
        return result
    result.stages = result.media.stages
    if job.count_frames and isinstance(result.media, Frames):
        result.problems += _miscounted(result.media)
    return result


def _load_any(flow: SyncFlow, job: Job) -> Media:
    """With the demo's options for what the bytes turn out to be, where none are given."""
    if job.options is not None:
        return flow.load(job.source, options=job.options)
    media = flow.load(job.source)
    wanted = {"frames": "video", "waveform": "audio"}.get(media.kind)
    if wanted is None:
        return media
    media.release()
    return flow.load(job.source, options=DEFAULT_OPTIONS[wanted])


def _miscounted(frames: Frames) -> list[str]:
    """The sampled frames carry their own numbers: they must be the ones that the metadata names."""
    shown = [samples.read_code(frame) for frame in picture.frame_pixels(frames)]
    wanted = list(frames.metadata.frame_indices)
    return [] if shown == wanted else [f"frames {shown} were decoded where {wanted} were asked for"]


def _transfer(flow: SyncFlow, results: Sequence[Result]) -> None:
    """Publish what was loaded, and have a second process read it over every way that leads to it."""
    with Publisher(flow.flow.slab) as publisher:
        ways = [way for way in ("shm", "nixl") if way in publisher.transports]
        if publisher.slab.device != "cpu":
            ways.remove("shm")
        command = [sys.executable, "-m", "gpuflow.demo.reader", *ways]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            ready = json.loads(reader.stdout.readline() or "{}")
            for result in results if ready else ():
                if result.media is not None:
                    _exchange(publisher, reader, result, len(ways))
            reader.stdin.close()
            if reader.wait(timeout=60) != 0 or not ready:
                results[0].problems.append("the reading process failed")


def _exchange(publisher: Publisher, reader: subprocess.Popen[str], result: Result, reads: int) -> None:
    assert reader.stdin is not None
    assert reader.stdout is not None
    assert result.media is not None
    started = time.perf_counter()
    raw = publisher.publish(result.media, reads=reads, ttl_seconds=30.0).to_bytes()
    published = Stage("publish", started, time.perf_counter() - started)
    reader.stdin.write(base64.b64encode(raw).decode() + "\n")
    reader.stdin.flush()
    answers: list[dict[str, Any]] = json.loads(reader.stdout.readline() or "[]")
    wanted = digests(result.media)
    for answer in answers:
        if "error" in answer:
            result.problems.append(f"{answer['way']}: {answer['error']}: {answer.get('message', '')}")
        elif answer["digests"] != wanted:
            result.problems.append(f"the second process read other bytes over {answer['way']}")
    if len(answers) != reads:
        result.problems.append("the reading process ended")
    if result.problems:
        return
    names = {"shm": "mapped", "nixl": f"NIXL {nixl_version()} {'VRAM' if result.media.device != 'cpu' else 'DRAM'}"}
    result.transport = " + ".join(names[answer["way"]] for answer in answers)
    first = answers[0]
    result.stages = (*result.stages, published, Stage("read", first["started_seconds"], first["seconds"]))


def _draw(results: Sequence[Result], flow: SyncFlow, out: Path) -> None:
    sections: list[tuple[str, Any]] = []
    images = [(r.job.name, picture.draw(r.media)) for r in results if r.media is not None and _is_picture(r.media)]
    if images:
        chosen = images if len(images) <= 2 else [images[0], images[-1]]
        sections.append(("Image: decoded, and as the model gets it", picture.side_by_side(chosen, width=WIDTH)))
    for result in results:
        if result.media is None or _is_picture(result.media):
            continue
        shape = "x".join(map(str, result.media.shape))
        sections.append(
            (f"{result.job.name}: {shape} by {result.media.backend}", picture.draw(result.media, width=WIDTH))
        )
    rows = [picture.Row(result.job.name, _shown(result.stages)) for result in results if result.stages]
    if rows:
        sections.append(("Milliseconds by stage", picture.timeline(rows, width=WIDTH)))
    device = flow.flow.device
    poster = picture.poster(f"gpuflow {__version__}", f"{device.name}: {device.reason}", sections, width=WIDTH)
    poster.save(out)


def _is_picture(media: Media) -> bool:
    return media.kind == "image" or (isinstance(media, Features) and len(media.shape) == 4)


def _shown(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages one after another, without the pauses between them in which other media had their turn."""
    shown, clock = [], 0.0
    for stage in stages:
        shown.append(Stage(stage.name, clock, stage.seconds))
        clock += stage.seconds
    return tuple(shown)


def _table(results: Sequence[Result]) -> str:
    lines = [f"{'media':22} {'backend':28} {'device':8} {'shape':20} {'transport':25} ms by stage"]
    for result in results:
        media = result.media
        if media is None:
            lines.append(f"{result.job.name[-22:]:22} {'failed':28} {result.problems[0]}")
            continue
        shape = "x".join(map(str, media.shape))
        stages = " ".join(f"{stage.name} {1e3 * stage.seconds:.1f}" for stage in result.stages)
        lines.append(
            f"{result.job.name[-22:]:22} {media.backend:28} {media.device:8} {shape:20} {result.transport:25} {stages}"
        )
    return "\n".join(lines)
