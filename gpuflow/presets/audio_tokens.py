"""How many places a clip takes in a prompt, by the family's rule, from the valid frames of its features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpuflow.presets.mel import MelSpec

_VOXTRAL_FRAMES_A_TOKEN = 8
_GEMMA3N_TOKENS = 188
_PHI4_FRAMES_A_TOKEN = 8
_GRANITE_BLOCK, _GRANITE_TOKENS_A_BLOCK = 15, 3
_QWEN3_CHUNK, _QWEN3_TOKENS_A_CHUNK = 100, 13
_GLM_FRAMES_A_TOKEN = 4


def num_tokens(spec: MelSpec, valid_lengths: Sequence[int]) -> int | None:
    """Places of a clip whose parts have these valid frames; ``None``: the family's decoder takes the features otherwise.

    Source: the processors of transformers, each function below naming its own.
    """
    if spec.tokens is None:
        return None
    if spec.tokens == "voxtral":
        return _voxtral(spec, valid_lengths)
    return max(0, _RULES[spec.tokens](sum(valid_lengths)))


def _voxtral(spec: MelSpec, valid_lengths: Sequence[int]) -> int:
    """Every part counts whole. Source: mistral-common's audio encoder, 12.5 tokens a second of padded audio."""
    return len(valid_lengths) * spec.split_frames // _VOXTRAL_FRAMES_A_TOKEN


def _halved(frames: int) -> int:
    """Behind a convolution of stride 2."""
    return (frames - 1) // 2 + 1


def _qwen2(frames: int) -> int:
    """Source: ``Qwen2AudioProcessor``, ``Qwen2_5OmniProcessor``, ``AudioFlamingo3Processor``."""
    return (_halved(frames) - 2) // 2 + 1


def _qwen3(frames: int) -> int:
    """Source: ``Qwen3ASRProcessor``, ``Qwen3OmniMoeProcessor``, with ``n_window`` 50."""
    chunks, left = divmod(frames, _QWEN3_CHUNK)
    return _halved(_halved(_halved(left))) + chunks * _QWEN3_TOKENS_A_CHUNK


def _glm(frames: int) -> int:
    """Source: ``GlmAsrProcessor``."""
    return _halved(frames) // _GLM_FRAMES_A_TOKEN


def _gemma4(frames: int) -> int:
    """Source: ``Gemma4Processor.replace_audio_token``: every fourth place of the mask."""
    return _halved(_halved(frames))


def _phi4(frames: int) -> int:
    """Source: ``Phi4MultimodalFeatureExtractor._compute_audio_embed_size``."""
    return -(-frames // _PHI4_FRAMES_A_TOKEN)


def _granite(frames: int) -> int:
    """Source: ``GraniteSpeechFeatureExtractor._get_num_audio_features``; its frames are stacked by two."""
    return -(-frames // _GRANITE_BLOCK) * _GRANITE_TOKENS_A_BLOCK


_RULES: dict[str, Callable[[int], int]] = {
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "glm": _glm,
    "gemma3n": lambda frames: _GEMMA3N_TOKENS,
    "gemma4": _gemma4,
    "phi4": _phi4,
    "granite": _granite,
    "frames": lambda frames: frames,
}
