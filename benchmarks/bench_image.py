"""Image bytes to model tensor: gpuflow against Hugging Face's processors, torchvision by hand, DALI and servers' steps.

    python -m benchmarks.bench_image [--rounds N] [--quick]

All run on the CPU (``bench_image_gpu`` is a GPU's), start from the same encoded bytes in memory and end with CLIP's
pixel_values of 336x336 or Qwen2.5-VL's patches, float32. A row's pictures are loaded one after another on one thread, or
by two threads side by side; times are of one picture. Every result is compared with Hugging Face's processor before
anything is timed: equal, or within 20 levels of 255 (0.5 in the mean) where a contender resizes by another library. Torch
has one thread in each thread that loads, for all contenders: teams of threads only fight each other where every core
loads an image.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks._image_peers import JPEG_ONLY, LEVEL, OTHER_FILTERS, PEERS, Target, hf_torchvision
from benchmarks._pictures import Form, encoded
from gpuflow.config import ImageOptions
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Media

SMALL = ((500, 375),) * 8
LARGE = ((3_000, 2_000), (2_304, 1_728), (2_048, 1_536), (1_920, 1_080))
OURS: dict[str, Literal["exact", "dali"]] = {"gpuflow": "exact", "gpuflow, DALI engine": "dali"}
OTHER = OTHER_FILTERS | {"gpuflow, DALI engine"}
EQUAL_LEVELS, FILTER_LEVELS, FILTER_MEAN_LEVELS = 1e-3, 20.0, 0.5
_NO_DECODER = "its decoder of this format has no call from Python"
Sizes = Sequence[tuple[int, int]]
Load = Callable[[bytes], Any]


def main() -> None:
    """Run, print, save."""
    import torch

    wanted = arguments(__doc__ or "")
    torch.set_num_threads(1)
    measured, targets = [], []
    with ExitStack() as stack:
        flows = {n: stack.enter_context(SyncFlow(device="cpu", workers=n)) for n in (1, 2)}
        pool = stack.enter_context(ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)))
        for form, sizes, target, threads in _quick_jobs() if wanted.quick else _jobs():
            row = _row(flows[threads], form, sizes, target, pool if threads > 1 else None)
            measured += measure([row], rounds=wanted.rounds, warm=1)
            targets += with_rates(measured[-1], form)
        print(*(f"{target['met']!s:5} {target['what']}" for target in targets), sep="\n")
        note = "One picture; torch has 1 thread in each that loads; 'as X does': by hand."
        print(save("image", measured, out=wanted.out, device="cpu", note=note, targets=targets))


def _jobs() -> Iterator[tuple[Form, Sizes, Target, int]]:
    pictures: tuple[tuple[Form, Sizes], ...] = (("JPEG", SMALL), ("JPEG", LARGE), ("PNG", SMALL), ("WEBP", SMALL))
    kinds: tuple[Target, ...] = ("clip-336", "qwen2.5-vl")
    for target, (form, sizes), threads in itertools.product(kinds, pictures, (1, 2)):
        yield form, sizes, target, threads


def _quick_jobs() -> Iterator[tuple[Form, Sizes, Target, int]]:
    yield "JPEG", ((96, 64),), "clip-336", 1
    yield "PNG", ((96, 64), (64, 96)), "qwen2.5-vl", 2


def _row(flow: SyncFlow, form: Form, sizes: Sizes, target: Target, pool: Executor | None) -> Row:
    datas = [encoded(form, *size, seed) for seed, size in enumerate(sizes)]
    ours = {name: functools.partial(_ours, flow, target, engine) for name, engine in OURS.items()}
    absent = {name: _NO_DECODER for name in JPEG_ONLY if form != "JPEG"}
    peers: dict[str, Load] = {n: functools.partial(peer, target) for n, peer in PEERS.items() if n not in absent}
    _check(peers | {name: functools.partial(load, take=_copied) for name, load in ours.items()}, target, datas)
    loads: dict[str, Load] = {**ours, **peers}
    kilobytes = round(np.mean([len(data) for data in datas]) / 1e3)
    row = f"{form} {_named(sizes)} ({kilobytes} kB) to {target}, {'2 threads' if pool else '1 thread'}"
    contenders = [Contender(name, functools.partial(_all_of, load, datas, pool)) for name, load in loads.items()]
    return Row(row, contenders, absent=absent, items=len(datas))


def _named(sizes: Sizes) -> str:
    if len(set(sizes)) == 1:
        return "x".join(map(str, sizes[0]))
    megapixels = [width * height / 1e6 for width, height in sizes]
    return f"{min(megapixels):.2g}-{max(megapixels):.2g} MP"


def _ours(
    flow: SyncFlow,
    target: Target,
    engine: Literal["exact", "dali"],
    data: bytes,
    take: Callable[[Media], Any] = lambda _: None,
) -> Any:
    """Load and give the memory back, as a server does once its model has read it."""
    with flow.load(data, options=ImageOptions(preset=target, engine=engine)) as features:
        return take(features)


def _all_of(load: Load, datas: Sequence[bytes], pool: Executor | None) -> None:
    if pool is None:
        for data in datas:
            load(data)
        return
    for waiting in [pool.submit(_dropped, load, data) for data in datas]:
        waiting.result()


def _dropped(load: Load, data: bytes) -> None:
    load(data)


def _check(loads: dict[str, Load], target: Target, datas: Sequence[bytes]) -> None:
    """Every contender's result for every picture against Hugging Face's processor."""
    for data in datas:
        expected = hf_torchvision(target, data).numpy()
        for name, load in loads.items():
            off = np.abs(np.asarray(load(data)).reshape(expected.shape) - expected) / LEVEL
            assert off.max() <= (FILTER_LEVELS if name in OTHER else EQUAL_LEVELS), (name, off.max())
            assert off.mean() <= FILTER_MEAN_LEVELS, (name, off.mean())


def _copied(features: Media) -> Any:
    return features.numpy().copy()


def with_rates(row: dict[str, Any], form: Form) -> list[dict[str, Any]]:
    """Note images a second of each contender of a measured row; what the row says about the targets."""
    entries = row["entries"]
    for entry in entries.values():
        entry["images_per_second"] = round(1e3 / entry["wall_ms"], 1)
    fastest = min((name for name in entries if name.startswith("HF ")), key=lambda name: entries[name]["wall_ms"])
    least = {"HF PIL": 3.5, fastest: 1.2} if form == "JPEG" else {fastest: 1.0}
    return [_target(row, name, ratio) for name, ratio in least.items()]


def _target(row: dict[str, Any], peer: str, least: float) -> dict[str, Any]:
    wall, cpu = (row["entries"][peer][ratio] for ratio in ("wall_ratio", "cpu_ratio"))
    what = f"{row['name']}: {peer} takes {wall:.2f} times as long ({cpu:.2f} of CPU time); target: {least}"
    ratios = {"least": least, "wall_ratio": wall, "cpu_ratio": cpu}
    return {"row": row["name"], "peer": peer, **ratios, "met": wall >= least, "what": what}


if __name__ == "__main__":
    main()
