"""The command line as a person meets it: help, results, and wrong inputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from safetensors.numpy import load_file

from gpuflow.demo import samples
from gpuflow.presets.families import image_preset_names

DEEP = '{"size": ' + "[" * 50_000 + "]" * 50_000 + "}"


def _run(*arguments: str, folder: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "gpuflow", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_help_names_the_commands_and_shows_examples(tmp_path: Path) -> None:
    text = _run("--help", folder=tmp_path).stdout
    for word in ("demo", "load", "env", "presets", "examples:"):
        assert word in text


def test_no_command_is_a_usage_error(tmp_path: Path) -> None:
    assert "usage:" in _run(folder=tmp_path, status=2).stdout


def test_load_writes_tensors_and_pictures_that_other_libraries_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(samples.picture("PNG", width=64, height=48))
    (tmp_path / "b.mp4").write_bytes(samples.clip(seconds=0.5))
    (tmp_path / "c.mp3").write_bytes(samples.recording())
    done = _run("load", "a.png", "b.mp4", "c.mp3", "--out", "out", folder=tmp_path)
    assert len(done.stdout.splitlines()) == 3
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        f"{name}{end}" for name in ("000-a.png", "001-b.mp4", "002-c.mp3") for end in (".safetensors", ".png")
    }
    [pixels] = load_file(tmp_path / "out" / "000-a.png.safetensors").values()
    with Picture.open(tmp_path / "a.png") as picture:
        assert np.array_equal(pixels, np.asarray(picture.convert("RGB")))
    for path in (tmp_path / "out").glob("*.png"):
        with Picture.open(path) as picture:
            assert picture.size[0] > 10


def test_media_are_loaded_alike_in_sandboxed_processes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(samples.picture("PNG"))
    found = []
    for isolation in ("none", "process"):
        _run("load", "a.png", "--isolation", isolation, "--out", isolation, folder=tmp_path)
        found.append(load_file(tmp_path / isolation / "000-a.png.safetensors"))
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_options_and_presets_reach_the_media(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(samples.picture("PNG", width=64, height=48))
    _run("load", "a.png", "--options", json.dumps({"preset": "clip-224"}), folder=tmp_path)
    tensors = load_file(tmp_path / "000-a.png.safetensors")
    assert tensors["pixel_values"].shape == (1, 3, 224, 224)


def test_samplers_and_video_presets_reach_the_media(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(samples.clip(seconds=1.0))
    _run("load", "a.mp4", "--sampler", "vllm-qwen3-vl", "--preset", "qwen3-vl", "--out", "flags", folder=tmp_path)
    options = {"sampler": "vllm-qwen3-vl", "preset": "qwen3-vl"}
    _run("load", "a.mp4", "--options", json.dumps(options), "--out", "json", folder=tmp_path)
    found = [load_file(tmp_path / out / "000-a.mp4.safetensors") for out in ("flags", "json")]
    assert found[0].keys() == found[1].keys() == {"pixel_values_videos", "video_grid_thw"}
    assert found[0]["video_grid_thw"][0, 0] == 2  # four frames of a second, in pairs
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_one_bad_source_fails_the_command_and_not_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(samples.picture("PNG", width=64, height=48))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    done = _run("load", "bad.png", "a.png", "--out", "out", folder=tmp_path, status=1)
    assert "media_unprocessable" in done.stderr
    assert (tmp_path / "out" / "001-a.png.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nothing"], 2, "invalid choice"),
        (["load"], 2, "required"),
        (["load", "missing.png"], 1, "invalid_media_reference"),
        (["load", "a.png", "--options", "{"], 2, "not JSON"),
        (["load", "a.png", "--options", "[1]"], 2, "JSON object"),
        (["load", "a.png", "--options", DEEP], 2, "nested too deeply"),
        (["load", "a.png", "--options", f'{{"size": {"9" * 5_000}}}'], 2, "too many digits"),
        (["load", "a.png", "--limits", f'{{"max_image_bytes": {"9" * 5_000}}}'], 2, "too many digits"),
        (["load", "a.png", "--preset", "b", "--options", '{"preset": ' + "[" * 99 + "]" * 99 + "}"], 2, "name two"),
        (["load", "a.png", "--options", '{"preset": [1]}'], 1, "preset is a name"),
        (["load", "a.png", "--options", '{"dtype": "float7"}'], 1, "dtype: one of 'uint8', 'float32'"),
        (["load", "a.png", "--options", '{"sizes": 3}'], 1, "sizes"),
        (["load", "a.png", "--options", '{"preset": "none-such"}'], 1, "none-such"),
        (["load", "a.mp4", "--preset", "clip-224"], 1, "no video preset 'clip-224'; there are qwen2-vl"),
        (["load", "a.png", "--features", "whisper-80"], 1, "unknown field `features`; there are preset, size"),
        (
            ["load", "a.mp4", "--modality", "audio", "--features", "whisper"],
            1,
            "no mel spec 'whisper'; there are whisper-80",
        ),
        (["load", "a.mp4", "--sampler", "vlm"], 1, "sampler: there is no 'vlm'; there are linspace-round"),
        (
            ["load", "a.mp4", "--sampler", "vllm", "--options", '{"sampler": "hf"}'],
            2,
            "--sampler and --options name two",
        ),
        (["load", "a.png", "--modality", "smell"], 2, "invalid choice"),
        (["load", "a.png", "--modality", "video"], 1, "unsupported_media"),
        (["load", "a.png", "--device", "tpu"], 1, "device is"),
        (["load", "a.png", "--limits", '{"max_image_bytes": 10}'], 1, "media_too_large"),
        (["load", "a.png", "--limits", '{"max": 10}'], 1, "invalid_options"),
        (["load", "http://127.0.0.1:9/a.png"], 1, "url_not_allowed"),
        (["load", "a.png", "--out", "a.png"], 2, "--out"),
        (["load", "a.png", "--options", '{"size": 1e999}'], 1, "invalid_options"),
        (["load", "a.png", "--out", "/dev/null/x"], 2, "--out"),
        (["demo", "--out", "no/such/folder/x.png"], 2, "--out"),
        (["demo", "--out", "x.unknown"], 2, ".png"),
    ],
    ids=lambda value: " ".join(value)[:80] if isinstance(value, list) else None,
)
def test_wrong_input_is_explained_in_a_line(arguments: list[str], status: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(samples.picture("PNG", width=64, height=48))
    if "a.mp4" in arguments:
        (tmp_path / "a.mp4").write_bytes(samples.clip(seconds=0.5))
    done = _run(*arguments, folder=tmp_path, status=status)
    assert says in done.stderr
    assert "_mapping" not in done.stderr
    assert len(done.stderr.splitlines()[-1]) < 700  # a list of all presets


def test_presets_lists_names_that_load_takes(tmp_path: Path) -> None:
    names = _run("presets", folder=tmp_path).stdout.split()
    assert {"clip-224", "qwen2.5-vl", "whisper-80", "whisper-128", "internvl3", "sglang-qwen-vl"} <= set(names)


def test_presets_says_what_becomes_of_an_image_before_there_is_one(tmp_path: Path) -> None:
    lines = _run("presets", folder=tmp_path).stdout.splitlines()
    assert "1024x768" in lines[0]
    images = lines[1 : lines.index("videos (VideoOptions.preset):")]
    starts = [
        images[0].index(word) for word in ("name", "rule", "size", "filter", "layout", "pixels", "tokens", "class")
    ]
    rows = {}
    for line in images[1:]:
        words = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        rows[words[0]] = words[1:]
        assert all(words), line
    assert set(rows) == set(image_preset_names())
    assert rows["llava-1.5-pad"] == [
        "shortest_edge", "336, padded, crop 336x336", "bicubic", "image", "1x3x336x336", "576", "LlavaImageProcessor",
    ]  # fmt: skip
    assert rows["qwen3-vl"][3:] == ["patches", "3072x1536", "768", "Qwen2VLImageProcessor"]
    assert rows["siglip2-naflex"][1:5] == ["256 patches", "bilinear", "patches_last", "1x256x768"]


def test_the_demo_with_ones_own_media_reads_them_in_a_second_process(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(samples.picture("PNG", width=64, height=48))
    (tmp_path / "b.mp4").write_bytes(samples.clip(seconds=0.5))
    done = _run("demo", "a.png", "b.mp4", folder=tmp_path)
    assert "2 of 2 media read by a second process and equal byte for byte" in done.stdout
    assert "NIXL" in done.stdout
    with Picture.open(tmp_path / "gpuflow-demo.png") as picture:
        assert picture.size[0] > 1000


def test_the_demo_fails_when_something_cannot_be_loaded(tmp_path: Path) -> None:
    done = _run("demo", "missing.png", folder=tmp_path, status=1)
    assert "PROBLEM" in done.stderr
