"""Ray's object store and Dynamo's ``nixl_connect`` as contenders of ``bench_transfer``; both are optional.

    uv run --group peers python -m benchmarks.bench_transfer

Dynamo's NIXL agents spin a core each for as long as they live, so its two processes are stopped outside their turn:
otherwise every other contender would run beside two busy cores.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import multiprocessing as mp
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

Read = Callable[[int], Any]
Pattern = Callable[[int], Any]

STORE_BYTES = 1 << 30


@contextmanager
def peers(pattern: Pattern) -> Iterator[tuple[dict[str, Read], dict[str, str]]]:
    """What reads a pattern of a size from another process, by name; and which peers are absent, with the reason.

    A read gives the array, or a function that gives the sum of its bytes.
    """
    known: dict[str, tuple[str, Callable[[Pattern], AbstractContextManager[Read]]]] = {
        "Ray object store (a view)": ("ray", _ray),
        "Dynamo nixl_connect": ("ai-dynamo-runtime", _dynamo),
    }
    absent = {name: reason for name, (package, _) in known.items() if (reason := _missing(package))}
    with ExitStack() as stack:
        yield {name: stack.enter_context(known[name][1](pattern)) for name in known if name not in absent}, absent


def _missing(package: str) -> str | None:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"{package} is not installed: uv run --group peers"
    return None


@contextmanager
def _ray(pattern: Pattern) -> Iterator[Read]:
    """``ray.put`` in an actor, ``ray.get`` here: a read-only view of the store, which the result keeps alive."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = (
        "0"  # else each worker starts through uv, in an environment of its own
    )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    class Holder:
        def __init__(self) -> None:
            self.arrays: dict[int, Any] = {}

        def put(self, size: int) -> list[Any]:
            if size not in self.arrays:
                self.arrays[size] = pattern(size)
            return [ray.put(self.arrays[size])]

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=STORE_BYTES,
    )
    try:
        holder: Any = ray.remote(Holder).remote()
        yield lambda size: ray.get(ray.get(holder.put.remote(size))[0])
    finally:
        ray.shutdown()


@contextmanager
def _dynamo(pattern: Pattern) -> Iterator[Read]:
    """``create_readable`` in one process, ``begin_read`` in another; each read connects and registers anew."""
    with _stopped_process(pattern) as publisher, _stopped_process(pattern) as reader:

        def read(size: int) -> Callable[[], int]:
            with publisher.running(), reader.running():
                reader.ask("read", (publisher.ask("offer", size), size))
            return total

        def total() -> int:
            with reader.running():
                return int(reader.ask("sum", None))

        yield read


class _Process:
    """A process that answers requests, and runs only within ``running()``."""

    def __init__(self, pid: int, pipe: Connection) -> None:
        self._pid = pid
        self._pipe = pipe

    def ask(self, what: str, value: Any) -> Any:
        self._pipe.send((what, value))
        return self._pipe.recv()

    @contextmanager
    def running(self) -> Iterator[None]:
        os.kill(self._pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGSTOP)


@contextmanager
def _stopped_process(pattern: Pattern) -> Iterator[_Process]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, pattern), daemon=True)
    process.start()
    theirs.close()  # so that its death ends our wait
    assert process.pid is not None
    try:
        yield _Process(process.pid, ours)
    finally:
        process.kill()  # a stopped process takes no other signal
        process.join(30)


def _serve(pipe: Connection, pattern: Pattern) -> None:
    asyncio.run(_answer(pipe, pattern))


async def _answer(pipe: Connection, pattern: Pattern) -> None:
    import torch
    from dynamo import nixl_connect

    connector = nixl_connect.Connector()
    offered: dict[int, Any] = {}
    unread: set[asyncio.Task[None]] = set()
    target = torch.empty(0, dtype=torch.uint8)
    while True:
        what, value = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        if what == "offer":
            if value not in offered:
                offered[value] = torch.from_numpy(pattern(value))
            operation = await connector.create_readable(nixl_connect.Descriptor(offered[value]))
            pipe.send(operation.metadata().model_dump())
            task = asyncio.create_task(operation.wait_for_completion())
            unread.add(task)
            task.add_done_callback(unread.discard)
        elif what == "read":
            form, size = value
            target = torch.empty(size, dtype=torch.uint8)
            metadata = nixl_connect.RdmaMetadata.model_validate(form)
            with await connector.begin_read(metadata, nixl_connect.Descriptor(target)) as operation:
                await operation.wait_for_completion()
            pipe.send(None)
        else:
            pipe.send(int(target.numpy().astype(np.uint64).sum()))
