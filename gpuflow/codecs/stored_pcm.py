"""PCM that lies in a WAV as it is: what a GPU may take as it came, without any decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpuflow.codecs._backends.soundfile import SoundFileDecoder
from gpuflow.codecs.base import MediaType
from gpuflow.codecs.pcm import AudioInfo, Section, check_claims
from gpuflow.codecs.probe.riff import wave_samples
from gpuflow.config import Limits
from gpuflow.errors import GpuflowError

Encoding = Literal["u8", "s16", "s24", "s32", "f32", "f64", "mulaw", "alaw"]
_ENCODINGS: dict[tuple[int, int], tuple[Encoding, str]] = {  # by format tag and bits: ours, and FFmpeg's codec
    (1, 8): ("u8", "pcm_u8"), (1, 16): ("s16", "pcm_s16le"), (1, 24): ("s24", "pcm_s24le"), (1, 32): ("s32", "pcm_s32le"),
    (3, 32): ("f32", "pcm_f32le"), (3, 64): ("f64", "pcm_f64le"), (6, 8): ("alaw", "pcm_alaw"), (7, 8): ("mulaw", "pcm_mulaw"),
}  # fmt: skip
_libsndfile = SoundFileDecoder()


@dataclass(frozen=True, slots=True)
class StoredPcm:
    """``nbytes`` from ``offset`` on are ``num_samples`` of each of ``channels``, interleaved, little-endian. Floats are as
    the file has them: nobody has looked whether they are numbers."""

    offset: int
    nbytes: int
    encoding: Encoding
    channels: int
    sample_rate: int
    num_samples: int
    codec: str

    def section(self, section: Section, limits: Limits) -> tuple[int, int]:
        """The section's first sample and the one behind its last; both are the end where it begins there.

        Raises:
            LimitExceeded: rate, channels, seconds or bytes.
        """
        info = AudioInfo(self.codec, self.channels, self.sample_rate, self.num_samples)
        check_claims(info, section, limits, self.nbytes // max(1, self.num_samples * self.channels))
        first, last = section.samples(self.sample_rate)
        last = self.num_samples if last is None else min(last, self.num_samples)
        return min(first, last), last


def stored_pcm(data: bytes, kind: MediaType, limits: Limits) -> StoredPcm | None:
    """Where the samples lie; ``None`` of whatever has to be decoded, and of a WAV about which libsndfile, which would decode
    it, says something else, or that has more chunks than allowed. The other limits are asked by ``StoredPcm.section``."""
    if kind.format != "wav":
        return None
    try:
        found, said = wave_samples(data, limits), _libsndfile.info(data, kind)
    except GpuflowError:
        return None
    form = found.format
    encoding, codec = _ENCODINGS.get((form.tag, form.bits), (None, ""))
    if encoding is None or form.align != form.channels * form.bits // 8:
        return None
    if _names_data(data, 12, found.offset - 8) or _names_data(data, found.offset + found.nbytes, len(data)):
        return None  # of several data chunks libsndfile takes the last one, or none of them as we do
    count = found.nbytes // form.align
    if (said.codec, said.channels, said.sample_rate, said.num_samples) != (codec, form.channels, form.rate, count):
        return None
    return StoredPcm(found.offset, count * form.align, encoding, form.channels, form.rate, count, codec)


def _names_data(data: bytes, first: int, end: int) -> bool:
    return data.find(b"data", first, end) >= 0
