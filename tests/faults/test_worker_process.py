"""What a decode worker has and may say: no secret, no file, and nothing that cannot be true."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuflow.codecs.base import ImageInfo, MediaType, VideoInfo
from gpuflow.codecs.pcm import Origin
from gpuflow.errors import (
    Closed,
    DeadlineExceeded,
    DecoderCrashed,
    NoSuchStream,
    UnsupportedFormat,
)
from gpuflow.flow.context import Deadline
from gpuflow.isolation.plausible import check_clip, check_pixels, check_sound
from gpuflow.isolation.process import environment
from gpuflow.isolation.wire import AudioWanted, Channel, Disconnected, Failed, Opened, Pixels, Ready, Sound, framed
from gpuflow.media import Blob
from gpuflow.memory import Slab
from tests.faults.pools import LIMITS, SDP, alive, decode, open_clip, picture, pool_of, stop
from tests.waiting import wait_until


def test_a_worker_holds_no_secret_and_no_torch(shared: Slab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("HF_TOKEN", "hush-hush")
    assert set(environment()) <= {"LANG", "LC_ALL", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
    with pool_of(shared) as (pool, _):
        (pid,) = pool.pids
        seen = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"hush" not in seen
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in mapped
        assert "libcuda" not in mapped
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status


def test_a_worker_has_no_file_but_its_socket_its_slab_and_nothing(shared: Slab, tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as secret:
        os.set_inheritable(secret.fileno(), True)
        with pool_of(shared) as (pool, _):
            targets = [os.readlink(file) for file in Path(f"/proc/{pool.pids[0]}/fd").iterdir()]
    kinds = {target.partition(":")[0].partition(" ")[0] for target in targets}
    assert kinds <= {"/dev/null", "socket", "/memfd"}
    assert sum(target.startswith("socket") for target in targets) == 1


def test_bytes_that_ask_for_a_socket_open_none(shared: Slab) -> None:
    blob = Blob(SDP, "5" * 64)
    with pool_of(shared) as (pool, isolated):
        (pid,) = pool.pids
        before = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        for kind in (MediaType("mp4", "video", "mov"), MediaType("x", "video", "sdp"), MediaType("y", "video", "rtsp")):
            began = time.monotonic()
            with pytest.raises((UnsupportedFormat, NoSuchStream, ValueError)):
                open_clip(isolated, blob, kind)
            assert time.monotonic() - began < 5.0
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == before
        assert pool.pids == [pid]
        assert not any(f"{45671:04X}" in Path(f"/proc/net/{table}").read_text() for table in ("udp", "tcp"))


def test_workers_end_with_their_parent() -> None:
    code = """
import os, sys
from gpuflow.isolation.pool import DecoderPool
from gpuflow.memory import Slab
pool = DecoderPool(Slab("4MiB", shared=True), workers=2)
while len(pool.pids) < 2: os.sched_yield()
print(*pool.pids, flush=True)
sys.stdin.read()
"""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, env=path, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        stop(pids[0])  # one that cannot notice by itself
        parent.kill()
        wait_until(lambda: not any(alive(pid) for pid in pids))


def test_a_forked_child_has_no_workers_and_harms_none(shared: Slab) -> None:
    with pool_of(shared) as (pool, isolated):
        pids = pool.pids
        child = os.fork()
        if child == 0:
            try:
                decode(isolated, picture(1))
            except Closed:
                pool.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert pool.pids == pids
        assert decode(isolated, picture(1)).shape == (64, 64, 3)


def test_a_worker_that_answers_nonsense_is_ended(shared: Slab) -> None:
    for said in (
        b"\xff\xff\xff\xff",
        b"\x05\x00\x00\x00hello",
        b"\x01\x00\x00\x00\xc0",
        b"\x07\x00\x00\x00\x92\xa5Fra\x01\x02",
    ):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(Disconnected):
                Channel(ours).receive(Deadline(5.0))


INFO = VideoInfo("h264", 64, 48, 2, 2.0, 1.0)
TIMES = (0.0, 0.5)


@pytest.mark.parametrize(
    "said",
    [
        Opened(INFO, ()),
        Opened(INFO, (0.0, 0.5, 1.0)),
        Opened(INFO, (0.0, float("nan"))),
        Opened(INFO, (0.5, 0.0)),
        Opened(INFO, (0.0, 9.0)),
        Opened(replace(INFO, width=10**9), TIMES),
        Opened(replace(INFO, height=-48), TIMES),
        Opened(replace(INFO, rotation=45), TIMES),
        Opened(replace(INFO, matrix="../../etc"), TIMES),
        Opened(replace(INFO, codec="h264\n" * 99), TIMES),
        Opened(replace(INFO, fps=float("inf")), TIMES),
        Opened(replace(INFO, nominal_fps=float("nan")), TIMES),
        Opened(replace(INFO, nominal_fps=1e9), TIMES),
        Opened(replace(INFO, origin_seconds=float("inf")), TIMES),
        Opened(replace(INFO, nominal_fps=1e-9), TIMES),
        Opened(INFO, TIMES, (0, len(TIMES))),
        Opened(INFO, TIMES, (-1,)),
        Opened(INFO, TIMES, (1, 1)),
    ],
)
def test_a_clip_that_cannot_be_is_not_believed(said: Opened) -> None:
    check_clip(Opened(INFO, TIMES), LIMITS)
    with pytest.raises(Disconnected):
        check_clip(said, LIMITS)


@pytest.mark.parametrize(
    "said", [Pixels(64, 64, 5, "pillow"), Pixels(65, 64, 3, "pillow"), Pixels(64, 64, 3, "\x1b[2J")]
)
def test_pixels_that_cannot_be_are_not_believed(said: Pixels) -> None:
    check_pixels(Pixels(64, 64, 3, "pillow"), ImageInfo("jpeg", 64, 64))
    with pytest.raises(Disconnected):
        check_pixels(said, ImageInfo("jpeg", 64, 64))


def _sound(*, rate: int = 16_000, shape: tuple[int, int] = (1, 100), **said: Any) -> Sound:
    return Sound(replace(Origin("mp3", 2, 44_100, "pyav"), **said), rate, shape)


@pytest.mark.parametrize(
    "said",
    [
        _sound(shape=(3, 100)),
        _sound(rate=8_000),
        _sound(shape=(1, 10**12)),
        _sound(sample_rate=1),
        _sound(shape=(0, 100)),
        _sound(shape=(2, 100)),
        _sound(shape=(1, 48_001)),
        _sound(stream=1, num_streams=2),
        _sound(num_streams=0),
        _sound(num_streams=10**9),
        _sound(begins_seconds=float("nan")),
        _sound(begins_seconds=0.5),
        _sound(filled_seconds=-1.0),
        _sound(filled_seconds=3.5),
        _sound(filled_seconds=float("nan")),
    ],
)
def test_sound_that_cannot_be_is_not_believed(said: Sound) -> None:
    wanted = AudioWanted(duration_seconds=2.0, sample_rate=16_000, zero_seconds=1.4)
    check_sound(_sound(), wanted, LIMITS)
    with pytest.raises(Disconnected):
        check_sound(said, wanted, LIMITS)


def test_a_workers_text_cannot_break_a_log_nor_name_an_error_of_its_own() -> None:
    assert str(Failed("CorruptMedia", "a\nb\x1b[2J")) != ""
    error = Failed("CorruptMedia", "a\nb\x1b[2J").error()
    assert (type(error).__name__, str(error)) == ("CorruptMedia", "a?b?[2J")
    for name in ("SystemExit", "ClassVar", "__builtins__", "annotations"):
        assert type(Failed(name, "x").error()) is DecoderCrashed


def test_an_answer_that_comes_in_drops_is_read_whole_after_a_deadline_between_them() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message, channel = framed(Ready()), Channel(ours)
        theirs.sendall(message[:5])
        with pytest.raises(DeadlineExceeded):
            channel.receive(Deadline(0.05))
        theirs.sendall(message[5:])
        assert channel.receive(Deadline(5.0)) == Ready()
