"""Every bomb and liar of the table is refused by the scan alone: with its own error, at once, in next to no memory."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter

import pytest

from gpuflow.codecs.probe import check, sniff
from gpuflow.config import AudioOptions, ImageOptions, Limits, VideoOptions
from gpuflow.errors import GpuflowError
from gpuflow.flow.audio import load_audio
from gpuflow.flow.context import LoadContext
from gpuflow.flow.image import load_image
from gpuflow.flow.video import load_video
from gpuflow.media import Blob, Media
from tests.faults.bomb_parts import Bomb
from tests.faults.bombs import BOMBS
from tests.tally import Tally

LIMITS = Limits()
SECONDS = 0.05
PEAK_BYTES = 4 << 20


def scan(bomb: Bomb, data: bytes) -> GpuflowError:
    """The error that the scan refuses it with."""
    with pytest.raises(GpuflowError) as raised:
        check(data, sniff(data), LIMITS, wanted=bomb.wanted)
    return raised.value


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once_with_its_own_error(name: str) -> None:
    bomb = BOMBS[name]
    data = bomb.make()
    times = []
    for _ in range(3):
        started = time.process_time()  # not the clock: other processes take their share of it
        error = scan(bomb, data)
        times.append(time.process_time() - started)
    assert type(error) is bomb.error
    assert min(times) < SECONDS
    assert "0x7" not in str(error)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_memory(name: str) -> None:
    data = BOMBS[name].make()
    tracemalloc.start()
    try:
        scan(BOMBS[name], data)
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()


def load(bomb: Bomb, data: bytes, context: LoadContext) -> Media:
    """What a request gets."""
    kind, blob = sniff(data), Blob(data, "hash")
    wanted = bomb.wanted or kind.modality
    if wanted == "image":
        return load_image(blob, kind, ImageOptions(), context)
    if wanted == "audio":
        return load_audio(blob, kind, AudioOptions(), context)
    return load_video(blob, kind, VideoOptions(), context)


@pytest.mark.parametrize("name", BOMBS)
def test_no_loader_opens_a_decoder_for_a_bomb(name: str, context: LoadContext, tally: Tally) -> None:
    data = BOMBS[name].make()
    started = time.process_time()
    with pytest.raises(GpuflowError) as raised:
        load(BOMBS[name], data, context)
    seconds = time.process_time() - started
    assert seconds < 2 * SECONDS
    tally("bombs, by the scan and by the loaders", cases=1, decoders_opened=0, worst_ms=1000 * seconds)
    assert type(raised.value) is BOMBS[name].error
    assert raised.value.http_status in (415, 422)
    assert context.slab.statistics().live_leases == 0


def test_the_table_covers_every_format() -> None:
    formats = Counter(name.partition(":")[0] for name in BOMBS)
    assert len(BOMBS) >= 140
    assert {
        "mp4",
        "matroska",
        "avi",
        "ts",
        "wav",
        "flac",
        "mp3",
        "ogg",
        "jpeg",
        "png",
        "gif",
        "webp",
        "bmp",
        "avif",
        "tiff",
        "heic",
    } <= set(formats)
