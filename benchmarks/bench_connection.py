"""What a read over NIXL is made of: a kept connection against one made for each read, and the check of the generation.

The publisher is a process of its own, on this host.

    python -m benchmarks.bench_connection [--rounds N] [--quick]
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

from benchmarks._harness import Contender, Row, arguments, measure, save
from benchmarks.bench_transfer import MIB, ask, label, publisher
from gpuflow.transfer import Descriptor, Peer, Reader
from gpuflow.transfer.nixl import Agent, Region


def main() -> None:
    """Run, print, save."""
    wanted = arguments(__doc__ or "")
    sizes = [MIB] if wanted.quick else [MIB, 64 * MIB]
    with publisher() as pipe, Reader(slab_bytes="256MiB", device="cpu", transports=("nixl",)) as reader:
        rows = [_connection_row(pipe, reader)] + [_generation_row(pipe, reader, size) for size in sizes]
        measured = measure(rows, rounds=wanted.rounds)
    print(save("connection", measured, out=wanted.out, note="NIXL over UCX on one host"))


def _connection_row(pipe: Connection, reader: Reader) -> Row:
    descriptor = Descriptor.from_bytes(ask(pipe, "keep", MIB))

    def kept() -> int:
        with reader.read(descriptor, timeout_seconds=30.0) as image:
            return int(image.numpy().nbytes)

    def made() -> int:
        _agent(reader).forget(descriptor.agent)
        return kept()

    def check(name: str, result: int) -> None:
        assert result == MIB, name

    contenders = [Contender("gpuflow: connection kept", kept), Contender("connection made for each read", made)]
    return Row("1 MiB over NIXL", contenders, check)


def _generation_row(pipe: Connection, reader: Reader, size: int) -> Row:
    descriptor = Descriptor.from_bytes(ask(pipe, "keep", size))
    assert isinstance(descriptor.peer, Peer)
    reader.read(descriptor, timeout_seconds=30.0).release()
    lease, agent = reader.slab.allocate(size + 8), _agent(reader)
    payload = (Region("DRAM", lease.address, size), Region("DRAM", descriptor.address, size))
    word = (Region("DRAM", lease.address + size, 8), Region("DRAM", descriptor.table_address, 8))

    def unchecked() -> int:
        agent.read(descriptor.agent, [payload], deadline=time.monotonic() + 30.0)
        return size

    def checked() -> int:
        unchecked()
        agent.read(descriptor.agent, [word], deadline=time.monotonic() + 30.0)
        assert int.from_bytes(lease.memory()[size : size + 8], "little") == descriptor.generation
        return size

    def check(name: str, result: int) -> None:
        assert result == size, name

    contenders = [Contender("gpuflow: generation checked", checked), Contender("not checked", unchecked)]
    return Row(f"the transfers of a read of {label(size)}", contenders, check)


def _agent(reader: Reader) -> Agent:
    return reader._routes._start_nixl()._agent


if __name__ == "__main__":
    main()
