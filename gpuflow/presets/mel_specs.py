"""The built-in mel specs by family, and the names of checkpoints whose processors have the very same settings.

Source: the feature extractors of transformers as the processors call them, at a batch of one.
"""

from __future__ import annotations

from dataclasses import replace

from gpuflow.errors import InvalidOptions
from gpuflow.presets.mel import MelSpec
from gpuflow.values import shown

_WHISPER_80 = MelSpec("whisper-80")
_WHISPER_128 = replace(_WHISPER_80, name="whisper-128", n_mels=128)
_QWEN2_AUDIO = replace(_WHISPER_128, name="qwen2-audio", mask_name="feature_attention_mask", tokens="qwen2")
_UNPADDED = replace(_WHISPER_128, max_samples=None, pad_to="none")
_IN_PARTS = replace(
    _WHISPER_128, max_samples=None, mask_name="input_features_mask", split="before_mel", split_frames=3_000
)
_GEMMA3N = MelSpec(
    "gemma3n", pad_to="multiple", pad_samples=128, n_fft=1_024, win_length=512, window_at="left", pad_left=0, pad_right=0,
    pad_mode="constant", frame_extra=1, drop_last=False, frame_preemphasis=0.97, power=1, n_mels=128, f_min=125.0,
    f_max=7_600.0, mel_scale="htk", mel_norm=None, log="ln", floor=1e-5, clamp="none", scale=1.0, offset=0.0, layout="TM",
    mask_name="input_features_mask", mask_dtype="bool", tokens="gemma3n",
)  # fmt: skip
_KALDI = MelSpec(
    "kaldi", max_samples=None, pad_to="none", n_fft=512, window_at="left", pad_left=0, pad_right=0, pad_mode="constant",
    drop_last=False, mel_scale="kaldi", mel_norm=None, triangles="mel", log="ln", clamp="none", scale=1.0, offset=0.0,
    valid="win", layout="TM",
)  # fmt: skip
_GRANITE = MelSpec(
    "granite-speech", max_samples=None, pad_to="none", n_fft=512, pad_left=256, pad_right=256, drop_last=False,
    mel_scale="htk", mel_norm=None, valid="floor_hop_p1", stack=2, layout="TM", mask_name="input_features_mask",
    mask_dtype="bool", mask_of="tokens", tokens="granite",
)  # fmt: skip
_NEMOTRON = MelSpec(
    "nemotron-streaming", max_samples=None, pad_to="none", signal_preemphasis=0.97, n_fft=512, periodic=False, pad_left=256,
    pad_right=256, pad_mode="constant", drop_last=False, log="ln", floor=2.0**-24, floor_mode="add", clamp="none", scale=1.0,
    offset=0.0, valid="floor_hop", zero_invalid=True, layout="TM", mask_name="attention_mask", mask_dtype="bool",
)  # fmt: skip
_PARAKEET = replace(_NEMOTRON, name="parakeet", normalize="feature", norm_eps=1e-5)
_RAW = MelSpec(
    "wav2vec2", kind="raw", max_samples=None, pad_to="none", normalize="clip", norm_eps=1e-7, eps_in_sqrt=True,
    features_name="input_values",
)  # fmt: skip

_ROWS = (
    _WHISPER_80,
    _WHISPER_128,
    _QWEN2_AUDIO,
    replace(_QWEN2_AUDIO, name="qwen2.5-omni", max_samples=4_800_000, pad_samples=4_800_000),
    replace(_UNPADDED, name="qwen3-omni", mask_name="feature_attention_mask", tokens="qwen3"),
    replace(
        _UNPADDED, name="qwen3-asr", min_samples=8_000, frame_multiple=100, mask_name="input_features_mask", tokens="qwen3"
    ),
    replace(_UNPADDED, name="voxtral", pad_to="multiple", split="after_mel", tokens="voxtral"),
    replace(_UNPADDED, name="voxtral-realtime", clamp="fixed", fixed_max=1.5, valid="win"),
    replace(_IN_PARTS, name="audio-flamingo-3", max_splits=20, tokens="qwen2"),
    replace(_IN_PARTS, name="music-flamingo", max_splits=40, tokens="qwen2"),
    replace(_IN_PARTS, name="glm-asr", max_splits=21, tokens="glm"),
    _GEMMA3N,
    replace(
        _GEMMA3N, name="gemma4", n_fft=512, win_length=320, pad_left=160, frame_preemphasis=0.0, f_min=0.0, f_max=8_000.0,
        floor=1e-3, floor_mode="add", valid="last_sample", zero_invalid=True, tokens="gemma4",
    ),
    replace(
        _RAW, name="gemma4-unified", frame_samples=640, normalize="none", norm_eps=0.0, eps_in_sqrt=False,
        features_name="input_features", mask_name="input_features_mask", mask_dtype="bool", tokens="frames",
    ),
    replace(
        _KALDI, name="phi4-multimodal", input_scale=32_768.0, window="hamming", periodic=False, frame_preemphasis=0.97,
        f_max=7_690.0, floor=1.0, features_name="audio_input_features", sizes_name="audio_embed_sizes", tokens="phi4",
        precision="float64",
    ),
    replace(
        _KALDI, name="seamless-m4t", input_scale=32_768.0, window="povey", periodic=False, remove_dc=True,
        frame_preemphasis=0.97, f_min=20.0, floor=1.192092955078125e-07, normalize="feature", norm_eps=1e-7, eps_in_sqrt=True,
        frame_multiple=2, stack=2, mask_name="attention_mask", precision="float64",
    ),
    replace(
        _KALDI, name="lasr", periodic=False, n_mels=128, f_min=125.0, f_max=7_500.0, floor=1e-5, mask_name="attention_mask",
        mask_dtype="bool", precision="float64",
    ),
    _GRANITE,
    replace(
        _GRANITE, name="granite-speech5", pad_to="frames", delta_window=3, mask_name="attention_mask", mask_dtype="int64",
        mask_of="frames", tokens=None,
    ),
    _PARAKEET,
    replace(_PARAKEET, name="parakeet-128", n_mels=128),
    _NEMOTRON,
    replace(
        _PARAKEET, name="cohere-asr", n_mels=128, dither=1e-5, split="quietest", split_frames=3_500,
        split_search_samples=80_000, split_window_samples=1_600,
    ),
    _RAW,
    replace(_RAW, name="wav2vec2-masked", mask_name="attention_mask"),
)  # fmt: skip
_SPECS = {spec.name: spec for spec in _ROWS}
_ALIASES = {
    "whisper-large-v2": "whisper-80",
    "whisper-large-v3": "whisper-128",
    "canary": "parakeet-128",
    "hubert": "wav2vec2",
    "wavlm": "wav2vec2",
}


def mel_spec_names() -> tuple[str, ...]:
    """Every name that ``mel_spec`` takes."""
    return (*_SPECS, *_ALIASES)


def mel_spec(name: str) -> MelSpec:
    """A built-in spec by its name or by a model's.

    Raises:
        InvalidOptions: no such name; lists them.
    """
    spec = _SPECS.get(_ALIASES.get(name, name))
    if spec is None:
        raise InvalidOptions(f"no mel spec {shown(name)}; there are {', '.join(mel_spec_names())}")
    return spec
