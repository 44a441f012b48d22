"""The table of samplers. A new one is a row.

Rows of Hugging Face are compared with the installed transformers. Servers are not installed: their rules were read in
their sources (vLLM between 0.31 and 0.33, SGLang at 65cf1ed0b, Dynamo at the commits below) and agree with what is
recorded of vLLM 0.33 and SGLang 0.5.23. Of the loaders that vLLM 0.33 registers, ``embedding_gemma2`` and ``clef_omni``
are missing; ``pynvvideocodec`` and ``nemotron_vl`` choose as ``opencv`` does.
"""

from __future__ import annotations

from gpuflow.errors import InvalidOptions
from gpuflow.samplers import glm, plain, qwen
from gpuflow.samplers.base import Sampler

_VLLM = "vLLM 0.33, multimodal/video.py"
_HF = "transformers 5.17"
_RATE, _BOTH = ("fps", "max_frames"), ("num_frames", "fps")
_ALL = ("num_frames", "fps", "max_frames")
_ROWS = (
    Sampler("linspace-round", "numpy.linspace, rounded: decord's users", ("num_frames",), plain.linspace_rounded),
    Sampler(
        "linspace-truncate", "numpy.linspace(dtype=int): decord's users", ("num_frames",), plain.linspace_truncated
    ),
    Sampler("dynamo", "Dynamo's frontend (Rust) at 054739914: by number", _ALL, plain.dynamo, "clip"),
    Sampler("dynamo-times", "Dynamo's frontend (Rust), 1.6.1 and before: by time", _ALL, plain.dynamo_times, "clip"),
    Sampler("dynamo-nvdec", "Dynamo's decode_video_nvdec at 35ef401e4", _ALL, plain.dynamo_nvdec),
    Sampler("vllm", f"{_VLLM}: opencv", _ALL, plain.vllm),
    Sampler("vllm-qwen2-vl", f"{_VLLM}: qwen2_vl", _RATE, qwen.qwen2_vl),
    Sampler("vllm-qwen3-vl", f"{_VLLM}: qwen3_vl", _RATE, qwen.qwen3_vl),
    Sampler("vllm-glm4v", f"{_VLLM}: opencv_dynamic", ("fps",), glm.vllm_glm4v),
    Sampler("vllm-glm46v", f"{_VLLM}: glm46v", (), glm.glm46v),
    Sampler("vllm-glm5next", f"{_VLLM}: glm5next", _RATE, glm.vllm_glm5next),
    Sampler("vllm-glmga", f"{_VLLM}: glmga", _RATE, glm.glmga),
    Sampler("vllm-molmo2", f"{_VLLM}: molmo2, uniform_last_frame", _RATE, plain.molmo2),
    Sampler("vllm-openpangu", f"{_VLLM}: openpangu", _ALL, plain.openpangu),
    Sampler("sglang-qwen-vl", "SGLang 0.5.23, processors/qwen_vl.py", _ALL, qwen.sglang),
    Sampler("hf", f"{_HF}, BaseVideoProcessor: LLaVA", _BOTH, plain.hf),
    Sampler("hf-qwen2-vl", f"{_HF}, Qwen2VLVideoProcessor", _ALL, qwen.qwen2_vl),
    Sampler("hf-qwen3-vl", f"{_HF}, Qwen3VLVideoProcessor", _BOTH, qwen.qwen3_vl),
    Sampler("hf-glm4v", f"{_HF}, Glm4vVideoProcessor", ("fps",), glm.glm4v),
    Sampler("hf-glm46v", f"{_HF}, Glm46VVideoProcessor", (), glm.glm46v),
    Sampler("hf-glm5-next", f"{_HF}, Glm5NextVideoProcessor", _RATE, glm.glm5_next),
    Sampler("hf-glmga", f"{_HF}, GlmgaVideoProcessor", _RATE, glm.glmga),
    Sampler("hf-internvl", f"{_HF}, InternVLVideoProcessor", _BOTH, plain.hf_internvl),
    Sampler("hf-smolvlm", f"{_HF}, SmolVLMVideoProcessor", _RATE, plain.hf_smolvlm),
    Sampler("hf-video-llama-3", f"{_HF}, VideoLlama3VideoProcessor", _ALL, qwen.video_llama3),
)
SAMPLERS = {row.name: row for row in _ROWS}


def sampler_named(name: str) -> Sampler:
    """The sampler of that name.

    Raises:
        InvalidOptions: there is none; lists them.
    """
    sampler = SAMPLERS.get(name)
    if sampler is None:
        raise InvalidOptions(f"sampler: there is no {name[:80]!r}; there are {', '.join(SAMPLERS)}")
    return sampler
