"""The scan against damaged files: nothing but its own errors, and never long. Seeded, so that a failure comes again."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest

from gpuflow.codecs.audio import decode_audio
from gpuflow.codecs.probe import check, sniff
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, NoSuchStream, UnsupportedFormat
from gpuflow.flow.context import Deadline
from tests.tally import Tally
from tests.unit.probe_files import FILES, made

MUTATIONS = int(os.environ.get("GPUFLOW_PROBE_MUTATIONS", "6000"))
SECONDS = 0.1
EDGES = (
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\1",
    b"\0" * 8,
    b"\xff" * 8,
    b"\1" + b"\xff" * 7,
)
LIMITS = Limits()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Damage of one of six kinds, most of it where headers lie."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        reach = len(out) if rng.random() < 0.4 else min(len(out), 1_024)
        if reach == 0:
            break
        at = rng.randrange(reach)
        if rng.random() < 0.1:  # the end, where MP4 keeps its tables
            at = len(out) - 1 - min(at, len(out) - 1)
        kind = rng.randrange(6)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            edge = rng.choice(EDGES)
            out[at : at + len(edge)] = edge
        elif kind == 3:
            del out[at : at + rng.choice((1, 4, 64, 4_096))]
        elif kind == 4:
            out[at:at] = out[at : at + rng.choice((1, 8, 256, 4_096))] * rng.choice((1, 2, 20))
        else:
            del out[at:]
    return bytes(out)


@pytest.mark.parametrize("part", range(4))
def test_damaged_files_end_in_claims_or_in_one_of_three_errors_and_soon(part: int, tally: Tally) -> None:
    rng, names = random.Random(part), sorted(FILES)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(MUTATIONS // 4):
        name = rng.choice(names)
        data = mutated(made(name), rng)
        started = time.process_time()
        try:
            kind = sniff(data)
            check(data, kind, LIMITS, wanted=rng.choice((None, "audio", "video")) if kind.modality != "image" else None)
        except (CorruptMedia, LimitExceeded, UnsupportedFormat) as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["passed"] += 1
        slowest = max(slowest, time.process_time() - started)
    assert slowest < SECONDS
    assert set(outcomes) == {"passed", "CorruptMedia", "LimitExceeded", "UnsupportedFormat"}
    tally("damaged files, by the scan", cases=MUTATIONS // 4, passed=outcomes["passed"], worst_ms=1000 * slowest)


@pytest.mark.parametrize("family", ["tiff", "heic", "avif", "aiff", "au", "caf", "amr", "ac3", "eac3", "asf"])
def test_damaged_files_of_one_family_end_soon(family: str, tally: Tally) -> None:
    rng, names = random.Random(family), sorted(name for name in FILES if name.startswith(family))
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(MUTATIONS // 4):
        data = mutated(made(rng.choice(names)), rng)
        started = time.process_time()
        try:
            check(data, sniff(data), LIMITS)
        except (CorruptMedia, LimitExceeded, UnsupportedFormat) as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["passed"] += 1
        slowest = max(slowest, time.process_time() - started)
    assert slowest < SECONDS
    assert "passed" in outcomes
    assert len(outcomes) > 1
    tally("damaged files, by the scan", cases=MUTATIONS // 4, passed=outcomes["passed"], worst_ms=1000 * slowest)


@pytest.mark.parametrize("family", ["aiff", "au", "caf", "amr", "ac3", "eac3", "asf"])
def test_damaged_sound_that_the_scan_lets_through_is_decoded_or_refused_soon(family: str, tally: Tally) -> None:
    rng, names = random.Random(family), sorted(name for name in FILES if name.split()[0] == family)
    slowest, passed = 0.0, 0
    for _ in range(MUTATIONS // 20):
        data = mutated(made(rng.choice(names)), rng)
        started = time.process_time()
        try:
            kind = sniff(data)
            if kind.modality == "image":
                continue
            pcm = decode_audio(data, kind, limits=LIMITS, deadline=Deadline(20.0))
        except (CorruptMedia, LimitExceeded, NoSuchStream, UnsupportedFormat):
            pass
        else:
            passed += 1
            assert pcm.samples.ndim == 2
            assert pcm.samples.size > 0
        slowest = max(slowest, time.process_time() - started)
    assert slowest < 20 * SECONDS
    assert passed
    tally("damaged sound, decoded", cases=MUTATIONS // 20, passed=passed, worst_ms=1000 * slowest)


@pytest.mark.parametrize(
    "name",
    [
        "heic",
        "tiff",
        "tiff of three pages",
        "tiff in tiles",
        "avif alpha",
        "mp4 h264",
        "mp4 h264 fragmented",
        "matroska h264",
        "avi mpeg4",
        "ts h264",
        "wav PCM_16 1",
        "aiff PCM_24",
        "caf PCM_16",
        "au pcm_s16be  title",
        "asf wmav2  title",
        "amr 8000",
    ],
)
def test_a_file_cut_anywhere_is_read_or_corrupt(name: str) -> None:
    data = made(name)
    kind = sniff(data)
    for length in (*range(12, min(len(data), 900)), *range(900, len(data), 997)):
        try:
            check(data[:length], kind, LIMITS)
        except CorruptMedia:
            continue
