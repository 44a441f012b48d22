"""Sound of MP4 decoded in blocks of many packets: the same as packet by packet, or left to that way."""

from __future__ import annotations

import io
import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gpuflow.codecs._backends import pyav_blocks
from gpuflow.codecs._backends.pyav_reading import Reading
from gpuflow.codecs.audio import decode_audio
from gpuflow.codecs.pcm import Pcm
from gpuflow.codecs.probe import sniff
from gpuflow.codecs.probe.boxes import movie_claims
from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import DeadlineExceeded, GpuflowError, LimitExceeded
from gpuflow.flow.context import Deadline
from gpuflow.flow.sync import SyncFlow
from tests.faults.bomb_parts import box
from tests.faults.test_probe_fuzz import mutated
from tests.flow.audio_files import chirp, with_ffmpeg, with_languages
from tests.flow.timed_clips import clip
from tests.waiting import PATIENT

BLOCK = pyav_blocks.BLOCK_SAMPLES
WIDE = Limits(max_audio_channels=64)
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
FILES: dict[str, Callable[[], bytes]] = {
    "stereo": lambda: with_ffmpeg(chirp(3.0, 44_100, 2), 44_100, "ipod", "aac"),
    "narrow": lambda: with_ffmpeg(chirp(9.0, 8_000), 8_000, "ipod", "aac", bit_rate=12_000),
    "six channels": lambda: with_ffmpeg(chirp(2.0, 48_000, 6), 48_000, "mp4", "aac"),
    "96 kHz": lambda: with_ffmpeg(chirp(1.0, 96_000), 96_000, "mov", "aac"),
    "a block and a sample": lambda: with_ffmpeg(chirp(1.0, 48_000)[:, : BLOCK + 1], 48_000, "ipod", "aac"),
    "one packet": lambda: with_ffmpeg(chirp(1.0, 48_000)[:, :700], 48_000, "ipod", "aac"),
    "with pictures": lambda: with_ffmpeg(chirp(3.0, 48_000), 48_000, "mp4", "aac", video=True),
    "late": lambda: clip("mp4", "aac", sound_at=0.48).data,
    "early": lambda: clip("mp4", "aac", video_at=0.5).data,
    "tracks": lambda: with_languages(
        {name: chirp(1.0, 48_000, place + 1) for place, name in enumerate(("eng", "fra"))}, 48_000, "mp4", "aac"
    ),
}
TABLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def plain() -> bytes:
    """142 packets of 1,024 samples."""
    return with_ffmpeg(chirp(3.0, 48_000), 48_000, "mp4", "aac")


def rewritten(path: tuple[bytes, ...], change: Callable[[bytes], bytes], data: bytes) -> bytes:
    """The file with another body of that box."""
    out, at = b"", 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if name == path[0]:
            body = change(body) if len(path) == 1 else rewritten(path[1:], change, body)
        out, at = out + box(name, body), at + size
    return out


def table(*rows: tuple[int, ...]) -> bytes:
    """Of 32-bit numbers, behind their count."""
    return struct.pack(">II", 0, len(rows)) + b"".join(struct.pack(f">{len(row)}i", *row) for row in rows)


def timed(*rows: tuple[int, int]) -> bytes:
    """Packets whose durations the header has otherwise."""
    return rewritten((*TABLES, b"stts"), lambda _: table(*rows), plain())


def cut(*edits: tuple[int, int, int]) -> bytes:
    """An edit list: milliseconds, from which sample on, how fast."""
    return rewritten((b"moov", b"trak", b"edts", b"elst"), lambda _: table(*edits), plain())


UNEVEN = {
    "jitter": lambda: clip("mp4", "aac", jitter_seconds=0.02).data,
    "fragments": lambda: with_ffmpeg(chirp(3.0, 48_000), 48_000, "mp4", "aac", muxing=FRAGMENTED),
    "a leap and back": lambda: timed((17, 1_024), (1, 5_120), (5, 1), (119, 1_024)),
    "a table that is too short": lambda: timed((17, 1_024), (1, 5_120)),
    "offsets": lambda: rewritten(
        TABLES, lambda body: body + box(b"ctts", table((20, 0), (2, 9_000), (120, 0))), plain()
    ),
    "two parts": lambda: cut((1_000, 1_024, 1 << 16), (1_000, 96_000, 1 << 16)),
    "silence in the middle": lambda: cut((500, 1_024, 1 << 16), (500, -1, 1 << 16), (500, 72_000, 1 << 16)),
}
GAPS = {
    "lost": lambda: clip("mp4", "aac", dropped=(60, 70)).data,
    "lost in the first block": lambda: clip("mp4", "aac", dropped=(3, 13)).data,
    "late from then on": lambda: clip("mp4", "aac", late=(40, 0.3)).data,
}
WANTED: dict[str, dict[str, Any]] = {
    "whole": {},
    "mean": {"mono": True},
    "section": {"start_seconds": 0.3, "duration_seconds": 0.4},
    "from": {"start_seconds": 0.2},
    "in time": {"zero_seconds": 0.0},
}


class Late:
    """A deadline that is over after so many looks."""

    remaining_seconds = 60.0

    def __init__(self, looks: int) -> None:
        self.left = looks

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise DeadlineExceeded("not done in time")


@contextmanager
def packets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a system without such files, and in a worker."""
    with monkeypatch.context() as patch:
        patch.delattr(os, "memfd_create")
        yield


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each sound came out: ``"blocks"``, or ``"packets"``."""
    made: list[str] = []
    reals = {"blocks": Reading.of_blocks, "packets": Reading.of_packets}
    for name in reals:

        def spied(self: Any, *given: Any, way: str = name, real: Any = reals[name], **named: Any) -> Any:
            found = real(self, *given, **named)
            made.append(way)
            return found

        monkeypatch.setattr(Reading, f"of_{name}", spied)
    return made


def decoded(data: bytes, limits: Limits = WIDE, **wanted: Any) -> Pcm:
    """By the library."""
    return decode_audio(data, sniff(data), limits=limits, deadline=Deadline(60.0), **wanted)


def outcome(data: bytes, **wanted: Any) -> tuple[Any, ...]:
    """Everything that a caller sees of it."""
    try:
        pcm = decoded(data, **wanted)
    except GpuflowError as error:
        return type(error).__name__, str(error)
    return pcm.samples.shape, pcm.samples.tobytes(), pcm.origin


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("name", FILES)
def test_it_is_the_same_bit_for_bit(name: str, wanted: str, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = FILES[name]()
    blocks = outcome(data, **WANTED[wanted])
    assert ways == ["blocks"]
    with packets(monkeypatch):
        assert outcome(data, **WANTED[wanted]) == blocks
    assert ways == ["blocks", "packets"]
    assert len(blocks) == (2 if name == "one packet" and wanted in ("section", "from") else 3)


def test_a_worker_whose_sandbox_has_no_such_file_gives_the_same(ways: list[str]) -> None:
    data = FILES["stereo"]()
    here = decoded(data, mono=True).samples
    with (
        SyncFlow(device="cpu", slab_bytes="16MiB", workers=1, isolation="process", limits=PATIENT) as flow,
        flow.load(data, options=AudioOptions()) as there,
    ):
        np.testing.assert_array_equal(there.numpy(), here)
    assert ways == ["blocks"], "the other was not decoded here"


@pytest.mark.parametrize("name", UNEVEN)
def test_what_has_times_of_its_own_is_read_packet_by_packet(name: str, ways: list[str]) -> None:
    data = UNEVEN[name]()
    assert len(outcome(data)) == 3
    assert ways == ["packets"]
    claims = movie_claims(data, Limits())
    assert [track.even_seconds for track in claims.tracks if track.kind == "audio"] == [None]


def test_what_is_even_is_told_with_its_length() -> None:
    for data in (plain(), timed((142, 1_024)), timed((141, 1_024), (1, 640)), cut((2_500, 1_500, 1 << 16))):
        claims = movie_claims(data, Limits())
        assert claims.tracks[0].even_seconds == pytest.approx(142 * 1_024 / 48_000, abs=385 / 48_000)
        assert claims.index_entries == 142


def test_what_is_mostly_unheard_or_many_packets_is_read_packet_by_packet(
    ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for edit in ((500, 100_000, 1 << 16), (2_500, 1_024, 1 << 16)):
        decoded(cut(edit))
    monkeypatch.setattr(pyav_blocks, "_MAX_ENTRIES", 141)
    decoded(plain())
    assert ways == ["packets", "blocks", "packets"]


@pytest.mark.parametrize("stream", [0, 1, "fra"])
def test_it_is_the_stream_that_is_asked_for(stream: int | str, ways: list[str]) -> None:
    pcm = decoded(FILES["tracks"](), stream=stream)
    assert (pcm.origin.channels, ways) == (1 if stream == 0 else 2, ["blocks"])


@pytest.mark.parametrize("wanted", [{}, {"duration_seconds": 1.4}, {"start_seconds": 0.1, "duration_seconds": 0.3}])
@pytest.mark.parametrize("name", GAPS)
def test_a_gap_is_filled_as_without_blocks(
    name: str, wanted: dict[str, Any], ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = GAPS[name]()
    found = outcome(data, **wanted)
    assert ways == ["packets"] or not found[2].filled_seconds
    assert found[2].filled_seconds > 0.1 or wanted.get("start_seconds")
    with packets(monkeypatch):
        assert outcome(data, **wanted) == found


@pytest.mark.parametrize("place", [3, 40, -1])
def test_a_damaged_packet_is_what_it_is_without_blocks(
    place: int, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = clip("mp4", "aac", video=False).data
    with av.open(io.BytesIO(made)) as container:
        entries = container.streams.audio[0].index_entries
        entry = entries[place % len(entries)]
    data = made[: entry.pos] + b"\xff" * entry.size + made[entry.pos + entry.size :]
    found = outcome(data)
    with packets(monkeypatch):
        assert outcome(data) == found
    assert "blocks" not in ways
    assert (found[0] == "CorruptMedia") == (place != -1), "the last one ends the recording"


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_file_that_breaks_off_is_what_it_is_without_blocks(tenth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = with_ffmpeg(chirp(3.0, 48_000), 48_000, "mp4", "aac", muxing=FRAGMENTED)
    data = whole[: len(whole) * tenth // 10]
    found = outcome(data)
    with packets(monkeypatch):
        assert outcome(data) == found
    assert len(found) == 3 or tenth == 1


def test_mutated_files_are_what_they_are_without_blocks(ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rng, files = random.Random(8), [FILES[name]() for name in ("stereo", "with pictures", "late")]
    cases = [mutated(rng.choice(files), rng) for _ in range(400)]
    found = [outcome(data) for data in cases]
    assert ways.count("blocks") > 40
    with packets(monkeypatch):
        for data, expected in zip(cases, found, strict=True):
            assert outcome(data) == expected


def test_limits_and_the_deadline_hold(ways: list[str]) -> None:
    data = FILES["stereo"]()
    with pytest.raises(LimitExceeded, match="max_audio_seconds"):
        decoded(data, limits=Limits(max_audio_seconds=1.0))
    with pytest.raises(DeadlineExceeded):
        decode_audio(data, sniff(data), limits=WIDE, deadline=Deadline(0.0))
    late = Late(3)
    with pytest.raises(DeadlineExceeded):
        decode_audio(data, sniff(data), limits=WIDE, deadline=late)
    assert (late.left, ways) == (0, [])
    assert decoded(data, limits=Limits(max_audio_seconds=1.0), duration_seconds=0.9).samples.shape[1] == 39_690
    assert ways[-1] == "blocks"


def test_no_file_and_no_thread_is_left(ways: list[str]) -> None:
    cases = [FILES["stereo"](), FILES["late"](), FILES["stereo"]()[:9_000], GAPS["lost"]()]

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    outcome(cases[0])
    before, kept = held(), []
    for data in cases * 5:
        outcome(data)
        outcome(data, duration_seconds=0.1)
        with pytest.raises(GpuflowError) as raised:
            decode_audio(data, sniff(data), limits=WIDE, deadline=Late(1))
        kept.append(raised)
        assert held() == before
    assert set(ways) == {"blocks", "packets"}


def test_another_codec_and_a_large_file_are_left_to_the_other_way(
    ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded(with_ffmpeg(chirp(1.0, 48_000), 48_000, "mp4", "libopus"))
    data = FILES["stereo"]()
    monkeypatch.setattr(pyav_blocks, "_MAX_BYTES", len(data) - 1)
    shorter = decoded(data)
    assert ways == ["packets", "packets"]
    monkeypatch.setattr(pyav_blocks, "_MAX_BYTES", len(data))
    np.testing.assert_array_equal(decoded(data).samples, shorter.samples)
    assert ways[-1] == "blocks"


@pytest.mark.parametrize(("allowed", "way"), [("fd", "packets"), ("fd,file", "blocks")])
def test_libavformat_may_open_nothing_but_the_descriptor(
    allowed: str, way: str, ways: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, graph_of, options = FILES["stereo"](), av.filter.Graph, "protocol_whitelist=fd"
    (tmp_path / "other.m4a").write_bytes(data)

    class Led:
        """A graph that is led to another file, as a hostile one might."""

        def __init__(self) -> None:
            self._graph = graph_of()

        def add(self, name: str, **given: str) -> Any:
            if name == "amovie":
                assert options in given["format_opts"].split(":")
                opened = given["format_opts"].replace(options, f"protocol_whitelist={allowed}")
                given |= {"filename": str(tmp_path / "other.m4a"), "format_opts": opened}
            return self._graph.add(name, **given)

        def configure(self) -> None:
            self._graph.configure()

    monkeypatch.setattr(av.filter, "Graph", Led)
    decoded(data)
    assert ways == [way]
