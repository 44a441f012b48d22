"""One scan for every container, before a demuxer is opened: in microseconds, allocating nothing by what it reads."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from gpuflow.codecs.base import ImageInfo, MediaType
from gpuflow.codecs.probe.ac3 import ac3_claims
from gpuflow.codecs.probe.aiff import aiff_claims
from gpuflow.codecs.probe.amr import amr_claims
from gpuflow.codecs.probe.asf import asf_claims
from gpuflow.codecs.probe.au import au_claims
from gpuflow.codecs.probe.boxes import movie_claims
from gpuflow.codecs.probe.caf import caf_claims
from gpuflow.codecs.probe.claims import ContainerClaims, check_claims
from gpuflow.codecs.probe.ebml import matroska_claims
from gpuflow.codecs.probe.elementary import elementary_claims, ivf_claims
from gpuflow.codecs.probe.flac import flac_claims
from gpuflow.codecs.probe.image import check_image, image_info
from gpuflow.codecs.probe.mp3 import adts_claims, mp3_claims
from gpuflow.codecs.probe.ogg import ogg_claims
from gpuflow.codecs.probe.riff import avi_claims, wav_claims
from gpuflow.codecs.probe.transport import transport_claims
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError, UnsupportedFormat
from gpuflow.media import Modality

_BROKEN_OFF = (IndexError, ValueError, OverflowError, struct.error)  # of reading behind the last byte
_SCANS: dict[str, Callable[[bytes, Limits], ContainerClaims]] = {
    "mov": movie_claims,
    "mp4": movie_claims,
    "matroska": matroska_claims,
    "avi": avi_claims,
    "mpegts": transport_claims,
    "wav": wav_claims,
    "aiff": aiff_claims,
    "au": au_claims,
    "caf": caf_claims,
    "asf": asf_claims,
    "amr": amr_claims,
    "ac3": ac3_claims,
    "eac3": ac3_claims,
    "flac": flac_claims,
    "mp3": mp3_claims,
    "ogg": ogg_claims,
    "aac": adts_claims,
    "h264": elementary_claims,
    "hevc": elementary_claims,
    "obu": elementary_claims,
    "ivf": ivf_claims,
}


def check(
    data: bytes,
    kind: MediaType,
    limits: Limits,
    *,
    wanted: Modality | None = None,
    until_seconds: float = math.inf,
) -> ImageInfo | ContainerClaims:
    """What the bytes claim, held to ``limits``: the one call before any decoder or demuxer sees them.

    ``wanted``: what is taken from a container, where it is not what the container counts as; ``until_seconds``: the end
    of the section that is wanted.

    Raises:
        CorruptMedia: the structure is damaged, or claims more bytes than there are.
        LimitExceeded: it claims more than ``limits`` allows.
        UnsupportedFormat: a format without a scan, or a variant that no decoder here should read.
    """
    if kind.modality == "image":
        info = image_info(data, kind, limits)
        check_image(info, limits)
        return info
    return container_claims(data, kind, limits, wanted=wanted, until_seconds=until_seconds)


def container_claims(
    data: bytes,
    kind: MediaType,
    limits: Limits,
    *,
    wanted: Modality | None = None,
    until_seconds: float = math.inf,
    stream: int | str | None = None,
) -> ContainerClaims:
    """``check`` for what is no image. ``stream``: which of the wanted kind is taken, where it is not the first."""
    scan = _SCANS.get(kind.format)
    if scan is None:
        raise UnsupportedFormat(f"{kind.name} is no container that is supported")
    try:
        claims = scan(data, limits)
    except GpuflowError:
        raise
    except _BROKEN_OFF as error:
        raise CorruptMedia(f"the headers of this {kind.name} break off") from error
    check_claims(claims, wanted or kind.modality, until_seconds, limits, stream)
    return claims
