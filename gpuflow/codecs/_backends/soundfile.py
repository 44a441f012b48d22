"""WAV, AIFF, AU, CAF, FLAC, Ogg and MP3 by libsndfile, which carries mpg123, libvorbis and libopus."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from gpuflow.codecs.base import Capability, Deadline, MediaType, Support
from gpuflow.codecs.pcm import PREROLL_SECONDS, AudioInfo, Gathering, Pcm, Section
from gpuflow.codecs.probe.caf import of_true_size
from gpuflow.codecs.probe.claims import ContainerClaims
from gpuflow.codecs.probe.ogg import ends, position_before_last_page
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

BLOCK_SAMPLES = 32_768  # of stereo 256 KiB, which stay in the cache until they are mixed
UNKNOWN_SAMPLES = 1 << 62  # libsndfile's count where a FLAC header says 0
_FORMATS = {
    "wav": ("WAV", "WAVEX", "RF64"), "flac": ("FLAC",), "ogg": ("OGG",), "mp3": ("MP3",), "aiff": ("AIFF",),
    "au": ("AU",), "caf": ("CAF",),
}  # fmt: skip
_CODECS = {  # FFmpeg's names, so that both backends say the same
    "PCM_U8": "pcm_u8", "PCM_S8": "pcm_s8", "PCM_16": "pcm_s16le", "PCM_24": "pcm_s24le", "PCM_32": "pcm_s32le",
    "FLOAT": "pcm_f32le", "DOUBLE": "pcm_f64le", "ULAW": "pcm_mulaw", "ALAW": "pcm_alaw",
    "IMA_ADPCM": "adpcm_ima_wav", "MS_ADPCM": "adpcm_ms",
}  # fmt: skip
_CODECS_BY_FORMAT = {"FLAC": "flac", "MP3": "mp3"}
_WITHIN_16_BITS = frozenset({"PCM_U8", "PCM_S8", "PCM_16", "ULAW", "ALAW"})
_WITH_PREROLL = frozenset({"MP3", "OGG"})


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
        """Seven formats; the rest is libavformat's."""
        if kind.format in _FORMATS:
            return Support(True)
        return Support(False, f"libsndfile does not read {kind.name}")

    def info(self, data: bytes, kind: MediaType, stream: int | str | None = None) -> AudioInfo:
        """See ``AudioDecoder``."""
        _require_first(kind, stream)
        with _opened(data, kind) as file:
            return _info(file)

    def decode(
        self,
        data: bytes,
        kind: MediaType,
        section: Section,
        *,
        claims: ContainerClaims,
        limits: Limits,
        deadline: Deadline,
    ) -> Pcm:
        """See ``AudioDecoder``. Where a section is sought and does not come out, all before it is decoded: headers lie."""
        _require_first(kind, section.stream)
        if section.start_seconds > 0:
            with contextlib.suppress(CorruptMedia):
                gathering = _read(data, kind, section, limits, deadline, sought=True)
                if gathering.found:
                    return gathering.finish(self.name)
        return _read(data, kind, section, limits, deadline, sought=False).finish(self.name)


def _require_first(kind: MediaType, stream: int | str | None) -> None:
    if stream not in (None, 0):  # libavformat finds it, or says what there is
        raise UnsupportedFormat(f"libsndfile does not tell the audio streams of {kind.name} apart")


def _read(
    data: bytes, kind: MediaType, section: Section, limits: Limits, deadline: Deadline, *, sought: bool
) -> Gathering:
    """Block by block: a read of the whole file would allocate what the header claims."""
    with _opened(data, kind) as file:
        within = file.subtype in _WITHIN_16_BITS
        dtype: Literal["int16", "float32"] = "int16" if within and section.exact else "float32"
        gathering = Gathering(_info(file), section, limits=limits, deadline=deadline, dtype=dtype)
        if sought and (first := _where_to_begin(file, data, gathering.first)):
            file.seek(first)
            gathering.skip(first)
        # of 30 s of stereo of 16 bits libsndfile makes floats in 3 ms, numpy in 0.5
        memory = np.empty((BLOCK_SAMPLES, file.channels), np.int16 if within else np.float32)
        while len(block := file.read(out=memory)):
            if not gathering.put(block.T):
                break
    if gathering.empty and (file.frames or (kind.format == "ogg" and not ends(data))):
        raise CorruptMedia(f"the {kind.name} breaks off before its first sample")
    return gathering


def _where_to_begin(file: Any, data: bytes, first: int) -> int:
    """The sample to seek, from which on ``first`` and what follows come out as if all had been decoded.

    libsndfile misplaces what it seeks on the last page of a Vorbis stream that ends within a block.
    """
    if file.format not in _WITH_PREROLL:
        return min(first, int(file.frames))
    preroll = round(PREROLL_SECONDS * file.samplerate)
    begin = first - preroll
    if file.format == "OGG" and file.subtype == "VORBIS":
        begin = min(begin, position_before_last_page(data) - 1)
    return begin if begin > preroll else 0


@contextmanager
def _opened(data: bytes, kind: MediaType) -> Iterator[Any]:
    import soundfile

    try:
        file = _forward()(io.BytesIO(of_true_size(data) if kind.format == "caf" else data))
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise UnsupportedFormat(f"libsndfile does not open these {len(data)} bytes as {kind.name}") from error
    with file:
        if file.format not in _FORMATS[kind.format]:
            raise CorruptMedia(f"the bytes begin as {kind.name} and are {file.format}")
        if file.format != "MP3" and file.subtype.startswith("MPEG"):
            raise UnsupportedFormat(f"libsndfile misplaces sections of MPEG sound in {file.format}")
        if file.frames >= UNKNOWN_SAMPLES:
            raise UnsupportedFormat("libsndfile cannot read FLAC whose header does not say its length")
        try:
            yield file
        except (soundfile.SoundFileError, RuntimeError) as error:
            if file.format == "FLAC":  # libavformat gives what there is of one that breaks off
                raise UnsupportedFormat("libsndfile cannot decode this FLAC to its end") from error
            raise CorruptMedia(f"libsndfile cannot decode this {kind.name}") from error


@functools.cache
def _forward() -> type[Any]:
    """``soundfile.SoundFile`` that reads on: it seeks to where it is after every read, which throws away what the next
    samples depend on. In an MP3 of 32 kbit/s the first frame of a block was off by 0.3."""
    import soundfile

    class Forward(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return Forward


def _info(file: Any) -> AudioInfo:
    codec = _CODECS_BY_FORMAT.get(file.format) or _CODECS.get(file.subtype, file.subtype.lower())
    return AudioInfo(codec, file.channels, file.samplerate, file.frames)
