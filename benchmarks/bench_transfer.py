"""A tensor from one process to another: gpuflow against pickle over a socket, shared memory, Ray, Dynamo.

The publisher is a process of its own; one row is one size. Every contender asks for the tensor over a socket and ends
with the bytes in memory of the reading process, and the block at the publisher is free again. Two are views and no
copies: ``gpuflow map`` and Ray's ``get``. Dynamo reads into a process of its own (see ``_transfer_peers``).

    python -m benchmarks.bench_transfer [--rounds N] [--quick]
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing as mp
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks._transfer_peers import Read, peers
from gpuflow.device import choose
from gpuflow.media import Image, ImageMetadata, block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.transfer import Descriptor, Publisher, Reader

KIB, MIB = 1 << 10, 1 << 20


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    sizes = [KIB, MIB] if wanted.quick else [KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB, 256 * MIB]
    device = choose(wanted.device).name
    if device != "cpu":
        _measure_on_gpu(sizes, device, wanted)
        return
    with (
        publisher() as pipe,
        Reader(slab_bytes="640MiB", device="cpu") as reader,
        Reader(slab_bytes="640MiB", device="cpu", transports=("nixl",)) as nixl,
        peers(_pattern) as (others, absent),
    ):
        rows = [_row(size, pipe, reader, nixl, others, absent) for size in sizes]
        measured = measure(rows, rounds=wanted.rounds)
    print(save("transfer", measured, out=wanted.out, note="DRAM to DRAM on one host; memcpy is the limit"))


def _measure_on_gpu(sizes: list[int], device: str, wanted: argparse.Namespace) -> None:
    """GPU memory to GPU memory of another process, against torch's CUDA IPC and pickle through the host."""
    with publisher(device) as pipe, Reader(slab_bytes="640MiB", device=device) as reader:
        rows = [_gpu_row(size, pipe, reader) for size in sizes]
        measured = measure(rows, rounds=wanted.rounds)
    print(save("transfer", measured, out=wanted.out, device=device, note="VRAM to VRAM on one GPU"))


def _gpu_row(size: int, pipe: Connection, reader: Reader) -> Row:
    import torch

    expected = int(_pattern(size).astype(np.uint64).sum())
    target = torch.empty(size, dtype=torch.uint8, device=reader.slab.device)

    def gpuflow() -> Any:
        descriptor = Descriptor.from_bytes(ask(pipe, "publish", size))
        with reader.read(descriptor, timeout_seconds=30.0) as image:
            return image.tensor.sum(dtype=torch.int64)

    def cuda_ipc() -> Any:
        rebuild, arguments_ = ask(pipe, "cuda_ipc", size)
        target.copy_(rebuild(*arguments_))
        return target.sum(dtype=torch.int64)

    def pickled() -> Any:
        target.copy_(torch.from_numpy(ask(pipe, "pickle", size)))
        return target.sum(dtype=torch.int64)

    def check(name: str, result: Any) -> None:
        assert int(result) == expected, name

    ways = {"gpuflow": gpuflow, "torch CUDA IPC": cuda_ipc, "pickle and upload": pickled}
    return Row(label(size), [Contender(name, _synchronized(run)) for name, run in ways.items()], check)


def _synchronized(run: Callable[[], Any]) -> Callable[[], Any]:
    import torch

    def synchronized() -> Any:
        result = run()
        torch.cuda.synchronize()
        return result

    return synchronized


def _row(
    size: int, pipe: Connection, reader: Reader, nixl: Reader, others: dict[str, Read], absent: dict[str, str]
) -> Row:
    expected = int(_pattern(size).astype(np.uint64).sum())
    target = np.empty(size, np.uint8)
    source = _pattern(size)

    def gpuflow(by: Reader = reader) -> int:
        descriptor = Descriptor.from_bytes(ask(pipe, "publish", size))
        with by.read(descriptor, timeout_seconds=30.0) as image:
            return block_bytes(image.specs)

    def mapped() -> int:
        descriptor = Descriptor.from_bytes(ask(pipe, "publish", size))
        with reader.map(descriptor, timeout_seconds=30.0) as image:
            return int(image.numpy().nbytes)

    def pickled() -> Any:
        return ask(pipe, "pickle", size)

    def shared() -> Any:
        memory = shared_memory.SharedMemory(name=ask(pipe, "shared", size))
        np.copyto(target, _bytes_of(memory)[:size])
        memory.close()
        return target

    def memcpy() -> Any:
        np.copyto(target, source)
        return target

    def check(name: str, result: Any) -> None:
        if callable(result):
            assert result() == expected, name
        elif isinstance(result, np.ndarray):
            assert int(result.astype(np.uint64).sum()) == expected, name
        else:
            assert result == size, name

    contenders = [Contender("gpuflow", gpuflow), Contender("gpuflow map (a view)", mapped)]
    contenders += [Contender("gpuflow over NIXL", functools.partial(gpuflow, nixl))]
    contenders += [Contender("pickle over a socket", pickled)]
    contenders += [Contender("shared_memory + copy", shared), Contender("memcpy in one process", memcpy)]
    contenders += [Contender(name, functools.partial(read, size)) for name, read in others.items()]
    return Row(label(size), contenders, check, absent)


def ask(pipe: Connection, what: str, size: int) -> Any:
    """What the publishing process answers: ``"publish"`` and ``"keep"`` (for any number of reads) give a descriptor."""
    pipe.send((what, size))
    return pipe.recv()


@contextmanager
def publisher(device: str = "cpu") -> Iterator[Connection]:
    """A process that publishes, pickles and shares patterns of any size; ``ask`` it."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, device), daemon=True)
    process.start()
    theirs.close()  # so that its death ends our wait
    try:
        yield ours
    finally:
        ours.send(("stop", 0))
        process.join(30)


def _serve(pipe: Connection, device: str) -> None:
    arrays: dict[int, Any] = {}
    blocks: dict[int, shared_memory.SharedMemory] = {}
    images: dict[int, Image] = {}
    kept: list[Image] = []
    tensors: dict[int, Any] = {}
    with Slab("640MiB", device=device) as slab, Publisher(slab) as publisher:
        while (request := pipe.recv())[0] != "stop":
            what, size = request
            array = arrays.get(size)
            if array is None:
                array = arrays[size] = _pattern(size)
            if what == "publish":
                image = images.get(size) or images.setdefault(size, _place(slab, array))
                pipe.send(publisher.publish(image, ttl_seconds=30.0).to_bytes())
            elif what == "keep":
                kept.append(_place(slab, array))
                pipe.send(publisher.publish(kept[-1], reads=None, ttl_seconds=300.0).to_bytes())
            elif what == "pickle":
                pipe.send(array)
            elif what == "cuda_ipc":
                from torch.multiprocessing import reductions

                image = images.get(size) or images.setdefault(size, _place(slab, array))
                tensors[size] = tensors.get(size, image.tensor.clone())  # in torch's own memory
                pipe.send(_shared_by_torch(reductions, tensors[size]))
            else:
                block = blocks.get(size) or blocks.setdefault(size, _share(array))
                pipe.send(block.name)
        for image in [*images.values(), *kept]:
            image.release()
    for block in blocks.values():
        block.close()
        block.unlink()


def _place(slab: Slab, array: Any) -> Image:
    import torch

    specs = lay_out({"data": ("uint8", array.shape)})
    lease = slab.allocate(block_bytes(specs))
    lease.tensor(specs[0])[:] = torch.from_numpy(array)
    if slab.device != "cpu":
        torch.cuda.synchronize()
    lease.seal()
    return Image(lease, specs, ImageMetadata("raw", array.size, 1), backend="benchmark")


def _shared_by_torch(reductions: Any, tensor: Any) -> Any:
    return reductions.reduce_tensor(tensor)


def _share(array: Any) -> shared_memory.SharedMemory:
    block = shared_memory.SharedMemory(create=True, size=array.size)
    np.copyto(_bytes_of(block)[: array.size], array)
    return block


def _bytes_of(block: shared_memory.SharedMemory) -> Any:
    assert block.buf is not None
    return np.frombuffer(block.buf, np.uint8)


def _pattern(size: int) -> Any:
    return (np.arange(size, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(24)).astype(np.uint8)


def label(size: int) -> str:
    """A size as it is written."""
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


if __name__ == "__main__":
    main()
