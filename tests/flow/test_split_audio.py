"""Long clips in, parts out: where they are cut, that each is the clip that it would be alone, limits, and every way through."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

import gpuflow
from gpuflow import cli
from gpuflow import device as devices
from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import DeadlineExceeded, InvalidOptions, LimitExceeded
from gpuflow.flow.audio import load_audio
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.flow import Isolation
from gpuflow.media import AudioMetadata, FeatureMetadata, Features, Media, Waveform
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from gpuflow.ops.audio_parts import quietest_parts, window_parts
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec
from tests.flow.audio_files import KINDS, Samples, blob, with_soundfile
from tests.parity.audio_extractors import hugging_face
from tests.parity.tolerances import TOLERANCES

RATE = 16_000


def _bursts(seconds: float, rate: int = RATE, channels: int = 1) -> Samples:
    """``(channels, n)``: noise that comes and goes, so that there is a quietest place."""
    count = round(seconds * rate)
    t = np.arange(count) / rate
    noise = np.random.default_rng(5).standard_normal((channels, count))
    return (0.1 * noise * (1.1 + np.sin(2 * np.pi * 0.31 * t))).astype(np.float32)


def _wav(samples: Samples, rate: int = RATE) -> bytes:
    return with_soundfile(samples, rate, "WAV", "FLOAT")


def _load(data: bytes, options: AudioOptions, context: LoadContext, kind: str = "wav") -> Features:
    media = load_audio(blob(data), KINDS[kind], options, context)
    assert isinstance(media, Features)
    return media


def _context(slab: Slab, **limits: Any) -> LoadContext:
    return LoadContext(
        device=devices.choose("cpu"),
        slab=slab,
        host_slab=slab,
        limits=Limits(**{"audio_seconds": 60.0, **limits}),
        deadline=Deadline(60.0),
        counters=Counters(),
    )


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"split": "quietest"}, lambda one: quietest_parts(one, limit=30 * RATE, search=RATE)),
        (
            {"split": "quietest", "split_seconds": 12.0, "search_seconds": 6.0},
            lambda one: quietest_parts(one, limit=12 * RATE, search=6 * RATE),
        ),
        ({"split": "windows"}, lambda one: window_parts(len(one), length=30 * RATE)),
        (
            {"split": "windows", "split_seconds": 20.0, "overlap_seconds": 5.0},
            lambda one: window_parts(len(one), length=20 * RATE, overlap=5 * RATE),
        ),
    ],
)
def test_every_part_has_the_features_that_it_has_alone(options: Any, parts: Any, context: LoadContext) -> None:
    samples = _bursts(75.0)
    expected = parts(samples[0])
    with _load(_wav(samples), AudioOptions(features="whisper-128", **options), context) as media:
        assert media.shape == (len(expected), 128, 3_000)
        assert media.metadata.parts == expected
        assert media.metadata.valid_lengths == tuple(-(-(last - first) // 160) for first, last in expected)
        assert media.metadata.valid_length == sum(media.metadata.valid_lengths)
        assert [stage.name for stage in context.stages] == ["decode", "features"]
        assert f"in {len(expected)} parts" in repr(media)
        for place, (first, last) in zip(media.numpy(), expected, strict=True):
            theirs = hugging_face("whisper-128", samples[0, first:last])["input_features"]
            assert np.abs(place - theirs).max() <= TOLERANCES["mel/clamped"].max_abs


@pytest.mark.parametrize("name", ["cohere-asr", "audio-flamingo-3", "glm-asr", "voxtral"])
@pytest.mark.parametrize("seconds", [3.0, 78.3])
def test_a_spec_that_splits_does_so_by_itself(name: str, seconds: float, context: LoadContext) -> None:
    samples = _bursts(seconds)
    expected = hugging_face(name, samples[0])
    with _load(_wav(samples), AudioOptions(features=name), context) as media:
        parts = media.metadata.parts
        assert media.shape == expected["input_features"].shape
        assert len(parts) == len(media.metadata.valid_lengths) == media.shape[0] == (1 if seconds < 30 else 3)
        assert (parts[0][0], parts[-1][1]) == (0, samples.shape[1])
        assert np.abs(media.numpy() - expected["input_features"]).max() <= TOLERANCES["mel/batch"].max_abs
        for mask in set(media) - {"input_features"}:
            assert np.array_equal(media[mask].numpy(), expected[mask])


def test_an_option_replaces_the_rule_of_a_spec(context: LoadContext) -> None:
    samples = _bursts(70.0)
    options = AudioOptions(features="cohere-asr", split="windows", split_seconds=20.0)
    with _load(_wav(samples), options, context) as media:
        assert media.metadata.parts == window_parts(70 * RATE, length=20 * RATE)
        last = hugging_face("cohere-asr", samples[0, 60 * RATE :])
        count = last["input_features"].shape[1]
        assert np.abs(media.numpy()[-1, :count] - last["input_features"][0]).max() <= TOLERANCES["mel/batch"].max_abs
        assert not media.numpy()[-1, count:].any()
        assert media["attention_mask"].sum(1).tolist() == [2_000, 2_000, 2_000, 1_000]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"features": "voxtral", "split": "quietest"}, "cuts features, and not sound"),
        ({"features": "whisper-80", "split": "quietest", "split_seconds": 31.0}, "takes 30 s at once"),
        ({"features": "gemma3n", "split": "windows", "split_seconds": 40.0}, "takes 30 s at once"),
        ({"features": MelSpec("own", max_samples=None), "split": "windows", "split_seconds": 40.0}, "takes 30 s"),
    ],
)
def test_parts_that_a_spec_cannot_take_are_refused(options: Any, says: str, context: LoadContext) -> None:
    with pytest.raises(InvalidOptions, match=says):
        _load(_wav(_bursts(0.1)), AudioOptions(**options), context)
    assert not context.stages, "nothing was decoded"


@pytest.mark.parametrize("split", ["quietest", "windows"])
def test_a_short_clip_is_one_part(split: Any, context: LoadContext) -> None:
    with _load(_wav(_bursts(2.0)), AudioOptions(features="whisper-80", split=split), context) as media:
        assert media.shape == (1, 80, 3_000)
        assert media.metadata.parts == ((0, 32_000),)
        assert media.metadata.valid_lengths == (200,)


@pytest.mark.parametrize(
    ("name", "rows"),
    [("gemma3n", 1), ("voxtral-realtime", 0), ("qwen3-omni", 1), ("phi4-multimodal", 1), ("granite-speech", 1)],
)
def test_a_last_part_that_is_too_short_for_a_frame_is_padded_to_one(name: str, rows: int, context: LoadContext) -> None:
    samples = np.concatenate([_bursts(10.0), _bursts(5 / RATE)], axis=1)
    options = AudioOptions(features=name, split="windows", split_seconds=10.0)
    with _load(_wav(samples), options, context) as media:
        assert media.metadata.parts == ((0, 160_000), (160_000, 160_005))
        assert media.metadata.valid_lengths[1] == rows
        with _load(_wav(samples[:, :160_000]), AudioOptions(features=name), context) as alone:
            assert np.array_equal(media.numpy()[0], alone.numpy())


def test_raw_samples_are_normalised_part_by_part(context: LoadContext) -> None:
    samples = _bursts(25.0)
    options = AudioOptions(features="wav2vec2-masked", split="windows", split_seconds=10.0)
    with _load(_wav(samples), options, context) as media:
        assert media.shape == (3, 160_000)
        assert (
            media["attention_mask"].sum(1).tolist() == list(media.metadata.valid_lengths) == [160_000, 160_000, 80_000]
        )
        theirs = hugging_face("wav2vec2-masked", samples[0, 320_000:])["input_values"]
        assert np.abs(media.numpy()[2, :80_000] - theirs).max() <= TOLERANCES["mel/clamped"].max_abs


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_waveform_stays_whole_and_says_where_its_parts_lie(rate: int, context: LoadContext) -> None:
    samples = _bursts(70.0, rate, 2)
    options = AudioOptions(mono=False, split="quietest")
    with load_audio(blob(_wav(samples, rate)), KINDS["wav"], options, context) as media:
        assert isinstance(media, Waveform)
        assert np.array_equal(media.numpy(), samples)
        mean = samples.mean(axis=0)
        assert media.metadata.parts == quietest_parts(mean, limit=30 * rate, search=rate, window=rate // 10)
        assert "in 3 parts" in repr(media)


def test_a_section_is_split_from_its_beginning(context: LoadContext) -> None:
    samples = _bursts(50.0)
    options = AudioOptions(
        features="whisper-80", split="windows", split_seconds=10.0, start_seconds=20.0, duration_seconds=25.0
    )
    with _load(_wav(samples), options, context) as media:
        assert media.metadata.parts == window_parts(25 * RATE, length=10 * RATE)
        assert isinstance(media.metadata.source, AudioMetadata)
        assert media.metadata.source.start_seconds == 20.0
        theirs = hugging_face("whisper-80", samples[0, 30 * RATE : 40 * RATE])["input_features"]
        assert np.abs(media.numpy()[1] - theirs).max() <= TOLERANCES["mel/clamped"].max_abs


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_parts_come_in_the_type_that_is_asked_for(dtype: Any, context: LoadContext) -> None:
    import torch

    data, options = _wav(_bursts(40.0)), AudioOptions(features="nemotron-streaming", split="quietest")
    with _load(data, options, context) as whole:
        expected = whole["input_features"].to(getattr(torch, dtype))
        with _load(data, msgspec.structs.replace(options, dtype=dtype), context) as media:
            assert media.dtype == dtype
            assert torch.equal(media["input_features"], expected)
            assert torch.equal(media["attention_mask"], whole["attention_mask"])


def test_the_limits_hold_before_features_are_computed(slab: Slab) -> None:
    data, options = _wav(_bursts(65.0)), AudioOptions(features="whisper-128", split="windows")
    with pytest.raises(LimitExceeded, match=r"max_output_bytes is 4607999"):
        _load(data, options, _context(slab, max_output_bytes=3 * 128 * 3_000 * 4 - 1))
    with _load(data, options, _context(slab, max_output_bytes=3 * 128 * 3_000 * 4)) as media:
        assert media.shape[0] == 3


def test_an_hour_is_loaded_whole_in_bounded_time(slab: Slab) -> None:
    minute = np.tile(_bursts(20.0, 8_000), 3)
    hour = with_soundfile(np.tile(minute, 60), 8_000, "WAV", "ULAW")
    context = _context(slab, max_audio_seconds=3_600.0)
    started = time.perf_counter()
    options = AudioOptions(features="whisper-80", split="quietest", dtype="float16")
    with load_audio(blob(hour), KINDS["wav"], options, context) as media:
        seconds = time.perf_counter() - started
        assert isinstance(media.metadata, FeatureMetadata)
        parts = media.metadata.parts
        assert media.shape == (len(parts), 80, 3_000)
        assert 120 <= len(parts) <= 125
        assert (parts[0][0], parts[-1][1]) == (0, 3_600 * RATE)
        assert sum(media.metadata.valid_lengths) == pytest.approx(360_000, abs=len(parts))
    assert seconds < 40.0
    tiny = AudioOptions(split="windows", split_seconds=1.0)
    with pytest.raises(LimitExceeded, match="more than 2048 parts"):
        load_audio(blob(hour), KINDS["wav"], tiny, _context(slab, max_audio_seconds=3_600.0))


def _parts_of(media: Media) -> tuple[NDArray[Any], Any]:
    with media:
        return media.numpy().copy(), media.metadata


def test_a_split_is_the_same_by_every_way_through(tmp_path: Path) -> None:
    data = with_soundfile(_bursts(40.0, 22_050, 2), 22_050, "MP3", "MPEG_LAYER_III")
    options = {"features": "whisper-128", "split": "quietest"}

    async def load() -> tuple[NDArray[Any], Any]:
        async with gpuflow.Flow(device="cpu", slab_bytes="64MiB") as flow:
            return _parts_of(await flow.load(data, modality="audio", options=options))

    array, metadata = asyncio.run(load())
    assert array.shape == (2, 128, 3_000)
    isolations: tuple[Isolation, ...] = ("none", "process")
    for isolation in isolations:
        with gpuflow.SyncFlow(device="cpu", slab_bytes="64MiB", isolation=isolation) as flow:
            again, same = _parts_of(flow.load(data, modality="audio", options=options))
            assert np.array_equal(again, array)
            assert same == metadata
    (tmp_path / "x.mp3").write_bytes(data)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        arguments = ["load", str(tmp_path / "x.mp3"), "--options", json.dumps(options), "--out", str(tmp_path)]
        assert cli.main([*arguments, "--device", "cpu"]) == 0
    assert "input_features float32[2, 128, 3000]" in told.getvalue()
    assert np.array_equal(load_file(tmp_path / "000-x.mp3.safetensors")["input_features"], array)


@pytest.mark.parametrize(
    "options",
    [
        {"features": "nemotron-streaming", "split": "quietest", "split_seconds": 5.0},
        {"features": "wav2vec2"},
        {"features": "gemma4-unified"},
        {"features": "gemma3n"},
        {"features": "voxtral", "dtype": "bfloat16"},
    ],
    ids=lambda options: options["features"],
)
def test_features_of_every_shape_are_drawn_by_the_command_line(options: Any, context: LoadContext) -> None:
    from gpuflow.demo.picture import draw

    with _load(_wav(_bursts(9.0)), AudioOptions(**options), context) as media:
        assert draw(media).size[0] == 1_200


def test_a_split_with_a_published_descriptor_tells_its_parts(slab: Slab, context: LoadContext) -> None:
    from gpuflow.transfer import Descriptor, Publisher, Reader

    options = AudioOptions(features="whisper-80", split="windows")
    with Publisher(slab) as publisher, Reader() as reader, _load(_wav(_bursts(61.0)), options, context) as media:
        sent = publisher.publish(media).to_bytes()
        with reader.read(Descriptor.from_bytes(sent)) as got:
            assert len(media.metadata.parts) == 3
            assert got.metadata == media.metadata
            assert np.array_equal(got.numpy(), media.numpy())


def test_a_spec_is_not_changed_by_what_splits_it() -> None:
    before = mel_spec("cohere-asr")
    assert mel_spec("cohere-asr") is before
    assert before.split == "quietest"


class _Cancelled(Deadline):
    """Nobody wants the result any more after some checks of the last stage."""

    def __init__(self, context: LoadContext, checks: int) -> None:
        super().__init__(60.0)
        self._context = context
        self.left = checks

    def check(self) -> None:
        if self._context.stages:
            self.left -= 1
        if not self.left:
            self.cancel()
        super().check()


@pytest.mark.parametrize("split", [{"features": "qwen3-omni"}, {"features": "whisper-80", "split": "windows"}])
def test_a_load_that_nobody_waits_for_ends_amid_its_features(split: Any) -> None:
    with Slab("64MiB") as slab:
        context = _context(slab)
        context.deadline = _Cancelled(context, 5)
        with pytest.raises(DeadlineExceeded, match="cancelled"):
            _load(_wav(_bursts(75.0)), AudioOptions(**split), context)
        assert context.deadline.left == 0, "no check follows the one that raises"
        assert [stage.name for stage in context.stages] == ["decode", "features"]
        assert slab.statistics().live_leases == 0
