"""A clip takes as many places in a prompt as the model's processor gives it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpuflow.presets.audio_tokens import num_tokens
from gpuflow.presets.clip_plan import clip_plan
from gpuflow.presets.mel_specs import mel_spec
from tests.parity.audio_extractors import extractor

LENGTHS = (16_000, 16_159, 48_123, 160_000, 479_999, 480_000, 500_001, 1_600_000, 9_000_001)


def _bare(kind: str, **attributes: Any) -> Any:
    """A processor without a tokenizer, whose methods need none."""
    import transformers

    processor = object.__new__(getattr(transformers, kind))
    for name, value in attributes.items():
        setattr(processor, name, value)
    return processor


def _qwen2_audio(valid: list[int], samples: int) -> int:
    processor = _bare("Qwen2AudioProcessor", audio_token="a")
    processor.feature_extractor = extractor("WhisperFeatureExtractor", feature_size=128)
    clip = np.zeros(samples, np.float32)
    made, _ = processor._process_audio([clip], sampling_rate=16_000, return_tensors="np")
    return int(made["num_audio_tokens"][0])


def _qwen2_5_omni(valid: list[int], samples: int) -> int:
    """Source: ``Qwen2_5OmniProcessor.__call__``."""
    behind_a_convolution = (valid[0] - 1) // 2 + 1
    return (behind_a_convolution - 2) // 2 + 1


def _qwen3_omni(valid: list[int], samples: int) -> int:
    from transformers.models.qwen3_omni_moe.processing_qwen3_omni_moe import _get_feat_extract_output_lengths

    return int(_get_feat_extract_output_lengths(valid[0]))


def _by_lengths(kind: str) -> Callable[[list[int], int], int]:
    def count(valid: list[int], samples: int) -> int:
        import torch

        return int(np.asarray(_bare(kind)._get_audio_token_length(torch.tensor([sum(valid)])))[0])

    return count


def _voxtral(valid: list[int], samples: int) -> int:
    """Source: mistral-common's ``AudioEncoder``: sound padded to 30 s, 12.5 tokens a second."""
    return int(12.5 * 30 * math.ceil(samples / 480_000))


def _gemma3n(valid: list[int], samples: int) -> int:
    from transformers import Gemma3nProcessor

    default: int = inspect.signature(Gemma3nProcessor.__init__).parameters["audio_seq_length"].default
    return default


def _by_mask(kind: str) -> Callable[[list[int], int], int]:
    def count(valid: list[int], samples: int) -> int:
        processor = _bare(kind, audio_token="a", boa_token="", eoa_token="")
        mask = np.arange(valid[0] + 3) < valid[0]
        return len(processor.replace_audio_token({"input_features_mask": [mask]}, 0))

    return count


def _phi4(valid: list[int], samples: int) -> int:
    import torch

    made = extractor("Phi4MultimodalFeatureExtractor")
    return int(made._compute_audio_embed_size(torch.tensor([(samples - 400) // 160 + 1]))[0])


def _granite(valid: list[int], samples: int) -> int:
    count: int = extractor("GraniteSpeechFeatureExtractor")._get_num_audio_features([samples])[0]
    return count


PROCESSORS: dict[str, Callable[[list[int], int], int]] = {
    "qwen2-audio": _qwen2_audio,
    "qwen2.5-omni": _qwen2_5_omni,
    "qwen3-omni": _qwen3_omni,
    "qwen3-asr": _by_lengths("Qwen3ASRProcessor"),
    "voxtral": _voxtral,
    "audio-flamingo-3": _by_lengths("AudioFlamingo3Processor"),
    "music-flamingo": _by_lengths("MusicFlamingoProcessor"),
    "glm-asr": _by_lengths("GlmAsrProcessor"),
    "gemma3n": _gemma3n,
    "gemma4": _by_mask("Gemma4Processor"),
    "gemma4-unified": _by_mask("Gemma4UnifiedProcessor"),
    "phi4-multimodal": _phi4,
    "granite-speech": _granite,
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_tokens_are_those_of_the_processor(name: str) -> None:
    for samples in LENGTHS:
        clip = clip_plan(mel_spec(name), samples)
        assert clip.num_tokens == PROCESSORS[name](list(clip.valid_lengths), samples), samples


def test_features_for_a_decoder_of_their_own_have_no_tokens() -> None:
    assert [clip_plan(mel_spec(name), 16_000).num_tokens for name in ("whisper-128", "parakeet", "wav2vec2")] == [None] * 3


def test_tokens_of_parts_that_are_given_are_the_sum_of_clips() -> None:
    spec, parts = mel_spec("qwen2-audio"), ((0, 16_000), (16_000, 20_001))
    alone = [clip_plan(spec, last - first).num_tokens for first, last in parts]
    assert clip_plan(spec, 20_001, parts=parts).num_tokens == sum(count or 0 for count in alone)


def test_hardly_any_frames_never_take_fewer_than_no_tokens() -> None:
    for name in PROCESSORS:
        assert (num_tokens(mel_spec(name), (0,)) or 0) >= 0
