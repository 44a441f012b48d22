"""Samples on the host to Whisper's features on a GPU, by the size of the batch, against peers that work in batches there.

    python -m benchmarks.bench_audio_gpu [--rounds N] [--quick] [--device cpu]

Clips of 16 kHz float32 lie in the host's memory; the clock stops when all features of the batch lie in the device's. Times
are of one clip. Peers pad each clip to 30 s in pinned memory that they keep. Then stored PCM of 44.1 kHz stereo to 16 kHz
mono. A row says how far each contender is from the CPU's features, how many launches gpuflow makes, and which share of the
measured copy rate its bytes take. Without a GPU it ends with status 3 and says why; --device cpu runs everything on the
libraries' CPU paths: a test, and no measurement.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import _audio_ours as ours
from benchmarks import _audio_place as on
from benchmarks._audio_gpu_peers import ON_CPU, PEERS, SLOW_TO_START
from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks._resample_gpu_peers import RESAMPLE_PEERS
from benchmarks._resample_peers import by_soxr
from benchmarks._sounds import FILE_RATE, RATE, clip, stereo
from gpuflow.device import driver
from gpuflow.ops.pcm import PcmSamples
from gpuflow.presets.mel_specs import mel_spec

NO_GPU = 3
BATCHES, LENGTHS_SECONDS = (1, 8, 64, 256), (3.0, 11.0, 30.0)
OURS, SIXTEEN_BITS = "gpuflow", "gpuflow, bfloat16"
MOST_OFF = 8e-3  # bfloat16 keeps 8 bits; all others are within 1e-4
SOUNDS = 16  # of a length: other contents


def main() -> int:
    """Run, print, save."""
    import torch

    wanted = arguments(__doc__ or "")
    if wanted.device != "cpu" and not driver().count:
        print(f"no GPU here: {driver().reason}")
        return NO_GPU
    torch.set_num_threads(1)
    device = "cpu" if wanted.device == "cpu" else "cuda"
    measured = list(rows(device, rounds=wanted.rounds, quick=wanted.quick))
    hardware = {"copy_gigabytes_per_second": copy_rate(device, quick=wanted.quick)}
    for row in measured:
        row["share_of_the_copy_rate"] = share(row, hardware["copy_gigabytes_per_second"])
    targets = [verdict for row in measured for verdict in verdicts(row)]
    print(*(f"{target['met']!s:5} {target['what']}" for target in targets), sep="\n")
    note = "times of one clip; host to device, all of a batch"
    print(save("audio_gpu", measured, out=wanted.out, device=device, note=note, hardware=hardware, targets=targets))
    return 0


def rows(device: str, *, rounds: int, quick: bool) -> Iterator[dict[str, Any]]:
    """All rows, each measured as it is asked for."""
    for batch, seconds in ((1, 1.0), (2, 1.0)) if quick else itertools.product(BATCHES, LENGTHS_SECONDS):
        yield _features_row(batch, seconds, device, rounds, skip=SLOW_TO_START if quick else frozenset())
    for batch in (2,) if quick else BATCHES[:3]:
        yield _resample_row(batch, 0.5 if quick else 30.0, device, rounds)


def _features_row(batch: int, seconds: float, device: str, rounds: int, skip: frozenset[str]) -> dict[str, Any]:
    waves = [clip(seconds, seed % SOUNDS) for seed in range(batch)]
    expected = ours.features(waves[:SOUNDS], ours.SHORT_WINDOW)
    calls: dict[str, Callable[[], Any]] = {OURS: _ours(waves, "float32", device)}
    if device != "cpu":
        calls[SIXTEEN_BITS] = _ours(waves, "bfloat16", device)
    calls |= {name: functools.partial(peer, waves, device) for name, peer in PEERS.items() if name not in skip}
    row = _measured(f"{batch} x {seconds:g} s of 16 kHz to 30 s of features", calls, expected, batch, rounds)
    row["absent"] |= dict.fromkeys(skip, "takes a minute to begin")
    row["bytes_a_clip"] = {
        OURS: 4 * len(waves[0]) + expected[0].nbytes,
        SIXTEEN_BITS: 4 * len(waves[0]) + expected[0].nbytes // 2,
    }
    row["launches"] = _launches(waves) if device != "cpu" else None
    return row | {"kind": "features", "batch": batch}


def _ours(waves: Sequence[Any], dtype: str, device: str) -> Callable[[], Any]:
    """Features into memory that is there already, as a slab's is."""
    if device == "cpu":
        return functools.partial(ours.features, waves, ours.SHORT_WINDOW)
    spec, pcms = mel_spec(ours.SPECS[ours.SHORT_WINDOW]), _stored(waves)
    outs = on.feature_batch(pcms, spec, dtype).outs

    def run() -> Any:
        on.PLACE.write(on.feature_batch(pcms, spec, dtype, outs=outs).clips)
        _settle(device)
        return outs

    return run


def _stored(waves: Sequence[Any]) -> list[PcmSamples]:
    return [PcmSamples.of(wave[None], RATE) for wave in waves]


def _launches(waves: Sequence[Any]) -> int:
    pcms = [on.on_device(pcm) for pcm in _stored(waves)]
    return len(on.PLACE.launches(on.feature_batch(pcms, mel_spec(ours.SPECS[ours.SHORT_WINDOW])).clips))


def _resample_row(batch: int, seconds: float, device: str, rounds: int) -> dict[str, Any]:
    sounds = [np.round(stereo(seconds, seed % SOUNDS) * 32_767).astype(np.int16) for seed in range(batch)]
    interleaved = [np.ascontiguousarray(sound.T) for sound in sounds]
    expected = [by_soxr(sound.astype(np.float32).mean(axis=0) / 32_768, FILE_RATE) for sound in sounds[:SOUNDS]]
    calls: dict[str, Callable[[], Any]] = {OURS: _ours_resampled(interleaved, device)}
    calls |= {name: functools.partial(peer, interleaved, device) for name, peer in RESAMPLE_PEERS.items()}
    what = f"resampling {batch} x {seconds:g} s of 44.1 kHz stereo, 16 bits, to 16 kHz mono"
    row = _measured(what, calls, expected, batch, rounds, most_off=0.5)
    row["bytes_a_clip"] = {OURS: interleaved[0].nbytes + expected[0].nbytes}
    return row | {"kind": "resampling", "batch": batch}


def _ours_resampled(interleaved: Sequence[Any], device: str) -> Callable[[], Any]:
    if device == "cpu":
        return functools.partial(_resampled_here, interleaved)
    pcms = [PcmSamples(sound, "s16", 2, len(sound), FILE_RATE) for sound in interleaved]
    outs = on.wave_batch(pcms, RATE).outs

    def run() -> Any:
        on.PLACE.write(on.wave_batch(pcms, RATE, outs=outs).clips)
        _settle(device)
        return [out[0] for out in outs]

    return run


def _resampled_here(interleaved: Sequence[Any]) -> list[Any]:
    mono = [sound.mean(axis=1, dtype=np.float32) / np.float32(32_768) for sound in interleaved]
    return [ours.resampled(sound[None], FILE_RATE)[0] for sound in mono]


def _settle(device: str) -> None:
    if device != "cpu":
        import cupy

        cupy.cuda.get_current_stream().synchronize()


def _measured(
    what: str,
    calls: dict[str, Callable[[], Any]],
    expected: Sequence[Any],
    batch: int,
    rounds: int,
    most_off: float = MOST_OFF,
) -> dict[str, Any]:
    """The row of all that run and are right; how far each is off; why the others are absent."""
    off, absent = {}, {}
    for name, call in calls.items():
        try:
            off[name] = _off(call(), expected, most_off)
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and that is a result
            absent[name] = f"fails: {type(error).__name__} {str(error).strip()[:120]}"
    contenders = [Contender(name, calls[name]) for name in off]
    (row,) = measure([Row(what, contenders, absent=absent, items=batch)], rounds=rounds, warm=1)
    for name, entry in row["entries"].items():
        entry["max_off"] = off[name]
        entry["microseconds_a_clip"] = round(1e3 * entry["wall_ms"], 2)
    return row


def _off(results: Sequence[Any], expected: Sequence[Any], most: float) -> float:
    found = 0.0
    for result, wanted in zip(results, expected, strict=False):
        values = on.as_float32(np.asarray(_on_host(result)))
        count = min(values.shape[-1], wanted.shape[-1])
        found = max(found, float(np.abs(values[..., :count] - wanted[..., :count]).max()))
    if not found <= most:
        raise ValueError(f"off by {found:.3g}")
    return round(found, 7)


def _on_host(values: Any) -> Any:
    return values.get() if hasattr(values, "get") else values.cpu() if hasattr(values, "cpu") else values


def copy_rate(device: str, *, quick: bool = False) -> float:
    """Gigabytes a second of one copy within the device's memory, read and written."""
    nbytes = 1 << (20 if quick else 30)
    if device == "cpu":
        source, target = np.ones(nbytes, np.uint8), np.empty(nbytes, np.uint8)
        (row,) = measure([Row("copy", [Contender("gpuflow", lambda: np.copyto(target, source))])], rounds=3)
        return float(round(2 * nbytes / row["entries"]["gpuflow"]["wall_ms"] / 1e6, 1))
    arrays = [on.PLACE.empty((nbytes,), np.uint8).data for _ in range(2)]
    taken = on.PLACE.microseconds(functools.partial(arrays[0].copy_from_device_async, arrays[1], nbytes))
    return round(2 * nbytes / taken / 1e3, 1)


def share(row: dict[str, Any], gigabytes_per_second: float) -> dict[str, float]:
    """gpuflow's bytes a second, each byte once, over the copy's."""
    found = {}
    for name, nbytes in row["bytes_a_clip"].items():
        if name in row["entries"]:
            found[name] = round(nbytes / row["entries"][name]["wall_ms"] / 1e6 / gigabytes_per_second, 4)
    return found


def verdicts(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What a measured row says about the issue's targets: at batch 8 against the fastest peer on the GPU; HF on the CPU."""
    if row["kind"] != "features":
        return []
    ratios = {name: e["wall_ratio"] for name, e in row["entries"].items() if not name.startswith(OURS)}
    fastest = min((name for name in ratios if name not in ON_CPU), key=ratios.__getitem__, default=None)
    least = {name: 100.0 for name in ON_CPU if name in ratios}
    if fastest is not None:
        least[fastest] = 3.0 if row["batch"] == 8 else 1.0
    return [
        {
            "row": row["name"], "peer": name, "is": ratios[name], "at_least": wanted, "met": ratios[name] >= wanted,
            "what": f"{row['name']}: {name} takes {ratios[name]:.2f} times as long; target: {wanted:g}",
        }
        for name, wanted in least.items()
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
