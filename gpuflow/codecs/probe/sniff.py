"""The kind of some bytes, by their first bytes. No decoder ever guesses: it is told what was found here."""

from __future__ import annotations

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe.ac3 import ac3_format
from gpuflow.codecs.probe.amr import MAGIC as AMR_MAGIC
from gpuflow.codecs.probe.asf import MAGIC as ASF_MAGIC
from gpuflow.codecs.probe.elementary import elementary_kind
from gpuflow.codecs.probe.id3 import skip_tags
from gpuflow.codecs.probe.mpeg import is_adts, is_mpeg_audio, is_transport_stream
from gpuflow.errors import CorruptMedia, UnsupportedFormat

SUPPORTED = (
    "jpeg, png, webp, gif, bmp, tiff, avif, heic; mp4, mov, matroska, webm, avi, mpegts, ivf, raw h264, hevc and obu; "
    "wav, aiff, au, caf, flac, mp3, ogg, aac, m4a, ac3, eac3, amr, wma"
)
_MAX_BRANDS = 64
_EBML_BYTES = 4_096  # a DocType further in than this is nobody's
_BOX_TYPES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # what QuickTime files without ftyp begin with
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_HEIF_BRANDS = _HEIC_BRANDS | {b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_AUDIO_BRANDS = {b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}

_MAGIC = (
    (b"\xff\xd8\xff", MediaType("jpeg", "image")),
    (b"\x89PNG\r\n\x1a\n", MediaType("png", "image")),
    (b"GIF87a", MediaType("gif", "image")),
    (b"GIF89a", MediaType("gif", "image")),
    (b"II*\x00", MediaType("tiff", "image")),
    (b"MM\x00*", MediaType("tiff", "image")),
    (b"fLaC", MediaType("flac", "audio", "flac")),
    (b"OggS", MediaType("ogg", "audio", "ogg")),
    (b"caff\0\1", MediaType("caf", "audio", "caf")),
    (b".snd", MediaType("au", "audio", "au")),
    (AMR_MAGIC, MediaType("amr", "audio", "amr")),
    (ASF_MAGIC, MediaType("wma", "audio", "asf")),
)
_RIFF = {
    b"WEBP": MediaType("webp", "image"),
    b"WAVE": MediaType("wav", "audio", "wav"),
    b"AVI ": MediaType("avi", "video", "avi"),
}
_EBML = {
    b"matroska": MediaType("matroska", "video", "matroska"),
    b"webm": MediaType("webm", "video", "matroska"),
}
_REFUSED = (  # known, and not on the list: the message says so
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II+\x00", "BigTIFF"),
    (b"MM\x00+", "BigTIFF"),
    (b"8BPS", "PSD"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"%!PS", "PostScript"),
    (b"%PDF", "PDF"),
    (b"FLV\x01", "FLV"),
    (b"\x00\x00\x01\xba", "MPEG program stream"),
    (b"MThd", "MIDI"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)
_REFUSED_TEXTS = (
    (b"#extm3u", "an HLS playlist"),
    (b"<mpd", "a DASH manifest"),
    (b"ffconcat", "an FFmpeg playlist"),
    (b"v=0", "a session description (SDP)"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML, such as SVG or a DASH manifest"),
    (b"{", "JSON"),
)


def sniff(data: bytes) -> MediaType:
    """The kind of the bytes: image, or container with FFmpeg's demuxer. A container counts as video, Ogg as audio.

    Raises:
        CorruptMedia: there are no bytes, or fewer than a tag before them claims.
        UnsupportedFormat: a format that is not on the list, a text, a playlist, or nothing known.
    """
    if not data:
        raise CorruptMedia("the body is empty: 0 bytes were received")
    kind = _by_magic(data) or _by_box(data) or _by_structure(data)
    if kind is None:
        raise UnsupportedFormat(f"{_name(data)} is not supported; send one of {SUPPORTED}")
    return kind


def _by_magic(data: bytes) -> MediaType | None:
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data.startswith((b"RIFF", b"RF64")):
        return _RIFF.get(data[8:12])
    if data.startswith(b"FORM") and data[8:12] in (b"AIFF", b"AIFC"):
        return MediaType("aiff", "audio", "aiff")
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return _EBML.get(_doc_type(data))
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return MediaType("bmp", "image")
    return None


def _doc_type(data: bytes) -> bytes:
    """The DocType of an EBML header, ``b""`` where there is none."""
    at = data.find(b"\x42\x82", 0, _EBML_BYTES)
    if at < 0 or at + 3 > len(data) or not data[at + 2]:
        return b""
    width = 9 - data[at + 2].bit_length()
    size = int.from_bytes(data[at + 2 : at + 2 + width], "big") & ((1 << 7 * width) - 1)
    return data[at + 2 + width : at + 2 + width + min(size, 64)].rstrip(b"\x00")


def _by_box(data: bytes) -> MediaType | None:
    """ISO base media and QuickTime: the first box, and the brands that it names."""
    size, kind = int.from_bytes(data[:4], "big"), data[4:8]
    if kind in _BOX_TYPES and (size in (0, 1) or size >= 8):
        return MediaType("mov", "video", "mov")
    if kind != b"ftyp" or size < 16:
        return None
    major = data[8:12]
    brands = {major} | {data[at : at + 4] for at in range(16, min(size, 16 + 4 * _MAX_BRANDS), 4)}
    if major in _AVIF_BRANDS or (major in _HEIF_BRANDS and brands & _AVIF_BRANDS):
        return MediaType("avif", "image")
    if major in _HEIF_BRANDS and brands & _HEIC_BRANDS:
        return MediaType("heic", "image")
    if major in _HEIF_BRANDS:
        raise UnsupportedFormat("this HEIF holds neither HEVC nor AV1 pictures: send HEIC, AVIF or JPEG")
    if major in _AUDIO_BRANDS:
        return MediaType("m4a", "audio", "mov")
    return MediaType("mov" if major == b"qt  " else "mp4", "video", "mov")


def _by_structure(data: bytes) -> MediaType | None:
    """Formats without a magic number: two headers in the right distance are asked for."""
    if is_transport_stream(data):
        return MediaType("mpegts", "video", "mpegts")
    if (kind := elementary_kind(data)) is not None:
        return kind
    if form := ac3_format(data):
        return MediaType(form, "audio", form)
    start = skip_tags(data)
    if data.startswith(b"fLaC", start):
        return MediaType("flac", "audio", "flac")
    if is_adts(data, start):
        return MediaType("aac", "audio", "aac")
    if start > 0 or is_mpeg_audio(data, start):
        return MediaType("mp3", "audio", "mp3")
    return None


def _name(data: bytes) -> str:
    """What the bytes look like, for the message; never the bytes themselves."""
    for magic, name in _REFUSED:
        if data.startswith(magic):
            return name
    text = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, name in _REFUSED_TEXTS:
        if text.startswith(beginning):
            return name
    if text and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return "text"
    return f"a file of {len(data)} bytes whose format is not known"
