"""Sound of MP4 decoded in blocks of many packets: the same as packet by packet, or left to that way."""

from __future__ import annotations

import io
import os
import random
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
from gpuflow.config import Limits
from gpuflow.errors import DeadlineExceeded, GpuflowError, LimitExceeded
from gpuflow.flow.context import Deadline
from tests.faults.test_probe_fuzz import mutated
from tests.flow.audio_files import chirp, with_ffmpeg, with_languages
from tests.flow.timed_clips import clip

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
    "jitter": lambda: clip("mp4", "aac", jitter_seconds=0.02).data,
    "tracks": lambda: with_languages(
        {name: chirp(1.0, 48_000, place + 1) for place, name in enumerate(("eng", "fra"))}, 48_000, "mp4", "aac"
    ),
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
    assert decoded(data, limits=Limits(max_audio_seconds=1.0), duration_seconds=0.9).samples.shape[1] == 39_690
    assert ways[-1] == "blocks"


def test_no_file_and_no_thread_is_left(ways: list[str]) -> None:
    cases = [FILES["stereo"](), FILES["late"](), FILES["stereo"]()[:9_000], GAPS["lost"]()]

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    outcome(cases[0])
    before = held()
    for data in cases * 5:
        outcome(data)
        outcome(data, duration_seconds=0.1)
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
