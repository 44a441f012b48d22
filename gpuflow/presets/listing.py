"""The built-in image presets and mel specs as rows of words, for people."""

from __future__ import annotations

from collections.abc import Iterator

from gpuflow.presets.clip_plan import clip_plan
from gpuflow.presets.families import image_preset, image_preset_names
from gpuflow.presets.image import PATCH_RULES, PIXEL_RULES, Preset
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_hf import FAMILIES
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names
from gpuflow.presets.plan import plan

HEAD = ("name", "rule", "size", "filter", "layout", "pixels", "tokens", "class of transformers")
EXAMPLE = (768, 1_024)
"""Height and width of the image that pixels and tokens are told for."""
MEL_HEAD = ("name", "mels", "fft/window/hop", "log", "shape", "tokens", "class of transformers")
EXAMPLE_SECONDS = 10
"""Length of the clip that shape and tokens are told for."""
_PROCESSORS = {name: processor for family in FAMILIES.values() for processor, name in reversed(family.items())}
_PROCESSORS["canary"] = "CanaryProcessor"


def image_preset_lines() -> Iterator[str]:
    """A head and a line a preset, columns aligned."""
    return _aligned([HEAD, *(_row(image_preset(name)) for name in image_preset_names())])


def mel_spec_lines() -> Iterator[str]:
    """A head and a line a name, columns aligned."""
    return _aligned([MEL_HEAD, *(_mel_row(name, mel_spec(name)) for name in mel_spec_names())])


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()


def _row(preset: Preset) -> tuple[str, ...]:
    wanted = plan(preset, *EXAMPLE)
    shape = "x".join(map(str, wanted.pixels[2]))
    tokens = "-" if wanted.num_tokens is None else str(wanted.num_tokens)
    return (
        preset.name,
        preset.rule,
        _size(preset),
        preset.resample,
        preset.layout,
        shape,
        tokens,
        preset.processor or "-",
    )


def _size(preset: Preset) -> str:
    """What the rule is told."""
    if preset.rule in PIXEL_RULES:
        return f"{preset.min_pixels}..{preset.max_pixels} px"
    if preset.rule in PATCH_RULES:
        return f"{preset.max_patches} patches"
    height, width = preset.size
    size = str(height) if preset.rule == "shortest_edge" else f"{height}x{width}"
    padded = ", padded" if preset.square else ""
    return size + padded + (", crop {}x{}".format(*preset.crop) if preset.crop else "")


def _mel_row(name: str, spec: MelSpec) -> tuple[str, ...]:
    clip = clip_plan(spec, EXAMPLE_SECONDS * spec.sample_rate)
    shape = "x".join(map(str, clip.tensors[spec.features_name][1]))
    tokens = "-" if clip.num_tokens is None else str(clip.num_tokens)
    sizes = f"{spec.n_fft}/{spec.win_length}/{spec.hop_length}"
    mel = ("-", "-", "raw") if spec.kind == "raw" else (str(spec.n_mels), sizes, spec.log)
    return (name, *mel, shape, tokens, _processor(name, spec.name))


def _processor(name: str, spec: str) -> str:
    """Of a name, or of the spec that it is one for, or of the one that this is a variant of."""
    stem = spec.rpartition("-")[0]
    return next((_PROCESSORS[near] for near in (name, spec, stem, f"{stem}-80") if near in _PROCESSORS), "-")
