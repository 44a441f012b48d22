"""Stored PCM to features by the kernels' own source, run on the host, against the CPU's route. On a GPU, the same through the
real thing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.media import block_bytes, lay_out
from gpuflow.memory import Slab
from gpuflow.ops import tables
from gpuflow.ops.audio_gpu import FeatureClip, Placing, batch_launches, place_on_gpu
from gpuflow.ops.mel_jobs import MelJob
from gpuflow.ops.pcm import PcmSamples
from gpuflow.ops.sound_plan import SoundPlan, sound_plan
from gpuflow.presets.clip_plan import ClipPlan
from gpuflow.presets.mel_plan import mel_plan
from gpuflow.presets.mel_specs import mel_spec
from tests.kernels_host.building import HostTables
from tests.kernels_host.check_image_views import HostMemory
from tests.kernels_host.conftest import Run
from tests.kernels_host.sound_routes import LIMITS, on_the_cpu, planned, run_batch, speechlike
from tests.kernels_host.sounds import stored
from tests.parity.test_resample import noise
from tests.parity.tolerances import TOLERANCES

SPECS = ("whisper-80", "whisper-128")


@pytest.mark.parametrize("name", ["qwen3-omni", "wav2vec2"])
def test_a_clip_of_more_samples_than_kernels_count_is_refused(name: str) -> None:
    def job(count: int) -> MelJob:
        plan = mel_plan(mel_spec(name), count)
        return MelJob(64, mel_spec(name), plan, 64, (4,) * len(plan.shape))

    assert job((1 << 30) - 2_000).own == (1 << 30) - 2_000
    with pytest.raises(InvalidOptions, match="at most 1073741824 samples; got 1073741825"):
        job((1 << 30) + 1)


def computed(run: Run, clips: list[tuple[SoundPlan, ClipPlan]]) -> list[NDArray[np.float32]]:
    """The features of clips, side by side, by the kernels."""
    outs = [np.full(clip.tensors[clip.spec.features_name][1], np.nan, np.float32) for _, clip in clips]
    run_batch(
        run,
        [FeatureClip(sound, clip, int(out.ctypes.data)) for (sound, clip), out in zip(clips, outs, strict=True)],
    )
    return outs


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("rate", [44_100, 48_000, 8_000, 16_000, 22_050])
def test_features_of_stored_stereo_are_those_of_the_cpus_route(run_on_host: Run, name: str, rate: int) -> None:
    spec = mel_spec(name)
    interleaved = np.ascontiguousarray(speechlike(2.5, rate).T)
    pcm = PcmSamples(interleaved, "s16", 2, len(interleaved), rate)
    found = computed(run_on_host, [planned(pcm, spec)])[0]
    assert np.abs(found - on_the_cpu(pcm, spec)).max() <= TOLERANCES["mel/resampled"].max_abs


def test_features_of_recorded_speech_of_24_bits_are_those_of_the_cpus_route(run_on_host: Run, real_media: Path) -> None:
    samples, rate = soundfile.read(real_media / "speech_jfk.flac", dtype="int32")
    pcm, spec = PcmSamples(samples, "s32", samples.shape[1], len(samples), rate), mel_spec("whisper-128")
    found = computed(run_on_host, [planned(pcm, spec)])[0]
    assert np.abs(found - on_the_cpu(pcm, spec)).max() <= TOLERANCES["mel/resampled"].max_abs


LONG = {"voxtral": 33.0, "glm-asr": 33.0, "cohere-asr": 1.5, "parakeet": 1.5, "granite-speech5": 1.5, "wav2vec2": 1.5}


@pytest.mark.parametrize("name", LONG)
def test_parts_and_noise_and_statistics_are_those_of_the_cpus_route(run_on_host: Run, name: str) -> None:
    spec = mel_spec(name)
    pcm = PcmSamples.of(speechlike(LONG[name], 16_000), 16_000)
    found = computed(run_on_host, [planned(pcm, spec)])[0]
    row = "mel/wave" if spec.kind == "raw" else "mel/kernel-normalised" if spec.normalize != "none" else "mel/resampled"
    assert np.abs(found - on_the_cpu(pcm, spec)).max() <= TOLERANCES[row].max_abs


def test_given_parts_of_several_lengths_have_zeros_behind_them(run_on_host: Run) -> None:
    spec, parts = mel_spec("qwen3-omni"), ((0, 12_000), (9_000, 21_000), (18_000, 22_050))
    pcm = PcmSamples.of(speechlike(22_050 / 16_000, 48_000), 48_000)
    found = computed(run_on_host, [planned(pcm, spec, parts)])[0]
    assert np.abs(found - on_the_cpu(pcm, spec, parts)).max() <= TOLERANCES["mel/resampled"].max_abs
    assert not found[2, :, 26:].any()


def test_features_and_waveforms_of_a_batch_are_as_alone(run_on_host: Run) -> None:
    spec = mel_spec("whisper-80")
    clips = [PcmSamples.of(speechlike(1 + number, 44_100, channels=1 + number), 44_100) for number in range(3)]
    clips.append(PcmSamples.of(noise(20_000)[None], 16_000))
    plans = [planned(pcm, spec) for pcm in clips]
    for plan, found in zip(plans, computed(run_on_host, plans), strict=True):
        np.testing.assert_array_equal(found, computed(run_on_host, [plan])[0])


def test_float_samples_at_the_specs_rate_are_read_where_they_lie() -> None:
    sound, clip = planned(PcmSamples.of(noise(20_000)[None], 16_000), mel_spec("whisper-80"))
    memory = HostMemory()
    launches = batch_launches(
        [FeatureClip(sound, clip, 64)],
        tables=HostTables(), upload=memory.upload, scratch=memory.scratch,
    )  # fmt: skip
    assert {launch.name for launch in launches} == {"audio/mel", "audio/mel_finish"}


class _Counted(HostMemory):
    """How many bytes were asked for."""

    nbytes = 0

    def upload(self, array: NDArray[np.uint8]) -> int:
        self.nbytes += array.nbytes
        return super().upload(array)


@pytest.mark.parametrize("name", ["whisper-128", "cohere-asr", "parakeet", "gemma3n", "wav2vec2", "voxtral"])
@pytest.mark.parametrize(("encoding", "rate"), [("u8", 4_000), ("s16", 16_000), ("f32", 16_000), ("s24", 44_100)])
def test_a_sound_weighs_what_it_takes_of_a_gpus_memory(name: str, encoding: Any, rate: int) -> None:
    pcm = stored(encoding, 1, 40 * rate, rate=rate)
    sound, clip = planned(pcm, mel_spec(name))
    specs, memory = lay_out(clip.tensors), _Counted()
    batch_launches([FeatureClip(sound, clip, 64)], tables=HostTables(), upload=memory.upload, scratch=memory.scratch)
    slab: Any = None
    found = Placing(sound, slab, specs, clip).gpu_bytes
    taken = sound.pcm.nbytes + memory.nbytes
    assert 0.97 * taken <= found <= 1.03 * taken
    waveform = sound_plan(pcm, None, mono=False, limits=LIMITS)
    assert Placing(waveform, slab, lay_out({"waveform": ("float32", waveform.shape)})).gpu_bytes == pcm.nbytes


@pytest.mark.gpu
@pytest.mark.parametrize("name", SPECS)
def test_on_a_gpu_features_are_those_of_the_cpus_route(name: str) -> None:
    spec, pcm = mel_spec(name), PcmSamples.of(speechlike(3, 44_100), 44_100)
    sound, clip = planned(pcm, spec)
    specs = lay_out(clip.tensors)
    with Slab("64MiB", device="cuda") as gpu, gpu.allocate(block_bytes(specs)) as lease:
        place_on_gpu([Placing(sound, lease, specs, clip)])
        lease.synchronize()
        found = lease.array(specs[0]).get()
    assert np.abs(found - on_the_cpu(pcm, spec)).max() <= TOLERANCES["mel/resampled"].max_abs


@pytest.mark.gpu
def test_on_a_gpu_batches_of_threads_at_once_are_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With uploads larger than all pinned blocks, and tables that are let go while other threads read theirs."""
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 100_000)
    names, rates = ("whisper-80", "cohere-asr", "parakeet", "wav2vec2"), (44_100, 48_000, 22_050, 8_000)
    clips = [
        planned(stored("s16", 2, 60 * rate, rate=rate), mel_spec(name)) for name, rate in zip(names, rates, strict=True)
    ]

    def features_of(chosen: list[int]) -> list[NDArray[Any]]:
        found = []
        with ExitStack() as stack:
            placings = []
            for index in chosen:
                sound, clip = clips[index]
                specs = lay_out(clip.tensors)
                lease = stack.enter_context(gpu.allocate(block_bytes(specs)))
                placings.append(Placing(sound, lease, specs, clip))
            place_on_gpu(placings)
            for placing in placings:
                placing.lease.synchronize()
                found.append(placing.lease.array(placing.tensors[0]).get())
        return found

    with Slab("2GiB", device="cuda") as gpu, ThreadPoolExecutor(4) as pool:
        alone = [features_of([index])[0] for index in range(4)]
        orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 2, 0, 1], [1, 3, 3, 3]] * 4
        for order, found in zip(orders, pool.map(features_of, orders), strict=True):
            for index, array in zip(order, found, strict=True):
                np.testing.assert_array_equal(array, alone[index])
