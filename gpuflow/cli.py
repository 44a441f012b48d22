"""The command line: ``gpuflow demo | load | env | presets``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuflow import __version__

EPILOG = """examples:
  gpuflow demo                                   load, publish, read in a second process, check every byte
  gpuflow demo cat.jpg https://host/clip.mp4     the same with your media
  gpuflow load clip.mp4 --options '{"num_frames": 16}' --out frames/
  gpuflow load cat.jpg --preset clip-224 --device cpu
  gpuflow load talk.mp3 --features whisper-128 --options '{"split": "quietest"}'
  gpuflow load clip.mp4 --sampler vllm-qwen3-vl --preset qwen3-vl --options '{"max_frames": 64}'
  gpuflow env                                    what is installed, what is missing, and what mends it
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0 done, 1 something failed, 2 the command line is wrong."""
    parser = _parser()
    wanted = parser.parse_args(arguments)
    if wanted.command is None:
        parser.print_help()
        return 2
    try:
        status: int = wanted.run(wanted)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpuflow",
        description="Images, videos and audio to tensors, on the GPU where there is one and on the CPU elsewhere.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gpuflow {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_demo(commands)
    _add_load(commands)
    _add_env(commands)
    _add_presets(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser("demo", help="run real media through the whole way and draw a picture of it")
    demo.add_argument("source", nargs="*", help="paths or URLs of your own media (default: media made on the spot)")
    demo.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    demo.add_argument("--out", type=Path, default=Path("gpuflow-demo.png"), help="the picture (default: %(default)s)")
    demo.set_defaults(run=_demo)


def _add_load(commands: Any) -> None:
    load = commands.add_parser("load", help="load media and write tensors (safetensors) and pictures (PNG)")
    load.add_argument("source", nargs="+", help="paths or URLs")
    load.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")
    load.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    load.add_argument("--modality", choices=("image", "video", "audio"), help="what the media are (default: sniffed)")
    load.add_argument(
        "--options", type=_mapping, metavar="JSON", help="""e.g. '{"num_frames": 16, "size": [224, 224]}'"""
    )
    load.add_argument("--preset", metavar="NAME", help="a model family's input of pictures, see `gpuflow presets`")
    load.add_argument("--features", metavar="NAME", help="a speech model's input, see `gpuflow presets`")
    load.add_argument("--sampler", metavar="NAME", help="a server's choice of a clip's frames, see `gpuflow presets`")
    load.add_argument("--limits", type=_mapping, metavar="JSON", help="""e.g. '{"max_image_bytes": 1000000}'""")
    load.add_argument(
        "--fetch", type=_mapping, metavar="JSON", help="""e.g. '{"allowed_media_domains": ["a.example"]}'"""
    )
    load.add_argument(
        "--isolation",
        choices=("none", "process"),
        default="none",
        help="decode in this process (default) or in sandboxed ones",
    )
    load.set_defaults(run=_load)


def _add_env(commands: Any) -> None:
    env = commands.add_parser("env", help="report what is here, what is not, why, and what mends it")
    env.add_argument("--json", action="store_true", help="for programs")
    env.set_defaults(run=_env)


def _add_presets(commands: Any) -> None:
    presets = commands.add_parser("presets", help="list the named presets, feature specs and samplers")
    presets.set_defaults(run=_presets)


def _demo(wanted: argparse.Namespace) -> int:
    from gpuflow.demo.run import run
    from gpuflow.errors import GpuflowError

    if not wanted.out.absolute().parent.is_dir():
        return _complain(f"--out: there is no folder {wanted.out.absolute().parent}", status=2)
    if wanted.out.suffix.lower() != ".png":
        return _complain(f"--out: the picture is a PNG, so its name ends in .png; got {wanted.out.name}", status=2)
    try:
        return run(wanted.source, device=wanted.device, out=wanted.out)
    except GpuflowError as error:
        return _complain(f"{error.code}: {error}")
    except OSError as error:
        return _complain(f"{error.strerror or error}: {error.filename or wanted.out}")


def _load(wanted: argparse.Namespace) -> int:
    from gpuflow.demo.save import save_all
    from gpuflow.errors import GpuflowError
    from gpuflow.values import shown

    options = dict(wanted.options or {})
    for name in ("preset", "features", "sampler"):
        if (value := getattr(wanted, name)) is not None and options.setdefault(name, value) != value:
            return _complain(f"--{name} and --options name two: {shown(value)} and {shown(options[name])}", status=2)
    try:
        wanted.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _complain(f"--out: {error.strerror}: {wanted.out}", status=2)
    try:
        return save_all(
            wanted.source,
            out=wanted.out,
            device=wanted.device,
            modality=wanted.modality,
            options=options or None,
            limits=wanted.limits,
            fetch=wanted.fetch,
            isolation=wanted.isolation,
        )
    except GpuflowError as error:
        return _complain(f"{error.code}: {error}")


def _env(wanted: argparse.Namespace) -> int:
    from gpuflow.env import main as report

    return report(as_json=wanted.json)


def _presets(wanted: argparse.Namespace) -> int:
    from gpuflow.presets.listing import EXAMPLE, EXAMPLE_SECONDS, image_preset_lines, mel_spec_lines
    from gpuflow.presets.video import video_preset_names
    from gpuflow.samplers import SAMPLERS

    print(f"images (ImageOptions.preset), pixels and tokens of one of {EXAMPLE[1]}x{EXAMPLE[0]}:")
    print("\n".join(f"  {line}" for line in image_preset_lines()))
    print("videos (VideoOptions.preset):")
    print("\n".join(f"  {name}" for name in video_preset_names()))
    print("frames of videos (VideoOptions.sampler):")
    print("\n".join(f"  {row.name:18} {row.source}" for row in SAMPLERS.values()))
    print(f"audio (AudioOptions.features), shape and tokens of {EXAMPLE_SECONDS} s:")
    print("\n".join(f"  {line}" for line in mel_spec_lines()))
    return 0


def _mapping(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        from gpuflow.values import shown

        wrong = "it is nested too deeply, or a number has too many digits"
        raise argparse.ArgumentTypeError(f"JSON that cannot be read: {wrong}; got {shown(text)}") from error
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError("a JSON object is needed, like '{\"num_frames\": 16}'")
    return values


def _complain(message: str, *, status: int = 1) -> int:
    print(f"gpuflow: {message}", file=sys.stderr)
    return status
