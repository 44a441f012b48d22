"""Sound to Whisper's features on the CPU: features alone, from the bytes of files, and resampling alone.

    python -m benchmarks.bench_audio [--rounds N] [--quick]

Times are of one clip. On one thread everything has that one; torch is told so. On two threads a batch is shared out among
two threads with one torch thread each ("side by side"), or a library's own team of two works on it: peers run both ways,
gpuflow the first, and a single clip by one thread. Every result is compared with Hugging Face's extractor before anything
is timed. ``bench_audio_gpu`` is a GPU's.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import _audio_file_peers as files
from benchmarks import _audio_ours as ours
from benchmarks._audio_peers import FEATURES, Waves, hf_torch
from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks._resample_peers import RESAMPLERS, alias_db
from benchmarks._sounds import FILE_RATE, FORMS, RATE, Form, clip, encoded, stereo
from gpuflow.flow.sync import SyncFlow

OURS = "gpuflow"
WITH_TEAMS = frozenset({"HF torch", "torchaudio", "DALI CPU"})  # libraries with threads of their own
TOLERANCE = 1e-4  # of features alone
FILE_TOLERANCE = 5e-3  # decoders differ by 2e-6 in a sample, which the logarithm of silence amplifies
SWRESAMPLE_MEAN = 0.1  # as loud by 1.41, and aliases: 0.075 in the mean
_TEAM = ", team of two"
Load = Callable[[Any], Any]
Job = tuple[float, int, int, int]  # seconds, window, clips, threads


def main() -> None:
    """Run, print, save."""
    import torch
    from threadpoolctl import threadpool_limits  # which librosa brings

    wanted = arguments(__doc__ or "")
    torch.set_num_threads(1)
    threadpool_limits(
        1, user_api="blas"
    )  # OpenBLAS' second thread spins for 20 ms behind each product, beside whoever is next
    measured, targets = [], []
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)))
        flows = {n: stack.enter_context(SyncFlow(device="cpu", workers=n)) for n in (1, 2)}
        for job in _quick_jobs() if wanted.quick else _jobs():
            rounds = wanted.rounds if job[1] == ours.SHORT_WINDOW else max(1, wanted.rounds // 3)
            measured += measure([features_row(job, pool)], rounds=rounds, warm=1)
            targets += verdicts(measured[-1], job)
        for form, seconds, threads in _quick_files() if wanted.quick else itertools.product(FORMS, (5.0, 30.0), (1, 2)):
            row = _file_row(flows[threads], form, seconds, pool if threads > 1 else None, 2 if wanted.quick else 4)
            measured += measure([row], rounds=wanted.rounds, warm=1)
        for rate, seconds in (
            ((FILE_RATE, 1.0),) if wanted.quick else ((FILE_RATE, 30.0), (48_000, 30.0), (8_000, 30.0))
        ):
            measured += measure([_resample_row(rate, seconds)], rounds=wanted.rounds, warm=1)
            _note_aliases(measured[-1], rate)
    print(*(f"{target['met']!s:5} {target['what']}" for target in targets), sep="\n")
    note = "One clip; 'as X does': by hand."
    print(save("audio", measured, out=wanted.out, device="cpu", note=note, targets=targets))


def _jobs() -> Iterator[Job]:
    lengths = [(seconds, ours.SHORT_WINDOW) for seconds in (2.0, 5.0, 11.0, 30.0)] + [(3.0, ours.LONG_WINDOW)]
    for (seconds, window), clips, threads in itertools.product(lengths, (1, 8), (1, 2)):
        yield seconds, window, clips, threads


def _quick_jobs() -> Iterator[Job]:
    yield 2.0, ours.SHORT_WINDOW, 1, 1
    yield 2.0, ours.SHORT_WINDOW, 2, 2


def _quick_files() -> Iterator[tuple[Form, float, int]]:
    yield "mp3", 1.0, 1
    yield "m4a", 1.0, 2


def features_row(job: Job, pool: Executor) -> Row:
    """Features alone of a batch of 16 kHz clips, by gpuflow and every peer."""
    seconds, window, clips, threads = job
    waves = [clip(seconds, seed) for seed in range(clips)]
    expected = hf_torch(waves, window)

    def check(name: str, result: Any) -> None:
        off = max(float(np.abs(one - other).max()) for one, other in zip(_joined(result), expected, strict=True))
        assert off < TOLERANCE, (name, off)

    shared = threads > 1 and clips > 1
    runs: dict[str, Callable[[], Any]] = {}
    for name, batch in {OURS: ours.features, **FEATURES}.items():
        alone = functools.partial(batch, waves, window)
        runs[name] = functools.partial(_shared, batch, waves, window, pool) if shared else alone
        if threads > 1 and name in WITH_TEAMS:
            runs[name + _TEAM] = functools.partial(_by_a_team, alone)
            if not shared:
                del runs[name]  # one clip on one thread: the row before
    what = f"features alone, {clips} x {seconds:g} s of {window} s, {threads} thread{'s' * (threads > 1)}"
    return Row(what, [Contender(name, run) for name, run in runs.items()], check, items=clips)


def _joined(result: Any) -> list[Any]:
    """Clip after clip, of a batch, of a list of clips, or of what each thread made."""
    return [each for part in result for each in (part if np.ndim(part[0]) == 2 else [part])]


def _shared(batch: Callable[[Waves, int], Any], waves: Waves, window: int, pool: Executor) -> list[Any]:
    half = -(-len(waves) // 2)
    return list(pool.map(lambda part: batch(part, window), (waves[:half], waves[half:])))


def _by_a_team(run: Callable[[], Any]) -> Any:
    import torch

    torch.set_num_threads(2)
    try:
        return run()
    finally:
        torch.set_num_threads(1)


def _file_row(flow: SyncFlow, form: Form, seconds: float, pool: Executor | None, count: int) -> Row:
    """Files, other sound in each, one after another or by two threads side by side."""
    datas = [encoded(form, seconds, seed) for seed in range(count)]
    absent = files.absent(form)
    peers = {name: load for name, load in files.LOADS.items() if name not in absent}
    reference = next(load for name, load in peers.items() if name not in files.BY_SWRESAMPLE)
    for data in datas:
        expected = reference(data)
        _check_file(OURS, np.abs(_loaded(flow, data, copy=True) - expected))
        for name, load in peers.items():
            _check_file(name, np.abs(load(data) - expected))
    loads: dict[str, Load] = {OURS: functools.partial(_loaded, flow), **peers}
    kilobytes = round(np.mean([len(data) for data in datas]) / 1e3)
    row = f"{form} of {seconds:g} s, 44.1 kHz stereo ({kilobytes} kB), {'2 threads' if pool else '1 thread'}"
    contenders = [Contender(name, functools.partial(_all_of, load, datas, pool)) for name, load in loads.items()]
    return Row(row, contenders, absent=absent, items=count)


def _check_file(name: str, off: Any) -> None:
    if name in files.BY_SWRESAMPLE:
        assert off.mean() < SWRESAMPLE_MEAN, (name, off.mean())
    else:
        assert off.max() < FILE_TOLERANCE, (name, off.max())


def _loaded(flow: SyncFlow, data: bytes, *, copy: bool = False) -> Any:
    """Load and give the memory back, as a server does once its model has read it."""
    with ours.load(flow, data) as features:
        return features.numpy().copy() if copy else None


def _all_of(load: Load, datas: Sequence[bytes], pool: Executor | None) -> None:
    for _ in pool.map(load, datas) if pool else map(load, datas):
        pass


def _resample_row(rate: int, seconds: float) -> Row:
    """One channel; lengths may differ by what each library makes of the last samples."""
    sound = stereo(seconds)[0]

    def check(name: str, result: Any) -> None:
        assert abs(len(result) - len(sound) * RATE / rate) <= 2, (name, len(result))

    calls = {OURS: _ours_resampled, **RESAMPLERS}
    contenders = [Contender(name, functools.partial(call, sound, rate)) for name, call in calls.items()]
    return Row(f"resampling alone, {len(sound) / rate:.3g} s of {rate} Hz to 16 kHz", contenders, check)


def _ours_resampled(sound: Any, rate: int) -> Any:
    return ours.resampled(sound[None], rate)[0]


def _note_aliases(row: dict[str, Any], rate: int) -> None:
    if rate < FILE_RATE:
        return  # it holds little above 8 kHz, or nothing
    for name, call in {OURS: _ours_resampled, **RESAMPLERS}.items():
        row["entries"][name]["alias_db"] = alias_db(call, rate)


def verdicts(row: dict[str, Any], job: Job) -> list[dict[str, Any]]:
    """What a measured row says about the issue's targets: against the fastest peer, or Hugging Face's fastest way."""
    seconds, window, _, _ = job
    ratios = {name: entry["wall_ratio"] for name, entry in row["entries"].items() if not name.startswith(OURS)}
    fastest = min(ratios, key=ratios.__getitem__)
    hugging_face = min((name for name in ratios if name.startswith("HF ")), key=ratios.__getitem__)
    least = {fastest: 1.5 if seconds == 30 else 1.0}
    if window == ours.LONG_WINDOW:
        least = {fastest: 1.0, hugging_face: 50.0}
    elif seconds == 5:
        least = {fastest: 1.0, hugging_face: 5.0}
    return [_verdict(row["name"], name, ratios[name], wanted) for name, wanted in least.items()]


def _verdict(row: str, peer: str, ratio: float, least: float) -> dict[str, Any]:
    what = f"{row}: {peer} takes {ratio:.2f} times as long; target: {least:g}"
    return {"row": row, "peer": peer, "is": ratio, "at_least": least, "met": ratio >= least, "what": what}


if __name__ == "__main__":
    main()
