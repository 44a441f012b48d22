"""Audio files in, a model's whole audio input out: features, masks, counts, parts, types."""

from __future__ import annotations

import numpy as np
import pytest

from gpuflow import device as devices
from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import NoSuchStream
from gpuflow.flow.audio import load_audio
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.media import FeatureMetadata, Features
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from gpuflow.presets.mel_specs import mel_spec
from tests.flow.audio_files import KINDS, blob, with_soundfile
from tests.parity.audio_extractors import CALLS, hugging_face
from tests.parity.mel_signals import noise

RATE = 16_000


def _load(seconds: float, options: AudioOptions, slab: Slab) -> Features:
    data = with_soundfile(noise(int(seconds * RATE))[None], RATE, "WAV", "FLOAT")
    context = LoadContext(
        device=devices.choose("cpu"),
        slab=slab,
        host_slab=slab,
        limits=Limits(),
        deadline=Deadline(60.0),
        counters=Counters(),
    )
    media = load_audio(blob(data), KINDS["wav"], options, context)
    assert isinstance(media, Features)
    return media


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("qwen2.5-omni", "music-flamingo")])
def test_a_file_gives_all_that_the_models_processor_gives(name: str) -> None:
    expected = hugging_face(name, noise(3 * RATE))
    with Slab("16MiB") as slab, _load(3.0, AudioOptions(features=name), slab) as media:
        assert {key: (tuple(media[key].shape), str(media[key].dtype)) for key in media} == {
            key: (value.shape, f"torch.{value.dtype}") for key, value in expected.items()
        }
        for key in list(media)[1:]:
            assert np.array_equal(media[key].numpy(), expected[key])
        assert isinstance(media.metadata, FeatureMetadata)
        assert media.metadata.preset == name
        assert (media.metadata.num_tokens is None) == (mel_spec(name).tokens is None)


def test_a_long_file_in_parts_says_where_they_lie() -> None:
    with Slab("16MiB") as slab, _load(70.0, AudioOptions(features="audio-flamingo-3"), slab) as media:
        assert media.shape == (3, 128, 3_000)
        assert isinstance(media.metadata, FeatureMetadata)
        assert media.metadata.parts == ((0, 480_000), (480_000, 960_000), (960_000, 1_120_000))
        assert media.metadata.valid_lengths == (3_000, 3_000, 1_000)
        assert media.metadata.valid_length == 7_000
        assert media.metadata.num_tokens == 1_750


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_features_come_in_half_precision_and_masks_as_they_are(dtype: str) -> None:
    options = AudioOptions(features="qwen2-audio", dtype=dtype)  # type: ignore[arg-type]
    with Slab("16MiB") as slab, _load(2.0, options, slab) as media:
        assert str(media["input_features"].dtype) == f"torch.{dtype}"
        assert str(media["feature_attention_mask"].dtype) == "torch.int32"
        assert int(media["feature_attention_mask"].sum()) == 200


@pytest.mark.parametrize("name", ["qwen3-omni", "gemma3n", "phi4-multimodal", "parakeet", "seamless-m4t"])
def test_a_file_too_short_for_a_frame_is_refused_and_leaves_nothing_behind(name: str) -> None:
    with Slab("16MiB") as slab:
        with pytest.raises(NoSuchStream, match="too short for a frame"):
            _load(0.005, AudioOptions(features=name), slab)
        assert slab.statistics().live_leases == 0
