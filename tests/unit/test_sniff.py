"""What bytes are, by their first bytes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe import sniff
from gpuflow.errors import CorruptMedia, UnsupportedFormat
from gpuflow.media import Modality
from tests.flow.clips import make_clip
from tests.unit.image_files import animation, encoded, scene

SOUND = ("aac", "libopus", "libmp3lame", "mp2", "ac3", "eac3", "wmav2", "libopencore_amrnb")
SILENCE = np.zeros((2, 8_000), np.float32)


def _sound(file_format: str, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, SILENCE.T, 16_000, format=file_format, subtype=subtype)
    return out.getvalue()


def _muxed(muxer: str, codec: str) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=muxer) as container:
        if codec in SOUND:
            rate, layout = (8_000, "mono") if codec == "libopencore_amrnb" else (48_000, "stereo")
            stream = container.add_stream(codec, rate=rate, layout=layout)
            stream.bit_rate = 12_200 if layout == "mono" else 96_000
            channels = 1 if layout == "mono" else 2
            frame = av.AudioFrame.from_ndarray(np.zeros((1, channels * 4_096), np.int16), format="s16", layout=layout)
            frame.sample_rate = rate
            packets = [*stream.encode(frame), *stream.encode(None)]
        else:
            video = container.add_stream(codec, rate=10)
            video.width, video.height = 64, 48
            pictures = [av.VideoFrame.from_ndarray(scene(), format="rgb24") for _ in range(8)]
            packets = [packet for picture in (*pictures, None) for packet in video.encode(picture)]
        for packet in packets:
            container.mux(packet)
    return out.getvalue()


FILES: dict[str, tuple[Callable[[], bytes], Modality, str]] = {
    "jpeg": (lambda: encoded(scene(), "JPEG"), "image", ""),
    "png": (lambda: encoded(scene(), "PNG"), "image", ""),
    "webp": (lambda: encoded(scene(), "WEBP"), "image", ""),
    "gif": (lambda: animation("GIF"), "image", ""),
    "bmp": (lambda: encoded(scene(), "BMP"), "image", ""),
    "avif": (lambda: encoded(scene(), "AVIF", speed=10), "image", ""),
    "mp4": (lambda: _muxed("mp4", "mpeg4"), "video", "mov"),
    "mov": (lambda: _muxed("mov", "mpeg4"), "video", "mov"),
    "matroska": (lambda: _muxed("matroska", "mpeg4"), "video", "matroska"),
    "webm": (lambda: _muxed("webm", "libopus"), "video", "matroska"),
    "avi": (lambda: _muxed("avi", "mpeg4"), "video", "avi"),
    "mpegts": (lambda: _muxed("mpegts", "mpeg4"), "video", "mpegts"),
    "ivf": (lambda: make_clip("libvpx", 2, container="ivf"), "video", "ivf"),
    "h264": (lambda: make_clip(num_frames=2, container="h264"), "video", "h264"),
    "hevc": (lambda: make_clip("libx265", 2, container="hevc"), "video", "hevc"),
    "obu": (lambda: make_clip("libsvtav1", 2, container="obu"), "video", "obu"),
    "wav": (lambda: _sound("WAV"), "audio", "wav"),
    "flac": (lambda: _sound("FLAC"), "audio", "flac"),
    "ogg": (lambda: _sound("OGG", "VORBIS"), "audio", "ogg"),
    "mp3": (lambda: _sound("MP3"), "audio", "mp3"),
    "aac": (lambda: _muxed("adts", "aac"), "audio", "aac"),
    "m4a": (lambda: _muxed("ipod", "aac"), "audio", "mov"),
    "aiff": (lambda: _sound("AIFF"), "audio", "aiff"),
    "au": (lambda: _sound("AU"), "audio", "au"),
    "caf": (lambda: _sound("CAF", "PCM_16"), "audio", "caf"),
    "ac3": (lambda: _muxed("ac3", "ac3"), "audio", "ac3"),
    "eac3": (lambda: _muxed("eac3", "eac3"), "audio", "eac3"),
    "amr": (lambda: _muxed("amr", "libopencore_amrnb"), "audio", "amr"),
    "wma": (lambda: _muxed("asf", "wmav2"), "audio", "asf"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_known_by_its_first_bytes(name: str) -> None:
    make, modality, demuxer = FILES[name]
    assert sniff(make()) == MediaType(name, modality, demuxer)


@pytest.mark.parametrize("name", [name for name, (_, modality, _) in FILES.items() if modality != "image"])
def test_the_demuxer_is_one_of_ffmpegs_names(name: str) -> None:
    import av

    make, _, demuxer = FILES[name]
    with av.open(io.BytesIO(make()), format=demuxer, options={"format_whitelist": demuxer}) as container:
        assert demuxer in container.format.name.split(",")


def test_mp3_is_known_with_and_without_a_tag_before_it() -> None:
    data = _sound("MP3")
    start = data.index(b"\xff\xfb") if data.startswith(b"ID3") else 0
    tagged = b"ID3\x04\x00\x00\x00\x00\x00\x14" + bytes(20) + data[start:]
    assert sniff(data[start:]).name == sniff(tagged).name == "mp3"
    assert sniff(_muxed("mp2", "mp2")).format == "mp3"


def test_a_tag_before_flac_and_aac_does_not_hide_them() -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)
    assert sniff(tag + _sound("FLAC")).name == "flac"
    assert sniff(tag + _muxed("adts", "aac")).name == "aac"


def test_a_quicktime_file_without_ftyp_is_mov() -> None:
    assert sniff(b"\x00\x00\x00\x08wide\x00\x00\x00\x10mdat").name == "mov"


def test_no_bytes_are_corrupt_media() -> None:
    with pytest.raises(CorruptMedia, match="empty"):
        sniff(b"")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf \n<html lang=en>", "HTML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><MPD/>", "XML"),
        (b"<MPD/>", "DASH"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "HLS"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n", "SDP"),
        (b"ffconcat version 1.0\nfile a.mp4\n", "FFmpeg playlist"),
        (b'{"error": "not found"}', "JSON"),
        (b"Not Found", "text"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51" + bytes(40), "JPEG 2000"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1a\x45\xdf\xa3\x84\x42\x82\x81x", "not known"),
        (b"RIFF\x00\x00\x00\x00CDXA", "not known"),
        (b"BM" + bytes(60), "not known"),
        (bytes(range(128, 256)), "not known"),
        (b"\xff\xfb", "not known"),
    ],
)
def test_what_is_not_on_the_list_is_named_and_refused(data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedFormat, match=named):
        sniff(data)


def test_a_single_sync_word_is_not_mp3() -> None:
    with pytest.raises(UnsupportedFormat):
        sniff(b"\xff\xfb\x90\x00" + bytes(2_000))


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_get_a_kind_or_one_of_two_errors(data: bytes) -> None:
    with contextlib.suppress(CorruptMedia, UnsupportedFormat):
        assert sniff(data).name in (*FILES, "tiff", "heic")
