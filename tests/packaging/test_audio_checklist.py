"""The audio checklist's steps run here on the kernels as built for the host: values are the kernels', times are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    _audio_device,
    _audio_ours,
    _audio_place,
    _audio_steps,
    _audio_timings,
    bench_audio,
    bench_audio_gpu,
    h200_audio_checklist,
)
from benchmarks._checklist import Step, answer
from benchmarks._sounds import clip, stereo
from gpuflow.ops import kernels
from tests.packaging.host_audio_place import HostAudioPlace


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> HostAudioPlace:
    return HostAudioPlace(tmp_path_factory.mktemp("built"))


@pytest.fixture(autouse=True)
def host_place(monkeypatch: pytest.MonkeyPatch, place: HostAudioPlace) -> None:
    monkeypatch.setattr(_audio_place, "PLACE", place)


def answered(step: Step) -> dict[str, Any]:
    found = answer(step, True)
    assert "failed" not in found, found
    assert found.pop("seconds") >= 0
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def test_every_spec_and_hard_signals_are_compared_with_the_cpus_features() -> None:
    specs = answered(_audio_steps.every_spec)
    assert specs["whisper-128"].keys() == {"speech", "noise", "tone", "quiet"}
    assert max(found["max"] for found in specs["whisper-128"].values()) < 1e-4
    hard = answered(_audio_steps.hard_signals)
    assert max(found["max"] for name, found in hard.items() if not name.endswith("16")) < 1e-4
    assert 1e-4 < hard["float16"]["max"] < 1e-3 < hard["bfloat16"]["max"] < 8e-3


def test_repeats_and_places_are_told_from_wrong_ones(place: HostAudioPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    right = {"batches": 2, "differing": 0, "same_turned_round": True}
    assert all(found == right for found in answered(_audio_steps.repeats).values())
    assert all(
        found == {"same": True, "outside_untouched": True} for found in answered(_audio_steps.into_the_slab).values()
    )
    written = _audio_steps.written
    calls = iter(range(1_000))
    monkeypatch.setattr(_audio_steps, "written", lambda *given: [out + next(calls) for out in written(*given)])
    assert answered(_audio_steps.repeats)["whisper-128"]["differing"] == 2


def test_the_resampling_kernel_is_as_far_from_soxr_as_is_asked() -> None:
    found = answered(_audio_steps.resampling)
    assert found["44100 Hz"]["same_length"]
    assert found["44100 Hz"]["snr_db"] > 110
    assert found["alias_db"]["44100"]["8500 Hz"] < -100


def test_blocks_of_other_sizes_are_built_from_the_changed_source_and_stay_right() -> None:
    code = kernels.source("audio/mel")
    found = answered(_audio_timings.frames_per_block)
    assert found.keys() == {"4 frames", "8 frames"}
    assert all(entry["off"]["max"] < 1e-4 and entry["2 clips"] > 0 for entry in found.values())
    assert kernels.source("audio/mel") == code


def test_the_steps_that_time_run_through_wiring_only() -> None:
    times = answered(_audio_timings.launch_times)["whisper-128, 2 clips"]
    assert times["microseconds"].keys() == {"audio/mel", "audio/mel_finish"}
    assert times["launches"] == 2
    assert answered(_audio_timings.staging)["1 clips"]["after_a_flush"] > 0
    assert answered(_audio_timings.resample_times)["44100 Hz, 1 clips"] > 0
    assert _audio_device.first_batches().keys() == {
        f"{turn} {name}" for turn in ("first", "second") for name in ("whisper-128", "gemma3n", "parakeet")
    }


def test_the_notes_hold_every_question_and_its_answers(tmp_path: Path) -> None:
    h200_audio_checklist.conclude(tmp_path, {"staging": {"1 clips": 3.5}, "uploads": {"failed": "no time was left"}})
    text = (tmp_path / h200_audio_checklist.NOTES).read_text()
    assert text.splitlines()[0].startswith("staging: 8: what staging samples by cp.async could hide")
    assert "    1 clips: 3.5" in text
    assert '    failed: "no time was left"' in text


def test_what_is_timed_on_a_gpu_writes_the_cpus_features_wiring_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_audio_gpu, "_settle", lambda device: None)
    waves = [clip(0.5, seed) for seed in range(3)]
    expected = _audio_ours.features(waves, _audio_ours.SHORT_WINDOW)
    assert bench_audio_gpu._off(bench_audio_gpu._ours(waves, "float32", "cuda")(), expected, 1e-4) > 0
    assert bench_audio_gpu._off(bench_audio_gpu._ours(waves, "bfloat16", "cuda")(), expected, 8e-3) > 1e-3
    assert bench_audio_gpu._launches(waves) == 2
    stored = [np.ascontiguousarray(np.round(stereo(0.2, seed) * 32_767).astype(np.int16).T) for seed in range(2)]
    found = bench_audio_gpu._ours_resampled(stored, "cuda")()
    assert bench_audio_gpu._off(found, bench_audio_gpu._resampled_here(stored), 1e-5) < 1e-5


def test_a_peer_that_is_wrong_is_absent_from_its_row() -> None:
    wanted = [np.zeros((128, 3_000), np.float32)]
    calls = {"gpuflow": lambda: wanted, "louder": lambda: [wanted[0] + 1]}
    row = bench_audio_gpu._measured("a row", calls, wanted, 1, 1)
    assert row["entries"].keys() == {"gpuflow"}
    assert row["absent"]["louder"] == "fails: ValueError off by 1"


def test_rows_are_held_to_the_issues_targets() -> None:
    times = {"gpuflow": 1.0, "HF numpy": 40.0, "HF torch": 6.0, "torchaudio": 1.4}
    row = {"name": "row", "entries": {name: {"wall_ratio": time} for name, time in times.items()}}
    met = {
        job: {verdict["peer"]: verdict["met"] for verdict in bench_audio.verdicts(row, job)}
        for job in ((30.0, 30, 1, 1), (5.0, 30, 8, 2), (3.0, 300, 1, 1), (2.0, 30, 1, 1))
    }
    assert list(met.values()) == [
        {"torchaudio": False}, {"torchaudio": True, "HF torch": True}, {"torchaudio": True, "HF torch": False},
        {"torchaudio": True},
    ]  # fmt: skip
