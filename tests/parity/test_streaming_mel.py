"""Features of a live source are those of the whole clip, bit for bit, however the chunks come."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpuflow import StreamingMel
from gpuflow.config import Limits
from gpuflow.errors import Closed, CorruptMedia, InvalidOptions, NoSuchStream
from gpuflow.ops.audio import to_rate
from gpuflow.ops.mel import features
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names
from tests.parity.tolerances import TOLERANCES

LIVE = ("voxtral-realtime", "nemotron-streaming", "gemma3n", "gemma4", "phi4-multimodal", "lasr")
Samples = NDArray[np.float32]


def _noise(num_samples: int, seed: int = 0, channels: int | None = None) -> Samples:
    shape = num_samples if channels is None else (channels, num_samples)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _streamed(mel: StreamingMel, samples: NDArray[Any], cuts: Sequence[int]) -> Samples:
    """All frames of the samples in chunks that end at ``cuts``."""
    places = [0, *sorted(min(cut, samples.shape[-1]) for cut in cuts), samples.shape[-1]]
    frames = [mel.push(samples[..., first:last]) for first, last in pairwise(places)]
    frames.append(mel.finish())
    time = 0 if mel.spec.layout == "TM" else 1
    assert mel.num_frames == sum(chunk.shape[time] for chunk in frames)
    return np.concatenate(frames, axis=time)


def _offline(samples: Samples, spec: MelSpec) -> Samples:
    """The whole clip's features; no frame of what is too short for one."""
    spec = replace(spec, max_samples=None)
    try:
        made: Samples = features(samples, spec)[spec.features_name]
    except NoSuchStream:
        return np.zeros((0, spec.n_mels) if spec.layout == "TM" else (spec.n_mels, 0), np.float32)
    return made


@pytest.mark.parametrize("name", LIVE)
@given(st.integers(0, 4_000), st.lists(st.integers(0, 4_000), max_size=9), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_frames_do_not_depend_on_the_chunks(name: str, num_samples: int, cuts: list[int], seed: int) -> None:
    samples = _noise(num_samples, seed)
    expected = _offline(samples, mel_spec(name))
    got = _streamed(StreamingMel(name), samples, cuts)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(2, 64), st.sampled_from(["centre", "left"]),
    st.sampled_from(["reflect", "constant"]), st.integers(0, 20), st.integers(0, 20), st.integers(0, 3), st.booleans(),
    st.sampled_from(["none", "multiple"]), st.integers(0, 90), st.integers(1, 7), st.booleans(), st.sampled_from([0.0, 0.97]),
    st.integers(0, 400), st.lists(st.integers(0, 400), max_size=9),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_spec_whose_frames_stand_alone_can_be_streamed(
    half_fft: int, win_length: int, hop_length: int, window_at: Any, pad_mode: Any, pad_left: int, pad_right: int,
    frame_extra: int, drop_last: bool, pad_to: Any, min_samples: int, frame_multiple: int, zero_invalid: bool,
    preemphasis: float, num_samples: int, cuts: list[int],
) -> None:  # fmt: skip
    n_fft = 2 * half_fft
    spec = MelSpec(
        "own", max_samples=None, min_samples=0 if preemphasis else min_samples, pad_to=pad_to, pad_samples=17, signal_preemphasis=preemphasis,
        n_fft=n_fft, win_length=min(win_length, n_fft), hop_length=min(hop_length, n_fft), window_at=window_at,
        pad_left=min(pad_left, half_fft), pad_right=min(pad_right, half_fft), pad_mode=pad_mode,
        frame_extra=frame_extra if window_at == "left" else 0, drop_last=drop_last, n_mels=3, clamp="none",
        zero_invalid=zero_invalid, frame_multiple=frame_multiple, frame_preemphasis=preemphasis,
    )  # fmt: skip
    samples = _noise(num_samples)
    assert np.array_equal(_streamed(StreamingMel(spec), samples, cuts), _offline(samples, spec))


@pytest.mark.parametrize("name", ["voxtral-realtime", "nemotron-streaming"])
def test_samples_may_come_one_by_one(name: str) -> None:
    samples = _noise(1_500)
    assert np.array_equal(_streamed(StreamingMel(name), samples, range(1_500)), _offline(samples, mel_spec(name)))


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 192_000])
def test_a_source_of_another_rate_is_resampled_as_the_whole_clip_is(rate: int) -> None:
    samples = _noise(rate + 37, rate)
    at_16_khz = to_rate(samples[None], rate, 16_000, mono=True, limits=Limits())[0]
    for chunk in (rate // 100, 1_013):
        mel = StreamingMel("voxtral-realtime", sample_rate=rate)
        got = _streamed(mel, samples, range(0, len(samples), chunk))
        assert np.array_equal(got, _offline(at_16_khz, mel.spec))


@given(st.integers(0, 900), st.lists(st.integers(0, 900), max_size=5), st.sampled_from([8_000, 44_100, 48_000]))
@settings(max_examples=25, deadline=None)
def test_resampled_frames_do_not_depend_on_the_chunks(num_samples: int, cuts: list[int], rate: int) -> None:
    samples = _noise(num_samples)
    whole = _streamed(StreamingMel("nemotron-streaming", sample_rate=rate), samples, [])
    assert np.array_equal(_streamed(StreamingMel("nemotron-streaming", sample_rate=rate), samples, cuts), whole)


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("interleaved", [False, True])
def test_channels_become_their_mean_as_in_a_file(channels: int, interleaved: bool) -> None:
    samples = _noise(900, channels, channels)
    mono = to_rate(samples, 16_000, None, mono=True, limits=Limits())[0]
    given_samples = np.ascontiguousarray(samples.T).T if interleaved else samples
    mel = StreamingMel("gemma4", channels=channels)
    assert np.array_equal(_streamed(mel, given_samples, [1, 2, 10, 11, 400]), _offline(mono, mel.spec))


def test_samples_of_16_bits_are_those_of_a_file_of_16_bits() -> None:
    samples = np.random.default_rng(1).integers(-(2**15), 2**15, (2, 2_000), dtype=np.int16)
    mel = StreamingMel("phi4-multimodal", channels=2)
    floats = samples.astype(np.float32) / np.float32(32_768)
    mono = to_rate(floats, 16_000, None, mono=True, limits=Limits())[0]
    assert np.array_equal(_streamed(mel, samples, [3, 700]), _offline(mono, mel.spec))


def test_a_stream_does_not_end_where_offline_features_are_cut_off() -> None:
    samples = _noise(496_000)
    mel = StreamingMel("gemma4")
    got = _streamed(mel, samples, range(0, 496_000, 16_000))
    assert got.shape == (3_099, 128)
    assert np.array_equal(got, _offline(samples, mel.spec))


def test_a_frame_comes_with_the_last_sample_that_it_needs() -> None:
    samples, mel = _noise(2_000), StreamingMel("voxtral-realtime")
    came = [place + 1 for place in range(2_000) if mel.push(samples[place : place + 1]).shape[1]]
    assert came == [201, *range(360, 2_000, 160)]  # the first mirrors one sample more


def test_what_was_pushed_may_be_written_over() -> None:
    samples = _noise(3_000)
    mel, chunk, frames = StreamingMel("nemotron-streaming"), np.empty(300, np.float32), []
    for first in range(0, 3_000, 300):
        chunk[:] = samples[first : first + 300]
        frames.append(mel.push(chunk))
        chunk[:] = np.nan
    frames.append(mel.finish())
    assert np.array_equal(np.concatenate(frames), _offline(samples, mel.spec))


def test_an_endless_stream_keeps_less_than_a_window_and_a_hop() -> None:
    chunk = _noise(4_410)
    mel = StreamingMel("voxtral-realtime", sample_rate=44_100)
    for _ in range(10):
        mel.push(chunk)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(600):
            mel.push(chunk)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 16_384
    assert len(mel._padded) < mel.spec.n_fft + mel.spec.hop_length


def test_frames_are_those_of_nemotrons_own_streaming_calls() -> None:
    from transformers import NemotronAsrStreamingFeatureExtractor

    samples, extractor = _noise(32_000), NemotronAsrStreamingFeatureExtractor()
    theirs = _their_streaming(samples, extractor, drops_last=False)
    ours = _streamed(StreamingMel("nemotron-streaming"), samples, range(0, 32_000, 1_280))
    assert len(theirs) > 190
    assert np.abs(ours[: len(theirs)] - theirs).max() <= TOLERANCES["mel/streaming"].max_abs


def test_frames_are_those_of_voxtrals_own_streaming_calls() -> None:
    from transformers import VoxtralRealtimeFeatureExtractor

    samples, extractor = _noise(32_000), VoxtralRealtimeFeatureExtractor()
    theirs = _their_streaming(samples, extractor, drops_last=True)
    ours = _streamed(StreamingMel("voxtral-realtime"), samples, range(0, 32_000, 1_280)).T
    assert len(theirs) > 190
    assert np.abs(ours[: len(theirs)] - theirs).max() <= TOLERANCES["mel/streaming"].max_abs


def _their_streaming(samples: Samples, extractor: Any, *, drops_last: bool) -> Samples:
    """``(frames, n_mels)``: the first chunk centred, each later one ``audio[hop * frame - n_fft // 2 :]`` and not."""
    half, hop, wanted = extractor.n_fft // 2, extractor.hop_length, 8
    found: list[torch.Tensor] = []
    for first in range(0, (len(samples) - half) // hop - wanted, wanted):
        begin = max(0, first * hop - half)
        end = (first + wanted - 1 + drops_last * (first > 0)) * hop + half
        made = extractor(samples[begin:end], sampling_rate=16_000, return_tensors="pt", center=first == 0)
        frames = made["input_features"][0]
        found.append((frames.T if drops_last else frames)[:wanted])
    return torch.cat(found).numpy()


@pytest.mark.parametrize("name", sorted(set(mel_spec_names()) - set(LIVE)))
def test_a_spec_whose_frames_depend_on_the_whole_clip_is_refused(name: str) -> None:
    with pytest.raises(InvalidOptions, match=r"no features of a live stream: its? ") as caught:
        StreamingMel(name)
    assert mel_spec(name).name in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"spec": "whisper-81"},
        {"spec": None},
        {"spec": "gemma4", "sample_rate": 1},
        {"spec": "gemma4", "sample_rate": 655_350},
        {"spec": "gemma4", "sample_rate": 16_000.0},
        {"spec": "gemma4", "sample_rate": True},
        {"spec": "gemma4", "channels": 0},
        {"spec": "gemma4", "channels": 64},
        {"spec": "gemma4", "channels": True},
    ],
)
def test_a_stream_that_cannot_be_made_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        StreamingMel(**arguments)


@pytest.mark.parametrize(
    ("channels", "samples"),
    [
        (1, np.zeros(4)),
        (1, np.zeros(4, np.int32)),
        (1, [0.0, 1.0]),
        (1, "sound"),
        (1, None),
        (1, np.float32(1.0)),
        (1, np.zeros((2, 4), np.float32)),
        (1, np.zeros((1, 2, 4), np.float32)),
        (2, np.zeros(4, np.float32)),
        (2, np.zeros((4, 2), np.float32)),
        (2, np.zeros((1, 2), np.float32)),
    ],
)
def test_samples_of_another_shape_or_type_are_refused(channels: int, samples: Any) -> None:
    with pytest.raises(InvalidOptions, match="samples "):
        StreamingMel("gemma4", channels=channels).push(samples)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_chunk_with_a_sample_that_is_no_number_is_refused_and_changes_nothing(wrong: float, rate: int) -> None:
    samples = _noise(2_000)
    mel, clean = (StreamingMel("voxtral-realtime", sample_rate=rate) for _ in range(2))
    bad = samples[:500].copy()
    bad[77] = wrong
    first = mel.push(samples[:1_000])
    with pytest.raises(CorruptMedia, match="no numbers"):
        mel.push(bad)
    got = [first, mel.push(samples[1_000:]), mel.finish()]
    assert np.array_equal(np.concatenate(got, axis=1), _streamed(clean, samples, []))


def test_nothing_is_pushed_to_a_finished_stream() -> None:
    mel = StreamingMel("gemma3n")
    assert mel.finish().shape == (0, 128)
    with pytest.raises(Closed, match="finished"):
        mel.push(_noise(10))
    with pytest.raises(Closed, match="finished"):
        mel.finish()
