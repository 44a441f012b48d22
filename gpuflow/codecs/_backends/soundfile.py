"""WAV, FLAC, Ogg and MP3 by libsndfile, which carries mpg123, libvorbis and libopus."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpuflow.codecs.base import Capability, Deadline, MediaType, Support
from gpuflow.codecs.pcm import AudioInfo, Gathering, Pcm, Section
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

BLOCK_SAMPLES = 65_536
UNKNOWN_SAMPLES = 1 << 62  # libsndfile's count where a FLAC header says 0
_FORMATS = {"wav": ("WAV", "WAVEX", "RF64"), "flac": ("FLAC",), "ogg": ("OGG",), "mp3": ("MP3",)}
_CODECS = {  # FFmpeg's names, so that both backends say the same
    "PCM_U8": "pcm_u8", "PCM_16": "pcm_s16le", "PCM_24": "pcm_s24le", "PCM_32": "pcm_s32le",
    "FLOAT": "pcm_f32le", "DOUBLE": "pcm_f64le", "ULAW": "pcm_mulaw", "ALAW": "pcm_alaw",
    "IMA_ADPCM": "adpcm_ima_wav", "MS_ADPCM": "adpcm_ms",
}  # fmt: skip
_CODECS_BY_FORMAT = {"FLAC": "flac", "MP3": "mp3"}


class SoundFileDecoder:
    """``AudioDecoder`` on libsndfile. Its values are what librosa, and so Hugging Face and vLLM, see."""

    name = "soundfile"

    def capability(self) -> Capability:
        """Whether the library and its libsndfile load here."""
        try:
            import soundfile
        except (ImportError, OSError) as error:
            return Capability(False, f"soundfile does not load ({error}): pip install soundfile")
        return Capability(True, version=f"{soundfile.__version__} (libsndfile {soundfile.__libsndfile_version__})")

    def supports(self, kind: MediaType) -> Support:
        """Four formats; the rest is libavformat's."""
        if kind.format in _FORMATS:
            return Support(True)
        return Support(False, f"libsndfile does not read {kind.name}")

    def info(self, data: bytes, kind: MediaType) -> AudioInfo:
        """See ``AudioDecoder``."""
        with _opened(data, kind) as file:
            return _info(file)

    def decode(self, data: bytes, kind: MediaType, section: Section, *, limits: Limits, deadline: Deadline) -> Pcm:
        """See ``AudioDecoder``. It reads blocks: a whole-file read would allocate what the header claims."""
        with _opened(data, kind) as file:
            gathering = Gathering(_info(file), section, limits=limits, deadline=deadline)
            while len(block := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                if not gathering.put(block.T):
                    break
        return gathering.finish(self.name)


@contextmanager
def _opened(data: bytes, kind: MediaType) -> Iterator[Any]:
    import soundfile

    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise UnsupportedFormat(f"libsndfile does not open these {len(data)} bytes as {kind.name}") from error
    with file:
        if file.format not in _FORMATS[kind.format]:
            raise CorruptMedia(f"the bytes begin as {kind.name} and are {file.format}")
        if file.frames >= UNKNOWN_SAMPLES:
            raise UnsupportedFormat("libsndfile cannot read FLAC whose header does not say its length")
        try:
            yield file
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise CorruptMedia(f"libsndfile cannot decode this {kind.name}") from error


def _info(file: Any) -> AudioInfo:
    codec = _CODECS_BY_FORMAT.get(file.format) or _CODECS.get(file.subtype, file.subtype.lower())
    return AudioInfo(codec, file.channels, file.samplerate, file.frames)
