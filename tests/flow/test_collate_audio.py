"""Features of several clips as one batch, against what Hugging Face's processors return for a list of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import gpuflow
from gpuflow.config import AudioOptions, ImageOptions
from gpuflow.errors import InvalidOptions
from gpuflow.flow.audio import load_audio
from gpuflow.flow.context import LoadContext
from gpuflow.media import Features
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec
from tests.flow.audio_files import KINDS, Samples, blob, chirp, with_soundfile
from tests.parity.tolerances import TOLERANCES
from tests.unit.image_files import encoded, scene

RATE = 16_000
CLAMPED, UNCLAMPED = (TOLERANCES[name].max_abs for name in ("mel/clamped", "mel/batch"))
LENGTHS = (40_000, 24_240, 40_000, 8_320)


def _clips(lengths: Sequence[int] = LENGTHS) -> list[Samples]:
    return [chirp(count / RATE, RATE)[0] * np.float32(0.2 + place / 4) for place, count in enumerate(lengths)]


@contextmanager
def _loaded(clips: Sequence[Samples], context: LoadContext, **options: Any) -> Iterator[list[Features]]:
    wanted = AudioOptions.from_mapping(options)
    with ExitStack() as stack:
        found = []
        for clip in clips:
            data = with_soundfile(clip[None], RATE, "WAV", "FLOAT")
            media = stack.enter_context(load_audio(blob(data), KINDS["wav"], wanted, context))
            assert isinstance(media, Features)
            found.append(media)
        yield found


def _close(got: torch.Tensor, expected: Any, tolerance: float = UNCLAMPED) -> bool:
    theirs = torch.as_tensor(np.asarray(expected))
    return got.shape == theirs.shape and bool(((got - theirs).abs() <= tolerance).all())


def test_clips_of_one_length_are_a_batch_of_whispers(context: LoadContext) -> None:
    clips = _clips()
    expected = transformers.WhisperFeatureExtractor(feature_size=128)(clips, sampling_rate=RATE, return_tensors="pt")
    with _loaded(clips, context, features="whisper-128") as features:
        batch = gpuflow.collate(features)
    assert batch.keys() == {"input_features"}
    assert _close(batch["input_features"], expected["input_features"], CLAMPED)


@pytest.mark.parametrize(
    ("name", "extractor"),
    [
        ("parakeet", "ParakeetFeatureExtractor"),
        ("nemotron-streaming", "NemotronAsrStreamingFeatureExtractor"),
        ("cohere-asr", "CohereAsrFeatureExtractor"),
    ],
)
def test_what_a_processor_zeroes_is_zero(name: str, extractor: str, context: LoadContext) -> None:
    clips = _clips()
    theirs = getattr(transformers, extractor)()(clips, sampling_rate=RATE, return_tensors="pt")
    with _loaded(clips, context, features=name) as features:
        batch = gpuflow.collate(features)
    assert batch.keys() == {"input_features", "attention_mask"}
    assert torch.equal(batch["attention_mask"], theirs["attention_mask"])
    assert _close(batch["input_features"], theirs["input_features"])


def test_phi_4s_sizes_come_one_after_another_and_its_padding_is_silent(context: LoadContext) -> None:
    clips = _clips()
    theirs = transformers.Phi4MultimodalFeatureExtractor()(clips, sampling_rate=RATE, return_tensors="pt")
    with _loaded(clips, context, features="phi4-multimodal") as features:
        valid = [item.metadata.valid_length or 0 for item in features]
        batch = gpuflow.collate(features)
    assert batch["audio_embed_sizes"].tolist() == theirs["audio_embed_sizes"].tolist()
    assert batch["audio_input_features"].shape == theirs["audio_input_features"].shape
    for got, expected, count in zip(batch["audio_input_features"], theirs["audio_input_features"], valid, strict=True):
        assert _close(got[:count], expected[:count])
        assert _close(got[count + 3 :], expected[count + 3 :]), "frames between see the end of the clip there"


@pytest.mark.parametrize("name", ["qwen3-omni", "voxtral-realtime"])
def test_padding_is_what_the_spec_makes_of_silence(name: str, context: LoadContext) -> None:
    clips = _clips()
    call: dict[str, Any] = {"sampling_rate": RATE, "padding": True, "return_tensors": "pt"}
    if name == "qwen3-omni":
        theirs = transformers.WhisperFeatureExtractor(feature_size=128)(clips, truncation=False, **call)
    else:
        theirs = transformers.VoxtralRealtimeFeatureExtractor()(clips, **call)
    with _loaded(clips, context, features=name) as features:
        batch = gpuflow.collate(features)
    assert batch["input_features"].shape == theirs["input_features"].shape
    for got, expected, clip in zip(batch["input_features"], theirs["input_features"], clips, strict=True):
        end = len(clip) // 160
        assert _close(got[:, : end - 2], expected[:, : end - 2], CLAMPED)
        assert _close(got[:, end + 2 :], expected[:, end + 2 :], CLAMPED)
    if name == "qwen3-omni":
        assert batch["feature_attention_mask"].sum(1).tolist() == [count // 160 for count in LENGTHS]


def test_raw_samples_are_padded_with_zeros(context: LoadContext) -> None:
    clips = _clips()
    theirs = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)(
        clips, sampling_rate=RATE, padding=True, return_tensors="pt"
    )
    with _loaded(clips, context, features="wav2vec2-masked") as features:
        batch = gpuflow.collate(features)
    assert torch.equal(batch["attention_mask"], theirs["attention_mask"])
    assert _close(batch["input_values"], theirs["input_values"], CLAMPED)


def test_parts_of_clips_come_one_after_another(context: LoadContext) -> None:
    clips = _clips((50 * RATE, 3 * RATE))
    theirs = transformers.CohereAsrFeatureExtractor()(clips, sampling_rate=RATE, return_tensors="pt")
    with _loaded(clips, context, features="cohere-asr") as features:
        parts = [len(item.metadata.parts) for item in features]
        batch = gpuflow.collate(features)
    assert parts == [2, 1]
    assert torch.equal(batch["attention_mask"], theirs["attention_mask"])
    assert _close(batch["input_features"], theirs["input_features"])


@pytest.mark.parametrize("loudness", [1.0, 1e-4])
def test_stacked_frames_with_deltas_are_padded_band_by_band(loudness: float, context: LoadContext) -> None:
    clips = [clip * np.float32(loudness) for clip in _clips((24_000, 8_000))]
    clips[1][::3_000] = 0.5 * loudness  # so that deltas rise
    with _loaded(clips, context, features="granite-speech5") as features:
        rows = features[1].shape[0]
        loudest = features[1]["input_features"].reshape(-1, 2, 160)[..., :80].max()
        padding = gpuflow.collate(features)["input_features"][1, rows:].reshape(-1, 2, 2, 80)
    assert len(padding) > 20
    assert _close(padding[:, :, 0], np.full((len(padding), 2, 80), max(-1.5, float(loudest) - 2.0)), 1e-6)
    assert not padding[:, :, 1].any()


def test_a_spec_of_ones_own_is_named_where_lengths_differ(context: LoadContext) -> None:
    own = MelSpec(
        "own", max_samples=None, pad_to="none", n_mels=8, clamp="none", bin_mean=(1.0,) * 8, bin_std=(2.0,) * 8
    )
    with _loaded(_clips((8_000, 8_000)), context, features=own) as features:
        assert gpuflow.collate(features)["input_features"].shape == (2, 8, 50)
    with _loaded(_clips((8_000, 6_400)), context, features=own) as features:
        with pytest.raises(InvalidOptions, match="spec=spec"):
            gpuflow.collate(features)
        batch = gpuflow.collate(features, spec=own)
    assert _close(batch["input_features"][1, :, 40:], np.full((8, 10), (-1.5 - 1.0) / 2.0), 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_batch_keeps_the_type_of_its_features(dtype: str, context: LoadContext) -> None:
    with _loaded(_clips(), context, features="qwen3-omni", dtype=dtype) as features:
        assert gpuflow.collate(features)["input_features"].dtype == getattr(torch, dtype)


def test_a_batch_is_of_one_spec_and_of_whole_clips_or_of_parts(context: LoadContext) -> None:
    clip = _clips((8_000,))
    with _loaded(clip, context, features="whisper-80") as one, _loaded(clip, context, features="whisper-128") as other:
        with pytest.raises(InvalidOptions, match="one preset"):
            gpuflow.collate([*one, *other])
        in_parts = _loaded(clip, context, features="whisper-80", split="windows")
        with in_parts as parts, pytest.raises(InvalidOptions, match="one preset"):
            gpuflow.collate([*one, *parts])
        with gpuflow.SyncFlow(device="cpu", slab_bytes="16MiB") as flow:
            options = ImageOptions(preset="clip-224")
            with flow.load(encoded(scene(32, 32), "PNG"), options=options) as image:
                assert isinstance(image, Features)
                with pytest.raises(InvalidOptions, match="or of audio only"):
                    gpuflow.collate([*one, image])


def test_masks_of_tokens_are_one_a_clip_also_where_it_is_split(context: LoadContext) -> None:
    with _loaded(
        _clips((40_000, 8_000)), context, features="granite-speech", split="windows", split_seconds=1.0
    ) as features:
        tokens = [item.metadata.num_tokens or 0 for item in features]
        batch = gpuflow.collate(features)
    assert batch["input_features"].shape[0] == 3 + 1
    assert batch["input_features_mask"].sum(1).tolist() == tokens
    assert len(batch["input_features_mask"]) == 2


def test_a_spec_is_named_and_must_be_that_of_the_features(context: LoadContext) -> None:
    with _loaded(_clips()[:1], context, features="qwen3-omni") as features:
        named = gpuflow.collate(features, spec="qwen3-omni")
        assert named["input_features"].shape == (1, *features[0].shape)
        for spec in ("whisper-80", mel_spec("whisper-80")):
            with pytest.raises(InvalidOptions, match="of qwen3-omni; got the spec"):
                gpuflow.collate(features, spec=spec)
        with pytest.raises(InvalidOptions, match="no mel spec"):
            gpuflow.collate(features, spec="none-such")
