"""Sound through copies, tables and kernels into blocks, the kernels on the host.

What is between them and a GPU is wiring only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuflow.errors import BackendUnavailable, InvalidOptions
from gpuflow.media import TensorSpec, block_bytes, lay_out
from gpuflow.ops import kernels
from gpuflow.ops.audio_gpu import FeatureClip, Placing, SoundKernels, WaveClip, place_on_gpu
from gpuflow.ops.mel import features
from gpuflow.ops.pcm import PcmSamples
from gpuflow.ops.sound_plan import sound_plan
from gpuflow.ops.staging import BLOCKS
from gpuflow.presets.clip_plan import Parts, clip_plan
from gpuflow.presets.mel import MelSpec
from gpuflow.presets.mel_specs import mel_spec
from tests.kernels_host.cupy_wiring_only import Array, Lease
from tests.kernels_host.sound_routes import LIMITS, on_the_cpu, planned, speechlike, waves
from tests.kernels_host.sounds import ENCODINGS, stored

CLIP = PcmSamples.of(speechlike(1.2, 44_100), 44_100)


def _untouched(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> tuple[tuple[TensorSpec, ...], Any]:
    """A block full of what nobody wrote."""
    specs = lay_out(tensors)
    lease = Lease(block_bytes(specs))
    lease._bytes[:] = 77
    return specs, lease


@pytest.mark.parametrize("mono", [True, False])
@pytest.mark.parametrize("to_hz", [None, 16_000, 47_999])
def test_a_waveform_comes_into_its_block_wiring_only(
    to_hz: int | None, mono: bool, cupy: Any, run_on_host: Any
) -> None:
    plan = sound_plan(CLIP, to_hz, mono=mono, limits=LIMITS)
    specs, lease = _untouched({"waveform": ("float32", plan.shape)})
    place_on_gpu([Placing(plan, lease, specs)])
    np.testing.assert_array_equal(lease.array(specs[0]), waves(run_on_host, [plan])[0])
    assert lease.recorded == [cupy.cuda.Stream.ptds]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("qwen3-omni", None),
        ("cohere-asr", None),
        ("phi4-multimodal", None),
        ("qwen3-omni", ((0, 9_000), (8_000, 19_200))),
    ],
)
def test_all_tensors_of_a_clip_come_into_their_block_wiring_only(name: str, parts: Parts | None, cupy: Any) -> None:
    spec: MelSpec = mel_spec(name)
    pcm = PcmSamples.of(speechlike(1.2, 16_000, channels=1), 16_000)
    sound, clip = planned(pcm, spec, parts)
    specs, lease = _untouched(clip.tensors)
    place_on_gpu([Placing(sound, lease, specs, clip)])
    samples = pcm.samples[0] / np.float32(2**15)
    expected = features(samples, spec, parts=parts)
    assert list(expected) == [tensor.name for tensor in specs]
    for tensor in specs[1:]:
        np.testing.assert_array_equal(lease.array(tensor), expected[tensor.name])
    found = np.asarray(lease.array(specs[0]))
    np.testing.assert_allclose(found, expected[spec.features_name], rtol=0, atol=3e-3)
    np.testing.assert_allclose(found, on_the_cpu(pcm, spec, parts), rtol=0, atol=3e-3)
    assert lease.recorded


def test_sixteen_bits_are_uploaded_as_sixteen_bits_wiring_only(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, empty = [], cupy.empty

    def kept(shape: Any, dtype: Any) -> Any:
        made.append(empty(shape, dtype))
        return made[-1]

    monkeypatch.setattr(cupy, "empty", kept)
    sound, clip = planned(CLIP, mel_spec("whisper-80"))
    specs, lease = _untouched(clip.tensors)
    place_on_gpu([Placing(sound, lease, specs, clip)])
    np.testing.assert_array_equal(made[0].view(np.int16).reshape(2, -1), CLIP.samples)


def test_a_batch_is_one_copy_of_pinned_memory_and_few_launches_wiring_only(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, copy, sizes = cupy.cuda.Stream.ptds, cupy.cuda.runtime.memcpyAsync, list[int]()

    def noted(target: int, source: int, nbytes: int, kind: int, number: int) -> None:
        sizes.extend([nbytes] if number == stream.ptr else [])
        copy(target, source, nbytes, kind, number)

    monkeypatch.setattr(cupy.cuda.runtime, "memcpyAsync", noted)
    plans = [sound_plan(CLIP, rate, limits=LIMITS) for rate in (16_000, 16_000, None, 48_000)]
    outs = [np.zeros(plan.shape, np.float32) for plan in plans]
    clips = [WaveClip(plan, int(out.ctypes.data)) for plan, out in zip(plans, outs, strict=True)]
    SoundKernels(0).write(clips, stream=stream)
    assert len(cupy.launched) == 3
    assert sum(plan.pcm.nbytes for plan in plans) <= sizes[0] <= sum(plan.pcm.nbytes + 256 for plan in plans)
    assert len(sizes) == 1 + len(cupy.launched), "samples, and the records of each launch"
    assert stream.queued == 0
    assert not any(event.synchronized for event in stream.recorded), "nothing is waited for"
    assert stream.awaited, "tables come on a stream of their own"
    np.testing.assert_array_equal(outs[0], outs[1])


def test_sound_that_lies_on_the_gpu_is_not_waited_for_wiring_only(cupy: Any, run_on_host: Any) -> None:
    stream = cupy.cuda.Stream.ptds
    samples = cupy.asarray(CLIP.bytes_on_host())
    there = PcmSamples(samples, "s16", 2, CLIP.count, 44_100, interleaved=False)
    plan = sound_plan(there, None, limits=LIMITS)
    out = np.zeros(plan.shape, np.float32)
    SoundKernels(0).write([WaveClip(plan, int(out.ctypes.data))], stream=stream)
    assert stream.queued == 0
    assert not any(event.synchronized for event in stream.recorded)
    np.testing.assert_array_equal(out, waves(run_on_host, [sound_plan(CLIP, None, limits=LIMITS)])[0])


def test_features_that_no_kernel_makes_are_refused_wiring_only(cupy: Any) -> None:
    spec = MelSpec("prime", n_fft=398, win_length=398, pad_left=199, pad_right=199)
    sound = sound_plan(CLIP, 16_000, limits=LIMITS)
    clip = clip_plan(spec, sound.outputs)
    specs, lease = _untouched(clip.tensors)
    with pytest.raises(BackendUnavailable, match="twice a product of 2, 3 and 5"):
        place_on_gpu([Placing(sound, lease, specs, clip)])


def test_a_tensor_of_another_shape_is_refused_wiring_only(cupy: Any) -> None:
    plan = sound_plan(CLIP, 16_000, limits=LIMITS)
    specs, lease = _untouched({"waveform": ("float32", (1, plan.outputs - 1))})
    with pytest.raises(InvalidOptions, match="waveform is"):
        place_on_gpu([Placing(plan, lease, specs)])
    sound, clip = planned(CLIP, mel_spec("whisper-80"))
    with pytest.raises(InvalidOptions, match="waveform is"):
        place_on_gpu([Placing(sound, lease, specs, clip)])
    with pytest.raises(InvalidOptions, match=r"need as many of one row; got \(2, 19200\)"):
        FeatureClip(sound_plan(CLIP, 16_000, mono=False, limits=LIMITS), clip, 64)
    with pytest.raises(InvalidOptions, match=r"features of 19200 samples"):
        FeatureClip(sound_plan(CLIP, 16_000, limits=LIMITS, max_outputs=19_000), clip, 64)


def test_samples_of_all_encodings_begin_where_kernels_can_read_them_wiring_only(cupy: Any, run_on_host: Any) -> None:
    plans = [
        sound_plan(stored(encoding, 1 + number % 2, 101 + 2 * number), None, mono=False, limits=LIMITS)
        for number, encoding in enumerate((*ENCODINGS, *ENCODINGS))
    ]
    outs = [np.zeros(plan.shape, np.float32) for plan in plans]
    clips = [WaveClip(plan, int(out.ctypes.data)) for plan, out in zip(plans, outs, strict=True)]
    SoundKernels(0).write(clips, stream=cupy.cuda.Stream.ptds)
    for out, expected in zip(outs, waves(run_on_host, plans), strict=True):
        np.testing.assert_array_equal(out, expected)


def test_what_is_uploaded_of_any_size_pins_no_more_wiring_only(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = list[int]()

    def pin(nbytes: int) -> bytearray:
        pinned.append(nbytes)
        return bytearray(nbytes)

    def refuse(array: Any) -> Any:
        raise AssertionError("CuPy pins a new block of each size, and keeps it")

    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", pin)
    monkeypatch.setattr(cupy, "asarray", refuse)
    for count in range(16_000, 16_010):
        sound, clip = planned(PcmSamples.of(speechlike(1, count), 16_000), mel_spec("cohere-asr"))
        specs, lease = _untouched(clip.tensors)
        place_on_gpu([Placing(sound, lease, specs, clip)])
    assert all(pinned.count(nbytes) <= count for count, nbytes in BLOCKS)
    assert set(pinned) <= {nbytes for _, nbytes in BLOCKS}


@pytest.mark.parametrize("broken", ["a launch", "what stands beside the features"])
def test_an_error_finds_every_block_noted_on_the_stream_wiring_only(
    broken: str, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that were queued before it may still write: who waits for the blocks has to wait for those too."""
    stream, compiled = cupy.cuda.Stream.ptds, kernels.kernel

    def fail(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("CUDA does not take it")

    if broken == "a launch":
        monkeypatch.setattr(
            kernels, "kernel", lambda name, defines: fail if name == "audio/mel_finish" else compiled(name, defines)
        )
    else:
        monkeypatch.setattr(Array, "set", fail)
    placings, leases = [], []
    for name in ("qwen3-omni", "parakeet"):
        sound, clip = planned(CLIP, mel_spec(name))
        specs, lease = _untouched(clip.tensors)
        placings.append(Placing(sound, lease, specs, clip))
        leases.append(lease)
    with pytest.raises(RuntimeError, match="CUDA does not take it"):
        place_on_gpu(placings)
    assert cupy.launched, "something was queued"
    assert [lease.recorded for lease in leases] == [[stream], [stream]]
