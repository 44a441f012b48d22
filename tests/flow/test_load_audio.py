"""Audio files in, placed waveforms and features out: values, alignment, down-mix, sections, metadata."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow import device as devices
from gpuflow.codecs.audio import audio_info, capabilities
from gpuflow.codecs.probe import sniff
from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.flow.audio import load_audio
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import AudioMetadata, FeatureMetadata, Features, Waveform
from gpuflow.memory import Slab
from gpuflow.observe import Counters
from gpuflow.presets.families import image_preset
from gpuflow.presets.mel_specs import mel_spec
from tests.flow.audio_files import KINDS, Samples, blob, chirp, with_ffmpeg, with_soundfile
from tests.parity.tolerances import TOLERANCES

RATE = 44_100
KEEP = AudioOptions(mono=False)


def _load(
    data: bytes, kind: str, options: AudioOptions, context: LoadContext
) -> tuple[NDArray[np.float32], AudioMetadata, str]:
    media = load_audio(blob(data), KINDS[kind], options, context)
    assert isinstance(media, Waveform)
    with media:
        assert media.fallback is None
        return media.numpy().copy(), media.metadata, media.backend


def _lag(got: Samples, expected: Samples) -> int:
    """How many samples ``got`` comes late, by cross-correlation."""
    size = 1 << (len(got) + len(expected)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(got, size) * np.conj(np.fft.rfft(expected, size)), size)
    late = int(np.argmax(correlation))
    return late - size if late > size // 2 else late


def _as_librosa_loads(data: bytes) -> Samples:
    """``librosa.load(sr=16_000, mono=True)`` by its parts: the whole also imports modules that Python deprecates."""
    import librosa
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    wave: Samples = librosa.resample(librosa.to_mono(samples.T), orig_sr=rate, target_sr=16_000)
    return wave


@pytest.mark.parametrize(
    ("subtype", "codec", "step"),
    [
        ("PCM_U8", "pcm_u8", 2.0**-7),
        ("PCM_16", "pcm_s16le", 2.0**-15),
        ("PCM_24", "pcm_s24le", 2.0**-23),
        ("FLOAT", "pcm_f32le", 0.0),
    ],
)
def test_wav_gives_the_samples_that_were_written(subtype: str, codec: str, step: float, context: LoadContext) -> None:
    samples = chirp(0.5, RATE, 2)
    got, metadata, backend = _load(with_soundfile(samples, RATE, "WAV", subtype), "wav", KEEP, context)
    assert got.shape == samples.shape
    assert np.abs(got - samples).max() <= step
    assert metadata == AudioMetadata(codec, 2, RATE, RATE, samples.shape[1], 0.5)
    assert backend == "soundfile"


def test_flac_of_24_bits_is_lossless(context: LoadContext) -> None:
    samples = np.round(chirp(0.5, RATE, 2) * 2**23).astype(np.float32) / np.float32(2**23)
    got, metadata, _ = _load(with_soundfile(samples, RATE, "FLAC", "PCM_24"), "flac", KEEP, context)
    assert np.abs(got - samples).max() <= TOLERANCES["decode/pcm"].max_abs
    assert metadata.codec == "flac"


@pytest.mark.parametrize(
    ("kind", "format", "subtype", "rate"),
    [("mp3", "MP3", "MPEG_LAYER_III", RATE), ("ogg", "OGG", "VORBIS", RATE), ("ogg", "OGG", "OPUS", 48_000)],
)
def test_lossy_file_of_libsndfile_is_aligned_and_of_equal_length(
    kind: str, format: str, subtype: str, rate: int, context: LoadContext
) -> None:
    samples = chirp(1.0, rate, 2)
    got, _, backend = _load(with_soundfile(samples, rate, format, subtype), kind, KEEP, context)
    assert backend == "soundfile"
    assert got.shape == samples.shape
    assert [_lag(*pair) for pair in zip(got, samples, strict=True)] == [0, 0]


@pytest.mark.parametrize(
    ("kind", "muxer", "codec", "late", "longer"),
    [
        ("m4a", "ipod", "aac", 0, 1023),
        ("m4a", "ipod", "alac", 0, 0),
        ("matroska", "matroska", "aac", 0, 1023),
        ("matroska", "matroska", "flac", 0, 0),
        ("matroska", "webm", "libopus", 0, 0),
        ("mp3", "mp3", "libmp3lame", 0, 0),
        # nothing in these says how long the encoder's priming is; every decoder keeps it
        ("aac", "adts", "aac", 1024, 2047),
        ("mpegts", "mpegts", "aac", 1024, 2047),
        ("avi", "avi", "libmp3lame", 1105, 2 * 1152),
    ],
)
def test_lossy_file_of_ffmpeg_is_aligned(
    kind: str, muxer: str, codec: str, late: int, longer: int, context: LoadContext
) -> None:
    samples = chirp(1.0, 48_000, 2)
    got, metadata, _ = _load(with_ffmpeg(samples, 48_000, muxer, codec), kind, KEEP, context)
    assert [_lag(*pair) for pair in zip(got, samples, strict=True)] == [late, late]
    assert 0 <= got.shape[1] - samples.shape[1] <= longer
    assert metadata.source_rate == 48_000
    assert metadata.codec == codec.removeprefix("lib").removesuffix("lame")


@pytest.mark.parametrize(("kind", "muxer"), [("mp4", "mp4"), ("matroska", "matroska"), ("mpegts", "mpegts")])
def test_video_gives_its_sound(kind: str, muxer: str, context: LoadContext) -> None:
    samples = chirp(1.0, 48_000)
    got, metadata, backend = _load(
        with_ffmpeg(samples, 48_000, muxer, "aac", video=True), kind, AudioOptions(), context
    )
    assert _lag(got[0], samples[0]) in (0, 1024)
    assert backend == "pyav"
    assert metadata.codec == "aac"


@pytest.mark.parametrize("channels", [2, 6])
def test_down_mix_is_the_mean_of_the_channels(channels: int, context: LoadContext) -> None:
    samples = chirp(0.5, RATE, channels)
    for kind, data in (
        ("wav", with_soundfile(samples, RATE, "WAV", "FLOAT")),
        ("matroska", with_ffmpeg(samples, RATE, "matroska", "pcm_f32le")),
    ):
        got, metadata, _ = _load(data, kind, AudioOptions(), context)
        assert got.shape == (1, samples.shape[1])
        assert np.abs(got[0] - samples.mean(axis=0, dtype=np.float64)).max() < 1e-6
        assert metadata.channels == channels


def test_rate_and_mono_equal_librosas_loader(context: LoadContext) -> None:
    data = with_soundfile(chirp(1.0, RATE, 2), RATE, "WAV", "PCM_16")
    expected = _as_librosa_loads(data)
    got, metadata, _ = _load(data, "wav", AudioOptions(sample_rate=16_000), context)
    assert got.shape == (1, len(expected))
    assert np.abs(got[0] - expected).max() <= TOLERANCES["resample/soxr"].max_abs
    assert (metadata.source_rate, metadata.sample_rate, metadata.duration_seconds) == (RATE, 16_000, 1.0)


@pytest.mark.parametrize(("start", "duration"), [(0.0, 0.25), (0.3, 0.5), (0.75, None), (0.9, 5.0)])
@pytest.mark.parametrize("kind", ["wav", "mp3", "m4a"])
def test_section_equals_that_part_of_the_whole(
    kind: str, start: float, duration: float | None, context: LoadContext
) -> None:
    samples = chirp(1.0, RATE, 2)
    data = {
        "wav": lambda: with_soundfile(samples, RATE, "WAV", "PCM_16"),
        "mp3": lambda: with_soundfile(samples, RATE, "MP3", "MPEG_LAYER_III"),
        "m4a": lambda: with_ffmpeg(samples, RATE, "ipod", "aac"),
    }[kind]()
    whole, _, _ = _load(data, kind, KEEP, context)
    options = AudioOptions(mono=False, start_seconds=start, duration_seconds=duration)
    got, metadata, _ = _load(data, kind, options, context)
    first = round(start * RATE)
    last = None if duration is None else first + round(duration * RATE)
    assert np.array_equal(got, whole[:, first:last])
    assert metadata.start_seconds == start
    assert metadata.num_samples == got.shape[1]


def test_features_equal_hugging_faces_pipeline(context: LoadContext) -> None:
    from transformers import WhisperFeatureExtractor

    data = with_soundfile(chirp(2.0, RATE, 2), RATE, "MP3", "MPEG_LAYER_III")
    wave = _as_librosa_loads(data)
    expected = WhisperFeatureExtractor(feature_size=128)(wave, sampling_rate=16_000, return_tensors="pt")
    with load_audio(blob(data), KINDS["mp3"], AudioOptions(features="whisper-128"), context) as media:
        assert isinstance(media, Features)
        assert media.shape == (128, 3000)
        assert dict(media).keys() == expected.keys() == {"input_features"}
        difference = (media["input_features"] - expected["input_features"][0]).abs().max()
        assert difference <= TOLERANCES["mel/clamped"].max_abs
        assert isinstance(media.metadata, FeatureMetadata)
        assert media.metadata.valid_length == 200
        assert media.metadata.preset == "whisper-128"
        assert isinstance(media.metadata.source, AudioMetadata)
        assert media.metadata.source.sample_rate == 16_000
    assert [stage.name for stage in context.stages] == ["decode", "features"]


def test_features_of_a_long_clip_are_those_of_its_first_30_seconds(context: LoadContext) -> None:
    from gpuflow.ops.audio import resample
    from gpuflow.ops.mel import features

    samples = chirp(31.0, 22_050)
    data = with_soundfile(samples, 22_050, "WAV", "FLOAT")
    expected = features(resample(samples, 22_050, 16_000)[0], mel_spec("whisper-80"))["input_features"]
    with load_audio(blob(data), KINDS["wav"], AudioOptions(features=mel_spec("whisper-80")), context) as media:
        assert np.abs(media.numpy() - expected).max() <= 1e-5
        assert isinstance(media.metadata, FeatureMetadata)
        assert media.metadata.valid_length == 3000


@pytest.mark.parametrize(
    "options",
    [
        AudioOptions(features="whisper-64"),
        AudioOptions(features=image_preset("clip-224")),
        AudioOptions(features="whisper-80", sample_rate=8_000),
        AudioOptions(sample_rate=1),
        AudioOptions(sample_rate=10**9),
        AudioOptions(start_seconds=0.6),
    ],
)
def test_option_that_cannot_be_met_is_invalid_options(options: AudioOptions, context: LoadContext) -> None:
    data = with_soundfile(chirp(0.5, 16_000), 16_000, "WAV", "PCM_16")
    with pytest.raises(InvalidOptions):
        load_audio(blob(data), KINDS["wav"], options, context)


def test_section_within_the_limit_of_a_longer_file_is_decoded(slab: Slab) -> None:
    context = _context(slab, "cpu", Limits(max_audio_seconds=1.0))
    data = with_soundfile(chirp(2.0, 16_000), 16_000, "FLAC", "PCM_16")
    got, _, _ = _load(data, "flac", AudioOptions(start_seconds=0.5, duration_seconds=0.5), context)
    assert got.shape == (1, 8_000)
    with pytest.raises(LimitExceeded, match="max_audio_seconds"):
        load_audio(blob(data), KINDS["flac"], AudioOptions(start_seconds=1.5, duration_seconds=0.5), context)


def test_header_is_told_without_decoding() -> None:
    samples = chirp(1.0, 48_000, 2)
    assert audio_info(with_soundfile(samples, 48_000, "FLAC", "PCM_16"), KINDS["flac"]).num_samples == 48_000
    info = audio_info(with_ffmpeg(samples, 48_000, "ipod", "aac"), KINDS["m4a"])
    assert (info.codec, info.channels, info.sample_rate, info.num_samples) == ("aac", 2, 48_000, 48_000)
    assert audio_info(with_ffmpeg(samples, 48_000, "adts", "aac"), KINDS["aac"]).num_samples is None


def test_both_backends_are_here_and_say_their_version() -> None:
    assert list(capabilities()) == ["soundfile", "pyav"]
    assert all(capability.available and capability.version for capability in capabilities().values())


@pytest.mark.media
def test_real_speech_equals_hugging_faces_pipeline(real_media: Path, context: LoadContext) -> None:
    from transformers import WhisperFeatureExtractor

    file = real_media / "speech_jfk.flac"
    wave = _as_librosa_loads(file.read_bytes())
    expected = WhisperFeatureExtractor(feature_size=80)(wave, sampling_rate=16_000, return_tensors="np")
    with load_audio(blob(file.read_bytes()), KINDS["flac"], AudioOptions(features="whisper-80"), context) as media:
        assert np.abs(media.numpy() - expected["input_features"][0]).max() <= TOLERANCES["mel/clamped"].max_abs
        assert isinstance(media.metadata, FeatureMetadata)
        assert media.metadata.valid_length == 1100


@pytest.mark.media
def test_real_video_gives_its_sound(real_media: Path, context: LoadContext) -> None:
    got, metadata, _ = _load((real_media / "nasa_13013.mp4").read_bytes(), "mp4", AudioOptions(), context)
    assert metadata.codec == "aac"
    assert abs(metadata.duration_seconds - 13.0) < 0.1
    assert 0.01 < np.abs(got).max() <= 1.5


@pytest.mark.gpu
@pytest.mark.parametrize("options", [AudioOptions(sample_rate=16_000), AudioOptions(features="whisper-128")])
def test_results_of_the_gpu_equal_those_of_the_cpu(options: AudioOptions, context: LoadContext) -> None:
    for form, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("MP3", "MPEG_LAYER_III")):
        data = with_soundfile(chirp(2.0, RATE, 2), RATE, form, subtype)
        with load_audio(blob(data), sniff(data), options, context) as media:
            expected = media.numpy().copy()
        with SyncFlow(device="cuda", slab_bytes="16MiB") as flow:
            with flow.load(data, options=options) as media:
                assert media.device.startswith("cuda:")
                assert media.fallback is None
                assert np.abs(media.numpy() - expected).max() <= TOLERANCES["mel/gpu"].max_abs
            assert flow.slab.statistics().live_leases == 0


def _context(slab: Slab, device: str, limits: Limits) -> LoadContext:
    return LoadContext(
        device=devices.choose(device),
        slab=slab,
        host_slab=slab,
        limits=limits,
        deadline=Deadline(60.0),
        counters=Counters(),
        device_asked=device,
    )
