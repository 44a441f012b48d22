"""Sounds on a GPU's way, from bytes to features, whose kernels run on the host; the CPU's own way is the reference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from gpuflow.codecs.probe import sniff
from gpuflow.config import AudioOptions
from gpuflow.errors import BackendUnavailable, CorruptMedia, DeviceLost, GpuflowError, InvalidOptions, NoSuchStream
from gpuflow.flow import audio_batches
from gpuflow.flow.audio import load_audio
from gpuflow.flow.audio_batches import AudioBatches
from gpuflow.flow.audio_steps import audio_steps
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.suspended import Suspended, advance, finished
from gpuflow.isolation.decoding import InProcess
from gpuflow.isolation.wire import AudioWanted
from gpuflow.media import Features, Waveform
from gpuflow.observe import Counters, labelled
from gpuflow.ops.audio_gpu import Placing
from gpuflow.presets.mel import MelSpec
from tests.flow.audio_files import blob, chirp, with_ffmpeg, with_soundfile
from tests.flow.timed_clips import clip
from tests.kernels_host.conftest import Run
from tests.kernels_host.sound_routes import run_batch
from tests.parity.tolerances import TOLERANCES
from tests.waiting import LONGEST_SECONDS

STEREO = chirp(2.3, 44_100, 2)
SPEECH = chirp(2.1, 16_000)
SOUNDS = {
    "wav s16": with_soundfile(STEREO, 44_100, "WAV", "PCM_16"),
    "wav s24": with_soundfile(STEREO, 44_100, "WAV", "PCM_24"),
    "wav f32": with_soundfile(STEREO, 44_100, "WAV", "FLOAT"),
    "wav mu-law": with_soundfile(chirp(1.1, 8_000), 8_000, "WAV", "ULAW"),
    "wav adpcm": with_soundfile(STEREO, 44_100, "WAV", "IMA_ADPCM"),
    "wav at 16 kHz": with_soundfile(SPEECH, 16_000, "WAV", "PCM_16"),
    "flac 16": with_soundfile(STEREO, 44_100, "FLAC", "PCM_16"),
    "flac 24": with_soundfile(STEREO, 48_000, "FLAC", "PCM_24"),
    "mp3": with_soundfile(STEREO, 44_100, "MP3", "MPEG_LAYER_III"),
    "m4a": with_ffmpeg(STEREO, 44_100, "ipod", "aac"),
}
_BFLOAT16_STEP = 0.125  # of levels of 16 to 32
STORED = {"wav s16", "wav s24", "wav f32", "wav mu-law", "wav at 16 kHz"}
WISHES: dict[str, dict[str, Any]] = {
    "as it is": {"mono": False},
    "mono at 16 kHz": {"sample_rate": 16_000},
    "a section": {"sample_rate": 16_000, "start_seconds": 0.4, "duration_seconds": 0.5},
    "whisper": {"features": "whisper-80"},
    "a section for qwen3": {"features": "qwen3-omni", "start_seconds": 0.25},
    "windows": {"features": "qwen3-omni", "split": "windows", "split_seconds": 1.0, "overlap_seconds": 0.1},
    "quietest": {"features": "qwen3-omni", "split": "quietest", "split_seconds": 1.0, "search_seconds": 0.3},
    "cohere": {"features": "cohere-asr"},
    "phi-4 in bfloat16": {"features": "phi4-multimodal", "dtype": "bfloat16"},
    "wav2vec2": {"features": "wav2vec2"},
}


class HostPlace:
    """Where a GPU's kernels would write, they run on the host; calls wait while the gate is closed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._one = threading.Lock()  # the host's build has one block's memory
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.placed: list[list[Placing]] = []
        self.broken: Callable[[Placing], bool] = lambda placing: False

    def __call__(self, placings: Sequence[Placing]) -> None:
        self.placed.append(list(placings))
        self.begun.set()
        assert self.gate.wait(LONGEST_SECONDS)
        if any(map(self.broken, placings)):
            raise DeviceLost("the device is lost")
        clips = [placing.kernels_clip(int(placing.lease.array(placing.tensors[0]).ctypes.data)) for placing in placings]
        with self._one:
            run_batch(self._run, clips)
        for placing in placings:
            for tensor, array in placing.beside().items():
                placing.lease.array(tensor)[...] = array


@pytest.fixture
def place(run_on_host: Run) -> HostPlace:
    return HostPlace(run_on_host)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def batches(place: HostPlace, counters: Counters) -> Iterator[AudioBatches]:
    made = AudioBatches(place, counters)
    yield made
    place.gate.set()
    made.close()


def _begun(data: bytes, context: LoadContext, batches: AudioBatches, **options: Any) -> Any:
    return advance(audio_steps(blob(data), sniff(data), AudioOptions(**options), context, batches))


@pytest.mark.parametrize("zero_seconds", [None, 0.0, 1.5])
def test_sound_of_a_container_is_in_time_as_by_the_cpu(
    zero_seconds: float | None, context: LoadContext, batches: AudioBatches
) -> None:
    options = AudioOptions(sample_rate=16_000, start_seconds=0.25)
    for made in (clip("matroska", "flac", sound_at=0.5), clip("matroska", "aac", dropped=(50, 60))):
        kind = sniff(made.data)
        steps = audio_steps(blob(made.data), kind, options, context, batches, zero_seconds=zero_seconds)
        with (
            finished(steps, context.deadline) as found,
            load_audio(blob(made.data), kind, options, context, zero_seconds=zero_seconds) as expected,
        ):
            assert found.metadata == expected.metadata
            assert expected.metadata.begins_seconds != 0.0  # type: ignore[union-attr]
            most = TOLERANCES["mel/resampled"].max_abs
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=most)


def _loaded(data: bytes, context: LoadContext, batches: AudioBatches, **options: Any) -> Waveform | Features:
    steps = audio_steps(blob(data), sniff(data), AudioOptions(**options), context, batches)
    return finished(steps, context.deadline)


def _assert_same(found: Waveform | Features, data: bytes, context: LoadContext, most: float, **options: Any) -> None:
    with found, load_audio(blob(data), sniff(data), AudioOptions(**options), context) as expected:
        assert found.metadata == expected.metadata
        assert found.specs == expected.specs
        first, *beside = found.specs
        got, wanted = (media.tensor.float().numpy() for media in (found, expected))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=most if first.dtype == "float32" else _BFLOAT16_STEP)
        for spec in beside:
            np.testing.assert_array_equal(found.lease.array(spec), expected.lease.array(spec))


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("name", ["wav s16", "flac 16"])
def test_every_wish_is_answered_as_by_the_cpu(
    name: str, wish: str, context: LoadContext, batches: AudioBatches
) -> None:
    normalised = WISHES[wish].get("features") in ("cohere-asr", "phi4-multimodal")
    most = TOLERANCES["mel/kernel-normalised" if normalised else "mel/resampled"].max_abs
    found = _loaded(SOUNDS[name], context, batches, **WISHES[wish])
    _assert_same(found, SOUNDS[name], context, most, **WISHES[wish])


@pytest.mark.parametrize("name", SOUNDS)
def test_every_file_gives_the_features_that_the_cpu_gives(
    name: str, context: LoadContext, batches: AudioBatches
) -> None:
    found = _loaded(SOUNDS[name], context, batches, features="whisper-128")
    assert (found.backend == "wav") == (name in STORED)
    found.backend = found.backend.replace("wav", "soundfile")
    _assert_same(found, SOUNDS[name], context, TOLERANCES["mel/resampled"].max_abs, features="whisper-128")


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("wav s16", "s16"), ("wav s24", "s24"), ("wav mu-law", "mulaw"), ("flac 16", "s16"), ("flac 24", "f32")],
)
def test_samples_travel_as_they_are_stored(
    name: str, encoding: str, context: LoadContext, batches: AudioBatches, place: HostPlace
) -> None:
    _loaded(SOUNDS[name], context, batches, sample_rate=16_000).release()
    assert place.placed[0][0].sound.pcm.encoding == encoding


def test_what_waits_while_a_batch_is_at_work_is_the_next_batch(
    context: LoadContext, batches: AudioBatches, place: HostPlace, counters: Counters
) -> None:
    place.gate.clear()
    names = list(SOUNDS)
    first = [_begun(SOUNDS[name], context, batches, features="whisper-80") for name in names[:1]]
    assert place.begun.wait(LONGEST_SECONDS)
    place.begun.clear()
    second = [_begun(SOUNDS[name], context, batches, features="whisper-80") for name in names[1:2]]
    assert place.begun.wait(LONGEST_SECONDS)  # both threads have a batch now
    rest = [_begun(SOUNDS[name], context, batches, features="whisper-80") for name in names[2:]]
    place.gate.set()
    for name, found in zip(names, first + second + rest, strict=True):
        assert isinstance(found, Suspended)
        found.future.exception(LONGEST_SECONDS)
        media = found.resume()
        assert isinstance(media, Features)
        _assert_same(media, SOUNDS[name], context, TOLERANCES["mel/resampled"].max_abs, features="whisper-80")
    assert [len(batch) for batch in place.placed] == [1, 1, len(names) - 2]
    assert counters.snapshot()["gpuflow_audio_batch_sounds_total"] == len(names)


def test_a_batch_that_fails_is_the_fault_of_one(context: LoadContext, batches: AudioBatches, place: HostPlace) -> None:
    place.broken = lambda placing: placing.sound.pcm.encoding == "s24"
    place.gate.clear()
    held = [_begun(SOUNDS["wav at 16 kHz"], context, batches, features="whisper-80")]
    assert place.begun.wait(LONGEST_SECONDS)
    place.begun.clear()
    held.append(_begun(SOUNDS["mp3"], context, batches, features="whisper-80"))
    assert place.begun.wait(LONGEST_SECONDS)
    held += [_begun(SOUNDS[name], context, batches, features="whisper-80") for name in ("wav s16", "wav s24", "m4a")]
    place.gate.set()
    ends: list[type[GpuflowError] | None] = []
    for found in held:
        found.future.exception(LONGEST_SECONDS)
        try:
            found.resume().release()
            ends.append(None)
        except GpuflowError as error:
            ends.append(type(error))
    assert ends == [None, None, None, DeviceLost, None]
    assert context.slab.statistics().live_leases == 0


def test_a_batch_is_no_larger_than_the_gpus_memory_that_it_may_take(
    context: LoadContext, place: HostPlace, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_batches, "MAX_BATCH_BYTES", 700_000)
    batches = AudioBatches(place, counters)
    place.gate.clear()
    held = []
    for _ in range(2):
        held.append(_begun(SOUNDS["wav at 16 kHz"], context, batches, features="whisper-80"))
        assert place.begun.wait(LONGEST_SECONDS)
        place.begun.clear()
    held += [_begun(SOUNDS["wav mu-law"], context, batches, features="whisper-80") for _ in range(8)]
    place.gate.set()
    for found in held:
        found.future.exception(LONGEST_SECONDS)
        found.resume().release()
    batches.close()
    weights = [[placing.gpu_bytes for placing in batch] for batch in place.placed]
    assert sum(map(len, weights)) == 10
    assert all(sum(batch) <= 700_000 for batch in weights)
    assert max(map(len, weights)) == 700_000 // weights[-1][0], "stored, they are an eighth of that"


def test_an_abandoned_sound_leaves_nothing(context: LoadContext, batches: AudioBatches, place: HostPlace) -> None:
    place.gate.clear()
    found = _begun(SOUNDS["wav s16"], context, batches, features="whisper-80")
    assert place.begun.wait(LONGEST_SECONDS)
    found.abandon()
    place.gate.set()
    batches.close()
    assert context.slab.statistics().live_leases == 0


def test_a_cancelled_wait_ends_at_once_and_leaves_nothing(
    context: LoadContext, batches: AudioBatches, place: HostPlace
) -> None:
    place.gate.clear()

    def cancel() -> None:
        place.begun.wait(LONGEST_SECONDS)
        context.deadline.cancel()

    threading.Thread(target=cancel).start()
    with pytest.raises(GpuflowError, match="cancelled"):
        _loaded(SOUNDS["wav s16"], context, batches, features="whisper-80")
    place.gate.set()
    batches.close()
    assert context.slab.statistics().live_leases == 0


PRIME = MelSpec("prime", n_fft=398, win_length=398, pad_left=199, pad_right=199)


def test_features_that_no_kernel_makes_come_from_the_cpu_and_say_so(
    context: LoadContext, batches: AudioBatches, place: HostPlace
) -> None:
    found = _loaded(SOUNDS["wav s16"], context, batches, features=PRIME)
    assert "twice a product" in str(found.fallback)
    assert place.placed == []
    _assert_same(found, SOUNDS["wav s16"], context, 0.0, features=PRIME)
    assert context.counters.snapshot()[labelled("gpuflow_fallback_total", modality="audio")] == 1


def test_features_that_no_kernel_makes_are_refused_where_the_gpu_was_asked_for(
    context: LoadContext, batches: AudioBatches
) -> None:
    context.device_asked = "cuda"
    with pytest.raises(BackendUnavailable, match="twice a product"):
        _loaded(SOUNDS["wav s16"], context, batches, features=PRIME)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 47_999), (12_345, 16_000)])
def test_a_rate_without_a_table_is_nobodys_fault_and_is_told(
    from_hz: int, to_hz: int, context: LoadContext, batches: AudioBatches
) -> None:
    context.device_asked = "cuda"
    data = with_soundfile(STEREO, from_hz, "WAV", "PCM_16")
    found = _loaded(data, context, batches, sample_rate=to_hz)
    assert "is no usual rate" in str(found.fallback)
    _assert_same(found, data, context, TOLERANCES["resample/kernel"].max_abs, sample_rate=to_hz)


NAN = np.array([[0.1, np.nan, 0.2]], np.float32)


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (with_soundfile(NAN, 16_000, "WAV", "FLOAT"), {}, CorruptMedia),
        (with_soundfile(SPEECH[:, :0], 16_000, "WAV", "PCM_16"), {}, NoSuchStream),
        (SOUNDS["wav s16"], {"start_seconds": 5.0}, InvalidOptions),
        (SOUNDS["wav s16"], {"stream": 1}, NoSuchStream),
        (with_soundfile(SPEECH[:, :10], 16_000, "WAV", "PCM_16"), {"features": "phi4-multimodal"}, NoSuchStream),
    ],
    ids=["no number", "no sample", "behind its end", "no such stream", "less than a frame"],
)
def test_bad_sounds_end_as_on_the_cpu(
    data: bytes, options: dict[str, Any], error: type[GpuflowError], context: LoadContext, batches: AudioBatches
) -> None:
    kind, wanted = sniff(data), AudioOptions(**options)
    with pytest.raises(error) as expected:
        load_audio(blob(data), kind, wanted, context)
    with pytest.raises(error) as found:
        _loaded(data, context, batches, **options)
    assert found.value.code == expected.value.code
    assert context.slab.statistics().live_leases == 0


def test_sixteen_bits_are_decoded_as_such(context: LoadContext) -> None:
    data = SOUNDS["flac 16"]
    deadline = Deadline(LONGEST_SECONDS)
    with (
        InProcess().begin(blob(data), sniff(data), "audio", limits=context.limits, deadline=deadline) as decoder,
        decoder.audio(AudioWanted(mono=False, native=True)) as sound,
    ):
        assert sound.samples.dtype == np.int16
        assert sound.samples.shape == STEREO.shape
