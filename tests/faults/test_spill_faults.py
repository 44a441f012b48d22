"""What a disk can do to spilled media: be full, end short, flip a bit. All of it is an error, none of it is data."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpuflow.errors import LeaseExpired, SlabExhausted, SpillError
from gpuflow.media import Image, ImageMetadata, lay_out
from gpuflow.memory import Entry, FileTier, HostTier, Slab, TieredMemory

MIB = 1 << 20


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[FileTier]:
    tier = FileTier(tmp_path, "16MiB")
    yield tier
    tier.close()


@pytest.fixture
def small() -> Iterator[Slab]:
    with Slab("4MiB") as slab:
        yield slab
        assert slab.statistics().live_leases == 0


@pytest.mark.parametrize("position", [0, 500_000, MIB - 1])
def test_a_flipped_bit_is_an_error_and_the_entry_is_dropped(tier: FileTier, small: Slab, position: int) -> None:
    with TieredMemory(small, [tier], high_watermark=1.0, low_watermark=1.0) as memory:
        entry = _spilled(memory, "file")
        byte = os.pread(tier.file, 1, position)[0]
        os.pwrite(tier.file, bytes([byte ^ 0x10]), position)
        with pytest.raises(SpillError, match="checksum"):
            entry.pin()
        with pytest.raises(LeaseExpired):
            entry.pin()
        found = memory.statistics()
        assert (found.restore_failures, found.entries) == (1, {"slab": 0, "file": 0})


def test_a_file_that_became_short_is_an_error(tier: FileTier, small: Slab) -> None:
    with TieredMemory(small, [tier], high_watermark=1.0, low_watermark=1.0) as memory:
        entry = _spilled(memory, "file")
        os.ftruncate(tier.file, MIB // 2)
        with pytest.raises(SpillError, match="shorter"):
            entry.pin()
        assert entry.where == "dropped"


def test_a_changed_block_in_the_host_tier_is_an_error(small: Slab) -> None:
    tier = HostTier("8MiB")
    with TieredMemory(small, [tier], high_watermark=1.0, low_watermark=1.0) as memory:
        entry = _spilled(memory, "host")
        tier.slab.backing.buffer(1000, 1)[:] = b"?"  # type: ignore[attr-defined]
        with pytest.raises(SpillError, match="checksum"):
            entry.pin()


def test_a_disk_that_fails_leaves_everything_in_the_slab_and_is_left_alone_for_a_while(
    tier: FileTier, small: Slab
) -> None:
    with TieredMemory(small, [tier], high_watermark=1.0, low_watermark=1.0) as memory:
        entries = [_kept(memory, seed) for seed in range(4)]
        working, tier.file = tier.file, os.open("/dev/full", os.O_RDWR)
        for _ in range(3):
            with pytest.raises(SlabExhausted):
                small.allocate(MIB)
        found = memory.statistics()
        assert (found.spill_failures, found.spills, found.drops) == (1, 0, 0)
        assert {entry.where for entry in entries} == {"slab"}
        for seed, entry in enumerate(entries):
            with entry.pin() as media:
                assert media.numpy().tobytes() == np.random.default_rng(seed).bytes(MIB)
        os.close(tier.file)
        tier.file = working


def test_a_full_tier_above_one_that_fails_drops_nothing(tier: FileTier, small: Slab) -> None:
    with TieredMemory(small, [HostTier("2MiB"), tier], high_watermark=1.0, low_watermark=1.0) as memory:
        entries = [_kept(memory, seed) for seed in range(6)]
        working, tier.file = tier.file, os.open("/dev/full", os.O_RDWR)
        with pytest.raises(SlabExhausted):
            small.allocate(MIB)
        os.close(tier.file)
        tier.file = working
        found = memory.statistics()
        assert (found.spill_failures, found.drops, found.entries) == (1, 0, {"slab": 4, "host": 2, "file": 0})
        for seed, entry in enumerate(entries[:2]):
            assert entry.where == "host", seed


def test_a_block_that_cannot_be_read_on_its_way_down_is_dropped(tier: FileTier, small: Slab, tmp_path: Path) -> None:
    first = FileTier(tmp_path, "2MiB")
    with TieredMemory(small, [first, tier], high_watermark=1.0, low_watermark=1.0) as memory:
        entries = [_kept(memory, seed) for seed in range(6)]
        oldest, next_one = ([entry for entry in entries if entry.where == "file"])[:2]
        os.pwrite(first.file, b"????", 0)
        small.allocate(2 * MIB).release()
        assert [oldest.where, next_one.where] == ["dropped", "file"]
        assert memory.statistics().drops == 1
        for seed, entry in enumerate(entries[1:], 1):
            with entry.pin() as media:
                assert media.numpy().tobytes() == np.random.default_rng(seed).bytes(MIB)


def test_where_one_tier_fails_the_next_one_takes_over(tier: FileTier, small: Slab) -> None:
    with TieredMemory(small, [tier, HostTier("8MiB")], high_watermark=1.0, low_watermark=1.0) as memory:
        working, tier.file = tier.file, os.open("/dev/full", os.O_RDWR)
        entry = _spilled(memory, "host")
        os.close(tier.file)
        tier.file = working
        with entry.pin() as media:
            assert media.numpy().tobytes() == np.random.default_rng(0).bytes(MIB)


def test_a_disk_without_room_is_an_error_when_the_tier_is_made(tmp_path: Path) -> None:
    script = f"""
import resource
from gpuflow.errors import SpillError
from gpuflow.memory import FileTier
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    FileTier({str(tmp_path)!r}, "2MiB")
except SpillError as error:
    assert isinstance(error.__cause__, OSError), error
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "refused\n"
    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_without_room_is_an_error_when_the_tier_is_made(tmp_path: Path) -> None:
    prefix = ["unshare", "--mount", "--map-root-user"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("mount namespaces cannot be made here")
    python = (
        "from gpuflow.errors import SpillError\nfrom gpuflow.memory import FileTier\n"
        "import errno, sys\ntry:\n    FileTier(sys.argv[1], '64MiB')\n"
        "except SpillError as error:\n    print(errno.errorcode[error.__cause__.errno])\n"
    )
    command = f'mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    done = subprocess.run(
        [*prefix, "sh", "-c", command, python], capture_output=True, text=True, timeout=60, check=False
    )
    if "mount:" in done.stderr:
        pytest.skip(f"a filesystem cannot be mounted here: {done.stderr.strip()}")
    assert done.stdout == "ENOSPC\n", done.stderr


def test_a_write_that_is_cut_short_is_finished_or_an_error(tmp_path: Path) -> None:
    """The kernel writes up to the limit first, and refuses the rest."""
    script = f"""
import resource
import numpy as np
from gpuflow.errors import SpillError
from gpuflow.memory import FileTier, Slab
tier = FileTier({str(tmp_path)!r}, "4MiB")
with Slab("4MiB") as slab, slab.allocate(2 << 20) as lease, slab.allocate(2 << 20) as back:
    lease.memory()[:] = np.random.default_rng(0).bytes(2 << 20)
    lease.seal()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    try:
        tier.put(lease)
    except SpillError as error:
        print("refused", tier.free_bytes == tier.capacity_bytes)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    tier.get(tier.put(lease), back)
    print(bytes(back.memory()) == bytes(lease.memory()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "refused True\nTrue\n", done.stderr


def test_a_forked_child_leaves_its_parents_media_alone(tmp_path: Path) -> None:
    script = f"""
import os, warnings
from gpuflow.errors import Closed
from gpuflow.media import Image, ImageMetadata, lay_out
from gpuflow.memory import FileTier, HostTier, Slab, TieredMemory
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
slab = Slab("1MiB")
with TieredMemory(slab, [HostTier("1MiB"), FileTier({str(tmp_path)!r}, "1MiB")]) as memory:
    specs = lay_out({{"data": ("uint8", (1000,))}})
    lease = slab.allocate(1000)
    lease.memory()[:] = b"x" * 1000
    lease.seal()
    with Image(lease, specs, ImageMetadata("raw", 1000, 1), backend="x") as image:
        entry = memory.keep(image)
    child = os.fork()
    if child == 0:
        try:
            entry.pin()
        except Closed:
            memory.close()
            os._exit(0)
        os._exit(3)
    assert os.waitpid(child, 0)[1] == 0
    with entry.pin() as image:
        print(image.numpy().tobytes() == b"x" * 1000)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True\n", done.stderr


def test_a_child_that_is_forked_while_another_thread_holds_the_lock_does_not_hang() -> None:
    script = """
import os, signal, threading, warnings
from gpuflow.errors import Closed
from gpuflow.media import Image, ImageMetadata, lay_out
from gpuflow.memory import HostTier, Slab, TieredMemory
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
slab = Slab("1MiB")
with TieredMemory(slab, [HostTier("1MiB")]) as memory:
    lease = slab.allocate(1000)
    lease.seal()
    specs = lay_out({"data": ("uint8", (1000,))})
    with Image(lease, specs, ImageMetadata("raw", 1000, 1), backend="x") as image:
        entry = memory.keep(image)
    held, forked = threading.Event(), threading.Event()

    def hold():
        with memory._changed, memory._cascade._changed:
            held.set()
            forked.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            entry.pin()
        except Closed:
            entry.drop()
            memory.close()
            os._exit(0)
        os._exit(3)
    forked.set()
    thread.join()
    print(os.waitpid(child, 0)[1], entry.where)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "0 slab\n", done.stderr


def test_tiers_leave_no_descriptor_or_file_behind(tmp_path: Path) -> None:
    gc.collect()  # what earlier tests left is not ours
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with Slab("1MiB") as slab, TieredMemory(slab, [HostTier("1MiB"), FileTier(tmp_path, "1MiB")]) as memory:
            _kept(memory, 0, nbytes=1000)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert list(tmp_path.iterdir()) == []


def _spilled(memory: TieredMemory, where: str) -> Entry:
    entry = _kept(memory, 0)
    memory.slab.allocate(4 * MIB).release()
    assert entry.where == where
    return entry


def _kept(memory: TieredMemory, seed: int, *, nbytes: int = MIB) -> Entry:
    specs = lay_out({"data": ("uint8", (nbytes,))})
    lease = memory.slab.allocate(nbytes)
    lease.memory()[:] = np.random.default_rng(seed).bytes(nbytes)
    lease.seal()
    with Image(lease, specs, ImageMetadata("raw", nbytes, 1), backend="pattern") as image:
        return memory.keep(image)
