"""Limits, policies and options: partial, wrong and contradicting values."""

from __future__ import annotations

from typing import Any

import pytest

import gpuflow
from gpuflow.config import AudioOptions, FetchPolicy, ImageOptions, Limits, VideoOptions
from gpuflow.errors import InvalidOptions
from gpuflow.values import parse_bytes


def test_partly_given_limits_keep_the_defaults_of_the_others() -> None:
    limits = Limits.from_mapping({"max_image_bytes": 5})
    assert limits.max_image_bytes == 5
    assert limits.max_audio_bytes == Limits().max_audio_bytes
    assert limits.deadline_seconds == Limits().deadline_seconds


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (Limits, {"max_imag_bytes": 5}, "max_imag_bytes"),
        (Limits, {"max_image_bytes": "5"}, "max_image_bytes"),
        (Limits, {"max_image_bytes": 0}, "above 0"),
        (FetchPolicy, {"allow_direct_ip": "yes"}, "allow_direct_ip"),
        (ImageOptions, {"sizes": 3}, "sizes"),
        (ImageOptions, {"size": [0, 4]}, "above 0 pixels"),
        (ImageOptions, {"size": [1, 2, 3]}, "size"),
        (ImageOptions, {"background": [0, 0, 256]}, "0..255"),
        (ImageOptions, {"preset": "clip-224", "size": 3}, "not both"),
        (ImageOptions, {"dtype": "float7"}, "dtype: one of 'uint8', 'float32', 'float16', 'bfloat16'; got 'float7'"),
        (ImageOptions, {"resample": 3}, "resample: one of 'nearest', 'bilinear', 'bicubic', 'lanczos'; got 3"),
        (VideoOptions, {"engine": "gpu"}, "engine: one of 'auto', 'exact', 'dali'; got 'gpu'"),
        (FetchPolicy, {"allowed_schemes": ["ftp"]}, r"allowed_schemes: one of 'http', 'https'; got \['ftp'\]"),
        (gpuflow.NvdecPolicy, {"route": ""}, "route: one of 'auto', 'packets', 'simple'; got ''"),
        (ImageOptions, {"frame": -1}, "frame"),
        (VideoOptions, {"num_frames": 4, "fps": 1.0}, "num_frames and fps"),
        (VideoOptions, {"num_frames": 0}, "above 0"),
        (VideoOptions, {"fps": -1.0}, "above 0"),
        (VideoOptions, {"fps": float("nan")}, "finite"),
        (VideoOptions, {"timestamps_seconds": [0.0, float("inf")]}, "finite"),
        (VideoOptions, {"num_frames": 4, "max_frames": 2}, "goes with fps"),
        (ImageOptions, {"size": 10**4400}, "more digits"),
        (ImageOptions, {"preset": "clip-224", "layout": "CHW"}, "not both"),
        (AudioOptions, {"start_seconds": float("inf")}, "finite"),
        (AudioOptions, {"duration_seconds": 1e308}, "finite"),
        (FetchPolicy, {"user_agent": "a\r\nX: y"}, "printable"),
        (FetchPolicy, {"max_redirects": -1}, "0 or more"),
        (FetchPolicy, {"connect_seconds": 0.0}, "above 0"),
        (VideoOptions, {"indices": []}, "at least one"),
        (VideoOptions, {"sampler": "vlm"}, "sampler: there is no 'vlm'"),
        (VideoOptions, {"sampler": "x" * 999}, "sampler: there is no 'x{80}';"),
        (VideoOptions, {"sampler": "hf-glm46v", "max_frames": 3}, "takes no number; got max_frames"),
        (VideoOptions, {"sampler": "vllm", "timestamps_seconds": [1.0]}, "got it with timestamps_seconds"),
        (VideoOptions, {"keyframes": True, "indices": [1]}, "keyframes goes with num_frames"),
        (VideoOptions, {"preset": "qwen2-vl", "layout": "TCHW"}, "not both"),
        (VideoOptions, {"start_seconds": 3.0, "end_seconds": 2.0}, "after start_seconds"),
        (AudioOptions, {"sample_rate": 0}, "above 0 Hz"),
        (AudioOptions, {"features": "whisper-80", "mono": False}, "contradicts"),
        (AudioOptions, {"duration_seconds": 0.0}, "above 0"),
        (AudioOptions, {"split": "silence"}, "split: one of 'quietest', 'windows'; got 'silence'"),
        (AudioOptions, {"split_seconds": 20.0}, "split_seconds goes with split='quietest' or split='windows'"),
        (AudioOptions, {"search_seconds": 2.0}, "search_seconds goes with split='quietest'; got it with split=None"),
        (AudioOptions, {"split": "windows", "search_seconds": 2.0}, "search_seconds goes with split='quietest'"),
        (AudioOptions, {"split": "quietest", "overlap_seconds": 2.0}, "overlap_seconds goes with split='windows'"),
        (AudioOptions, {"split": "windows", "split_seconds": 0.5}, "split_seconds is 1 or more; got 0.5"),
        (AudioOptions, {"split": "windows", "split_seconds": -1e9}, "split_seconds is 1 or more"),
        (AudioOptions, {"split": "windows", "split_seconds": float("nan")}, "finite"),
        (AudioOptions, {"split": "quietest", "search_seconds": 0.0}, "above 0, at most half"),
        (AudioOptions, {"split": "quietest", "split_seconds": 1.5}, "at most half of split_seconds; got 1.0"),
        (AudioOptions, {"split": "windows", "overlap_seconds": 15.5}, "at most half"),
        (AudioOptions, {"split": "windows", "overlap_seconds": -1.0}, "0 or more"),
        (AudioOptions, {"dtype": "float16"}, "dtype is of features"),
        (AudioOptions, {"features": "whisper-80", "dtype": "int8"}, "dtype: one of 'float32', 'float16', 'bfloat16'"),
        (AudioOptions, {"stream": -1}, "0 or more"),
        (AudioOptions, {"stream": "no language"}, "like 'eng'"),
        (AudioOptions, {"stream": ""}, "like 'eng'"),
        (AudioOptions, {"stream": 1.0}, "stream"),
    ],
)
def test_a_wrong_option_is_named(kind: Any, values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOptions, match=says) as caught:
        kind.from_mapping(values)
    assert caught.value.code == "invalid_options"
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    "values",
    [
        {"split": "quietest"},
        {"split": "quietest", "split_seconds": 35.0, "search_seconds": 5.0, "mono": False},
        {"split": "windows", "split_seconds": 1.0},
        {"split": "windows", "split_seconds": 30.0, "overlap_seconds": 10.0, "features": "whisper-80"},
        {"features": "whisper-80", "dtype": "bfloat16", "stream": "eng"},
        {"stream": 3},
        {"stream": "pt-BR"},
    ],
)
def test_what_goes_together_of_audio_is_taken(values: dict[str, Any]) -> None:
    options = AudioOptions.from_mapping(values)
    assert {name: getattr(options, name) for name in values} == values


def test_values_made_in_python_are_checked_like_json() -> None:
    bad: Any = "large"
    with pytest.raises(InvalidOptions, match="size"):
        ImageOptions(size=bad)
    with pytest.raises(InvalidOptions, match="layout: one of 'HWC', 'CHW'; got 'large'"):
        ImageOptions(layout=bad)


def test_lists_become_tuples_so_that_values_stay_frozen() -> None:
    size: Any = [3, 4]
    assert ImageOptions(size=size).size == (3, 4)


@pytest.mark.parametrize(("size", "nbytes"), [(5, 5), ("7", 7), ("64MiB", 64 << 20), ("1.5 GiB", 3 << 29)])
def test_sizes_are_numbers_or_text(size: int | str, nbytes: int) -> None:
    assert parse_bytes(size) == nbytes


@pytest.mark.parametrize("size", [-1, "64MB?", "", True])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InvalidOptions):
        parse_bytes(size)


@pytest.mark.parametrize(
    "wrong", [{"route": "other"}, {"max_sessions": 0}, {"max_sessions": 65}, {"max_sessions": 2.0}, {"sessions": 2}]
)
def test_how_nvdec_is_used_is_checked_when_a_flow_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        gpuflow.Flow(device="cpu", nvdec=wrong)
    with gpuflow.SyncFlow(device="cpu", slab_bytes="16MiB", nvdec={"route": "simple", "max_sessions": 3}) as flow:
        assert flow.flow.nvdec == gpuflow.NvdecPolicy(route="simple", max_sessions=3)
