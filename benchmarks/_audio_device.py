"""Questions about the audio kernels that only a GPU's own tools answer: copies, registers, compile times, sanitizers."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import _audio_place as on
from benchmarks._audio_steps import WHISPER, expected, off, repeats, stored, written
from benchmarks._sounds import FILE_RATE, FORMS, RATE, clip, encoded
from gpuflow.config import AudioOptions
from gpuflow.flow.sync import SyncFlow
from gpuflow.ops.kernels import kernel
from gpuflow.ops.pcm import PcmSamples
from gpuflow.ops.staging import staging
from gpuflow.presets.mel_specs import mel_spec

_ROUNDS = 20


def first_call(quick: bool) -> dict[str, Any]:
    """10: milliseconds of the first and second batch in a new process: with nothing in CuPy's cache, and with all there."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("empty_cache", "filled_cache"):
            found[name] = _in_a_process(["-m", "benchmarks._audio_device"], {"CUPY_CACHE_DIR": cache})
    return found


def first_batches() -> dict[str, float]:
    """What a process that has computed nothing yet takes for two batches of three specs."""
    found: dict[str, float] = {}
    for name in (WHISPER, "gemma3n", "parakeet"):
        for turn in ("first", "second"):
            began = time.perf_counter()
            written([clip(1.0)], mel_spec(name))
            found[f"{turn} {name}"] = round(1e3 * (time.perf_counter() - began), 2)
    return found


def uploads(quick: bool) -> dict[str, Any]:
    """11: microseconds and gigabytes a second of copying 30 s to the device, by rate and type: from pinned and from pageable
    memory, and from pageable memory through gpuflow's pinned blocks."""
    import cupy

    found: dict[str, Any] = {}
    seconds = 1 if quick else 30
    kinds = {"16 kHz mono int16": RATE * 2, "16 kHz mono float32": RATE * 4, "44.1 kHz stereo int16": FILE_RATE * 4,
             "44.1 kHz stereo float32": FILE_RATE * 8}  # fmt: skip
    for name, bytes_per_second in kinds.items():
        nbytes = seconds * bytes_per_second
        target = cupy.empty(nbytes, cupy.uint8)
        pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)
        pageable = np.ones(nbytes, np.uint8)
        through_blocks = functools.partial(
            staging(target.device.id).copy, [pageable], [0], target.data.ptr, stream=cupy.cuda.get_current_stream()
        )
        ways = {
            "pinned": functools.partial(target.set, pinned), "pageable": functools.partial(target.set, pageable),
            "through pinned blocks": through_blocks,
        }  # fmt: skip
        for kind, run in ways.items():
            taken = on.PLACE.microseconds(run)
            found[f"{name}, {kind}"] = {"microseconds": taken, "gigabytes_per_second": round(nbytes / taken / 1e3, 2)}
    return found


def occupancy(quick: bool) -> dict[str, Any]:
    """12: registers, spills, shared memory, and blocks of each audio kernel that a multiprocessor takes at once."""
    from cupy.cuda import driver

    batch = on.feature_batch([on.on_device(stored(clip(1.0)))], mel_spec("parakeet"))
    batch.clips.extend(
        on.feature_batch([on.on_device(PcmSamples.of(clip(1.0)[None], FILE_RATE))], mel_spec(WHISPER)).clips
    )
    found: dict[str, Any] = {}
    for launch in on.PLACE.launches(batch.clips):
        compiled = kernel(launch.name, launch.defines)
        threads = launch.block[0] * launch.block[1]
        blocks = driver.occupancyMaxActiveBlocksPerMultiprocessor(compiled.kernel.ptr, threads, launch.shared_bytes)
        found[f"{launch.name} {dict(launch.defines)}"] = {
            "registers": compiled.num_regs, "local_bytes": compiled.local_size_bytes,
            "shared_bytes": launch.shared_bytes, "threads": threads, "blocks_per_multiprocessor": blocks,
        }  # fmt: skip
    return found


def sanitizers(quick: bool) -> dict[str, Any]:
    """13: what compute-sanitizer says of small cases: accesses, races, barriers, what was never written."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"absent": "compute-sanitizer is not in PATH"}
    found: dict[str, Any] = {}
    for check in ("memcheck", "racecheck", "synccheck", "initcheck"):
        command = [
            tool,
            "--tool",
            check,
            "--error-exitcode",
            "7",
            sys.executable,
            "-m",
            "benchmarks._audio_device",
            "small",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        found[check] = {"status": done.returncode, "says": (done.stdout + done.stderr)[-300:]}
    return found


def whole_way(quick: bool) -> dict[str, Any]:
    """14: from the bytes of files to features in the slab: how far from the CPU's, which backend, milliseconds a file."""
    found: dict[str, Any] = {}
    options = AudioOptions(features=WHISPER)
    with ExitStack() as stack:
        flows = {device: stack.enter_context(SyncFlow(device=device)) for device in ("cpu", "cuda")}
        for form in FORMS:
            data = encoded(form, 2.0 if quick else 30.0)
            made: dict[str, Any] = {}
            entry: dict[str, Any] = {}
            for device, flow in flows.items():
                with flow.load(data, options=options) as media:
                    made[device], entry[f"backend on {device}"] = media.numpy().copy(), media.backend
                began = time.perf_counter()
                for _ in range(_ROUNDS):
                    flow.load(data, options=options).release()
                entry[f"ms on {device}"] = round(1e3 * (time.perf_counter() - began) / _ROUNDS, 3)
            found[form] = entry | {"off": off(made["cuda"], made["cpu"])}
    return found


def small_cases() -> None:
    """What the sanitizers watch."""
    repeats(True)
    for name in (WHISPER, "granite-speech5", "seamless-m4t"):
        wave = clip(0.5)
        print(name, off(written([wave], mel_spec(name))[0], expected(wave, mel_spec(name))))


def _in_a_process(arguments: list[str], environment: dict[str, str]) -> Any:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-500:]}


if __name__ == "__main__":
    if sys.argv[1:] == ["small"]:
        small_cases()
    else:
        print(json.dumps(first_batches()))
