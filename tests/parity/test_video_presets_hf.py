"""Video presets against transformers' video processors, which are fed the frames that PyAV decodes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe import sniff
from gpuflow.config import ImageOptions, Limits, VideoOptions
from gpuflow.errors import GpuflowError, InvalidOptions, LimitExceeded, UnsupportedFormat
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.image import load_image
from gpuflow.flow.video import load_video_features
from gpuflow.media import Blob, Features
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from gpuflow.presets.families import image_preset
from gpuflow.presets.image import Preset
from gpuflow.presets.video import video_preset, video_preset_names
from tests.flow.clips import decode_all, make_clip
from tests.parity.tolerances import TOLERANCES
from tests.unit.image_files import encoded, scene

MP4 = MediaType("mp4", "video", "mov")
HALF = [0.5, 0.5, 0.5]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PATCHED = {"size": {"shortest_edge": 3_136, "longest_edge": 12_845_056}, "cap_pixels_per_frame": False}
CROPPED = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2-vl": ("Qwen2VLVideoProcessor", PATCHED),
    "qwen2.5-vl": ("Qwen2VLVideoProcessor", PATCHED),
    "qwen3-vl": (
        "Qwen3VLVideoProcessor",
        {"size": {"shortest_edge": 4_096, "longest_edge": 25_165_824}, "cap_pixels_per_frame": False},
    ),
    "glm4v": ("Glm4vVideoProcessor", {}),
    "glm4.6v": ("Glm46VVideoProcessor", {}),
    "llava-onevision": ("LlavaOnevisionVideoProcessor", {"image_mean": HALF, "image_std": HALF}),
    "llava-next-video": ("LlavaNextVideoVideoProcessor", CROPPED),
    "video-llava": ("VideoLlavaVideoProcessor", {}),
    "internvl3": ("InternVLVideoProcessor", {"size": {"height": 448, "width": 448}, **IMAGENET}),
    "smolvlm2": (
        "SmolVLMVideoProcessor",
        {"size": {"longest_edge": 512}, "max_image_size": {"longest_edge": 512}},
    ),
}
CLIPS: dict[str, dict[str, Any]] = {
    "wide": {"size": (160, 96), "num_frames": 12},
    "tall": {"size": (50, 338), "num_frames": 9},
    "large": {"size": (640, 480), "num_frames": 6, "gop": 2},
    "turned": {"size": (160, 96), "num_frames": 6, "rotation": 90},
}


@functools.cache
def clip(name: str) -> bytes:
    return make_clip(**CLIPS[name])


@functools.cache
def decoded(name: str) -> NDArray[np.uint8]:
    return np.stack(decode_all(clip(name)))


def processor(name: str, **more: Any) -> Any:
    import transformers

    kind, settings = CHECKPOINTS[name]
    return getattr(transformers, kind)(**json.loads(json.dumps(settings)), **more)


def processed(made: Any, frames: NDArray[np.uint8]) -> Any:
    return made(videos=[torch.from_numpy(frames)], do_sample_frames=False, return_tensors="pt")


def load(name: str, indices: tuple[int, ...], preset: Any, context: LoadContext, **options: Any) -> Features:
    return load_video_features(
        Blob(clip(name), "hash"), MP4, VideoOptions(indices=indices, preset=preset, **options), context
    )


def assert_equal(features: Features, expected: Any, *, but: tuple[str, ...] = ()) -> None:
    assert set(features) - set(but) == set(expected)
    for name in expected:
        assert features[name].dtype == expected[name].dtype
        assert features[name].shape == expected[name].shape
        difference = (features[name].double() - expected[name].double()).abs().max()
        assert difference <= TOLERANCES["video/exact"].max_abs


@pytest.mark.parametrize("shape", CLIPS)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_features_equal_the_video_processors(name: str, shape: str, context: LoadContext) -> None:
    made = processor(name)
    for indices in ((0, 3, 4, 5), (5, 1, 1)):
        with load(shape, indices, name, context) as features:
            assert features.backend == "pyav+exact"
            assert_equal(features, processed(made, decoded(shape)[list(indices)]), but=("second_per_grid_ts",))


def test_every_preset_is_compared_here() -> None:
    assert set(CHECKPOINTS) == set(video_preset_names())


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_preset_read_from_the_processors_own_settings_equals_the_built_in_one(name: str) -> None:
    found, built_in = Preset.from_hf(processor(name).to_dict()), video_preset(name)
    assert replace(found, name=name, grid_seconds=built_in.grid_seconds) == replace(
        built_in, patch=found.patch, merge=found.merge
    )


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen3-vl"])
def test_a_cap_on_tokens_shrinks_frames_as_the_processor_does(name: str, context: LoadContext) -> None:
    size = {"shortest_edge": 3_136, "longest_edge": 1_000_000}
    import transformers

    kind = getattr(transformers, CHECKPOINTS[name][0])
    for tokens in (20, 60, 400):
        made = kind(size=dict(size), cap_pixels_per_frame=True, max_video_tokens=tokens)
        preset = Preset.from_hf(made.to_dict())
        assert preset.token_cap == tokens
        with load("large", (0, 1, 2, 3, 4), preset, context) as features:
            assert_equal(features, processed(made, decoded("large")[:5]))


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(["qwen2-vl", "qwen3-vl", "glm4v"]),
    cap=st.sampled_from([None, 768, 128_000]),
    num_frames=st.integers(1, 768),
    height=st.integers(2, 2_160),
    width=st.integers(2, 4_096),
)
def test_sizes_are_the_processors_for_any_number_of_frames(
    name: str, cap: int | None, num_frames: int, height: int, width: int
) -> None:
    cap = None if name == "glm4v" else cap
    more = {"cap_pixels_per_frame": True, "max_video_tokens": cap} if cap else {}
    made = _sizes_of(name, **more)
    preset = replace(video_preset(name), token_cap=cap or 0)
    try:
        ours: Any = preset.resized(height, width, num_frames)
    except GpuflowError:
        ours = None
    assert ours == made(num_frames, height, width)


def _sizes_of(name: str, **more: Any) -> Callable[[int, int, int], tuple[int, int] | None]:
    """The processor's ``resize`` with the resizing itself left out: what size it would ask for."""
    from transformers.image_utils import SizeDict
    from transformers.video_processing_utils import BaseVideoProcessor

    kind, given_settings = CHECKPOINTS[name]
    made = processor(name) if not more else _capped(kind, given_settings, **more)

    def sizes(num_frames: int, height: int, width: int) -> tuple[int, int] | None:
        asked: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BaseVideoProcessor, "resize", lambda self, image, size, **_: asked.append(size))
            try:
                made.resize(
                    torch.empty((1, num_frames, 3, height, width), device="meta"),
                    size=SizeDict(**dict(made.size)),
                    resample=3,
                    factor=made.patch_size * made.merge_size,
                    temporal_factor=made.temporal_patch_size,
                    cap_pixels_per_frame=bool(more),
                )
            except ValueError:
                return None
        return asked[0].height, asked[0].width

    return sizes


def _capped(kind: str, given_settings: dict[str, Any], **more: Any) -> Any:
    import transformers

    return getattr(transformers, kind)(**json.loads(json.dumps(given_settings)) | more)


def test_seconds_of_a_temporal_patch_are_those_of_qwen25s_processor(context: LoadContext) -> None:
    from transformers.video_utils import VideoMetadata

    indices = (0, 3, 6, 9)
    with load("wide", indices, "qwen2.5-vl", context) as features:
        facts = VideoMetadata(total_num_frames=12, fps=30.0, frames_indices=list(indices))
        assert features["second_per_grid_ts"].tolist() == pytest.approx([2 / facts.sampled_fps])
        assert features.metadata.num_tokens == int(features["video_grid_thw"].prod()) // 4


def test_features_know_their_frames(context: LoadContext) -> None:
    with load("wide", (2, 7), "llava-onevision", context) as features:
        facts: Any = features.metadata.source
        assert (features.metadata.preset, facts.frame_indices) == ("llava-onevision", (2, 7))
        assert facts.timestamps_seconds == (2 / 30, 7 / 30)
    assert [stage.name for stage in context.stages] == ["probe", "decode"]


@pytest.mark.parametrize("name", ["qwen3-vl", "internvl3"])
def test_levels_stay_as_they_are_without_normalising(name: str, context: LoadContext) -> None:
    made = processor(name, do_normalize=False, do_rescale=False)
    with load("wide", (0, 5), name, context, normalize=False) as features:
        assert features.dtype == "uint8"
        assert_equal(features, processed(made, decoded("wide")[[0, 5]]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_are_the_rounded_ones(dtype: Any, context: LoadContext) -> None:
    with (
        load("wide", (0, 5), "qwen2-vl", context) as whole,
        load("wide", (0, 5), "qwen2-vl", context, dtype=dtype) as short,
    ):
        assert torch.equal(short["pixel_values_videos"], whole["pixel_values_videos"].to(getattr(torch, dtype)))


def test_presets_are_the_same_in_sandboxed_processes() -> None:
    from gpuflow import SyncFlow

    found = []
    for isolation in ("none", "process"):
        with SyncFlow(device="cpu", slab_bytes="64MiB", workers=2, isolation=isolation) as flow:
            options = VideoOptions(num_frames=5, sampler="vllm", preset="qwen2.5-vl")
            with flow.load(clip("large"), options=options) as features:
                assert isinstance(features, Features)
                found.append({name: features[name].clone() for name in features})
    expected = processed(processor("qwen2.5-vl"), decoded("large")[[0, 1, 2, 3, 5]])
    assert torch.equal(found[0]["pixel_values_videos"], expected["pixel_values_videos"])
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_clip_whose_pictures_change_size_is_refused(context: LoadContext) -> None:
    data = make_clip(container="mpegts") + make_clip(container="mpegts", size=(128, 64))
    options = VideoOptions(num_frames=8, preset="llava-onevision")
    with pytest.raises(UnsupportedFormat, match="a preset is of frames of one size"):
        load_video_features(Blob(data, "hash"), MediaType("mpegts", "video", "mpegts"), options, context)


def test_an_image_is_not_made_by_a_preset_of_videos(context: LoadContext) -> None:
    data = encoded(scene(), "PNG")
    with pytest.raises(InvalidOptions, match="'qwen3-vl' is of videos"):
        load_image(Blob(data, "hash"), sniff(data), ImageOptions(preset=video_preset("qwen3-vl")), context)


def test_what_contradicts_a_preset_is_named(context: LoadContext) -> None:
    image: Any = image_preset("clip-224")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"preset": "clip-224"}, "no video preset 'clip-224'; there are qwen2-vl, .*smolvlm2"),
        ({"preset": image}, "the image preset 'clip-224'"),
        ({"preset": 3}, "preset is a name or a Preset; got 3"),
        ({"preset": "qwen2-vl", "dtype": "uint8"}, "contradicts normalize=True"),
        ({"preset": "qwen2-vl", "dtype": "float32", "normalize": False}, "contradicts normalize=False"),
        ({"preset": "qwen3-vl", "indices": (1,)}, "needs 2 frames or more; there is 1"),
    ]
    for values, says in wrong:
        with pytest.raises(InvalidOptions, match=says):
            load_video_features(Blob(clip("wide"), "hash"), MP4, VideoOptions(**values), context)
    with pytest.raises(InvalidOptions, match="not both"):
        VideoOptions(preset="qwen2-vl", size=3)
    context.limits = Limits(max_output_bytes=100_000)
    with pytest.raises(LimitExceeded, match="max_output_bytes"):
        load("wide", (0, 1), "qwen2-vl", context)


def test_configurations_are_read_from_the_files_of_checkpoints(tmp_path: Path) -> None:
    video = processor("qwen3-vl").to_dict()
    image = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16, "merge_size": 2, "image_mean": HALF,
             "image_std": HALF, "min_pixels": 3_136, "max_pixels": 12_845_056}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(image))
    assert Preset.from_hf(tmp_path).modality == "image"
    older = Preset.from_hf(tmp_path, modality="video")
    assert (older.modality, older.rule, older.max_pixels) == ("video", "pixel_budget", 12_845_056)
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(video))
    assert Preset.from_hf(tmp_path, modality="video").rule == "volume_budget"
    both = tmp_path / "both"
    both.mkdir()
    (both / "processor_config.json").write_text(json.dumps({"image_processor": image, "video_processor": video}))
    assert Preset.from_hf(both, modality="video").rule == "volume_budget"
    assert Preset.from_hf(both).modality == "image"
    for values, says in (
        ({"video_processor_type": "VivitVideoProcessor"}, "video_processor_type is one of Qwen2VLVideoProcessor"),
        ({"video_processor_type": "Qwen2VLVideoProcessor", "do_resize": False}, "do_resize=false"),
        ({"video_processor_type": "Qwen2VLVideoProcessor", "size": 3}, "wrong type|in pixels"),
        ({"video_processor_type": "SmolVLMVideoProcessor", "size": {"longest_edge": 0}}, "longest_edge"),
    ):
        with pytest.raises(InvalidOptions, match=says):
            Preset.from_hf(values)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["qwen3-vl", "llava-onevision"])
def test_the_gpu_is_within_its_tolerance_of_the_processor(name: str) -> None:
    from gpuflow.device import choose

    allowed = TOLERANCES["image/torch-float32"].max_abs + TOLERANCES["video/nvdec"].max_abs
    with Slab("256MiB", device="cuda") as slab, Slab("64MiB") as host:
        context = LoadContext(
            device=choose("cuda"),
            slab=slab,
            host_slab=host,
            limits=Limits(),
            deadline=Deadline(60.0),
            counters=Counters(),
        )
        with load("large", (0, 3, 4, 5), name, context) as features:
            expected = processed(processor(name), decoded("large")[[0, 3, 4, 5]])
            found = features["pixel_values_videos"].cpu()
            assert float((found - expected["pixel_values_videos"]).abs().max()) * 255 * 0.5 <= allowed
