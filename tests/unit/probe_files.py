"""Valid files of every format, made by real encoders and muxers in many settings: what the scan must let through."""

from __future__ import annotations

import functools
import io
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
import torchvision
from PIL import Image as Picture

from tests.flow.audio_files import Samples, chirp, noise, with_ffmpeg, with_soundfile
from tests.flow.clips import make_clip, picture
from tests.unit.image_files import HEIC, animation, encoded, png, scene, turned, with_alpha
from tests.unit.tiff_files import page, tiff

Make = Callable[[], bytes]
FRAMES = 12


class Pipe(io.RawIOBase):
    """A file that cannot be sought: what is written first stays, as in a live recording."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Append."""
        self.written += data
        return len(data)


def piped(container: str, codec: str = "mpeg4", *, sound: bool = False, muxing: dict[str, str] | None = None) -> bytes:
    """A short clip, or one second of sound, whose muxer cannot go back to write lengths."""
    pipe = Pipe()
    with av.open(pipe, "w", format=container, options=muxing or {}) as output:
        if sound:
            stream: Any = output.add_stream(codec, rate=48_000, layout="stereo")
            frame = av.AudioFrame.from_ndarray(chirp(1.0, 48_000, 2), format="fltp", layout="stereo")
            frame.sample_rate = 48_000
            frames = [frame]
        else:
            stream = output.add_stream(codec, rate=30)
            stream.width, stream.height = 160, 96
            frames = [av.VideoFrame.from_ndarray(picture(n), format="rgb24") for n in range(FRAMES)]
        for item in (*frames, None):
            output.mux(stream.encode(item))
    return bytes(pipe.written)


def filed(container: str, muxing: dict[str, str]) -> bytes:
    """A short clip by a muxer that reads its own output again to move an index to the front."""
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container, options=muxing) as output:
            stream: Any = output.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            stream.codec_context.thread_count = 1
            for item in (*(av.VideoFrame.from_ndarray(picture(n), format="rgb24") for n in range(FRAMES)), None):
                output.mux(stream.encode(item))
        return Path(file.name).read_bytes()


def remuxed(data: bytes, demuxer: str, muxer: str, muxing: dict[str, str] | None = None) -> bytes:
    """The same packets in another container."""
    out = io.BytesIO()
    with (
        av.open(io.BytesIO(data), format=demuxer) as source,
        av.open(out, "w", format=muxer, options=muxing or {}) as to,
    ):
        stream = to.add_stream_from_template(source.streams[0])
        for packet in source.demux(source.streams[0]):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
    return out.getvalue()


def with_two_sounds(container: str, codec: str) -> bytes:
    """Pictures and two tracks of sound, titled and tagged."""
    out = io.BytesIO()
    with av.open(out, "w", format=container, options={}) as output:
        output.metadata.update(title="a clip", artist="nobody", comment="x" * 5_000)
        video: Any = output.add_stream("mpeg4", rate=30)
        video.width, video.height = 160, 96
        sounds: list[Any] = [output.add_stream(codec, rate=48_000, layout="stereo") for _ in range(2)]
        for item in (*(av.VideoFrame.from_ndarray(picture(n), format="rgb24") for n in range(FRAMES)), None):
            output.mux(video.encode(item))
        for stream in sounds:
            frame = av.AudioFrame.from_ndarray(chirp(0.4, 48_000, 2), format="fltp", layout="stereo")
            frame.sample_rate = 48_000
            for item in (frame, None):
                output.mux(stream.encode(item))
    return out.getvalue()


def _soundfile(rate: int, channels: int, file_format: str, subtype: str, seconds: float = 0.5) -> bytes:
    return with_soundfile(chirp(seconds, rate, channels), rate, file_format, subtype)


def mp3(mode: str, level: float, channels: int = 2, rate: int = 44_100, seconds: float = 1.0) -> bytes:
    """By LAME within libsndfile."""
    out = io.BytesIO()
    with soundfile.SoundFile(
        out, "w", rate, channels, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode, compression_level=level
    ) as file:
        file.write(chirp(seconds, rate, channels).T)
    return out.getvalue()


def _muxed_sound(muxer: str, codec: str, muxing: dict[str, str], tags: dict[str, str]) -> bytes:
    out = io.BytesIO()
    samples: Samples = chirp(1.0, 48_000, 2)
    with av.open(out, "w", format=muxer, options=muxing) as output:
        output.metadata.update(tags)
        stream: Any = output.add_stream(codec, rate=48_000, layout="stereo")
        if codec.startswith("wma"):  # whose encoder has no default
            stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        for item in (frame, None):
            output.mux(stream.encode(item))
    return out.getvalue()


def _tagged(data: bytes, size: int) -> bytes:
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + length + bytes(size) + data


def _clips() -> dict[str, Make]:
    clip = functools.partial(make_clip, num_frames=FRAMES)
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    files: dict[str, Make] = {
        "mp4 h264": clip,
        "mp4 h264 without B-frames": lambda: clip(bframes=0),
        "mp4 h264 faststart": lambda: filed("mp4", {"movflags": "faststart"}),
        "mp4 h264 fragmented": lambda: clip(muxing=fragmented),
        "mp4 h264 fragmented by frame": lambda: clip(
            muxing={"movflags": "frag_every_frame+empty_moov+default_base_moof"}
        ),
        "mp4 h264 cmaf": lambda: clip(muxing={"movflags": "cmaf+frag_keyframe"}),
        "mp4 h264 with dash index": lambda: filed("mp4", {"movflags": "dash+frag_keyframe+global_sidx"}),
        "mp4 h264 with negative times": lambda: clip(muxing={"movflags": "negative_cts_offsets"}),
        "mp4 h264 without edit list": lambda: clip(muxing={"use_editlist": "0"}),
        "mp4 h264 without time of creation": lambda: clip(muxing={"movflags": "use_metadata_tags+write_colr"}),
        "mp4 h264 turned": lambda: clip(rotation=90),
        "mp4 h264 of one frame": lambda: make_clip(num_frames=1),
        "mp4 h264 of 1000 frames": lambda: make_clip(num_frames=1_000, size=(64, 48), options={"preset": "ultrafast"}),
        "mp4 h264 10 bits": lambda: clip(pixel_format="yuv420p10le"),
        "mp4 hevc": lambda: clip("libx265"),
        "mp4 av1": lambda: clip("libsvtav1"),
        "mp4 vp9": lambda: clip("libvpx-vp9"),
        "mp4 mpeg4": lambda: clip("mpeg4"),
        "mov h264": lambda: clip(container="mov"),
        "mov h264 faststart": lambda: filed("mov", {"movflags": "faststart"}),
        "mov mjpeg": lambda: clip("mjpeg", container="mov", pixel_format="yuvj420p"),
        "mov fragmented": lambda: clip(container="mov", muxing=fragmented),
        "3gp": lambda: clip(container="3gp"),
        "matroska h264": lambda: clip(container="matroska"),
        "matroska hevc": lambda: clip("libx265", container="matroska"),
        "matroska mjpeg": lambda: clip("mjpeg", container="matroska", pixel_format="yuvj420p"),
        "matroska cues in front": lambda: filed("matroska", {"cues_to_front": "1"}),
        "matroska room for cues": lambda: clip(container="matroska", muxing={"reserve_index_space": "1000"}),
        "matroska small clusters": lambda: clip(container="matroska", muxing={"cluster_time_limit": "50"}),
        "matroska without checksums": lambda: clip(container="matroska", muxing={"write_crc32": "0"}),
        "matroska live": lambda: clip(container="matroska", muxing={"live": "1"}),
        "matroska piped": lambda: piped("matroska"),
        "webm vp8": lambda: clip("libvpx", container="webm"),
        "webm vp9": lambda: clip("libvpx-vp9", container="webm"),
        "webm av1": lambda: clip("libsvtav1", container="webm"),
        "webm live": lambda: clip("libvpx", container="webm", muxing={"live": "1"}),
        "webm piped": lambda: piped("webm", "libvpx"),
        "webm dash": lambda: clip("libvpx-vp9", container="webm", muxing={"dash": "1"}),
        "avi mpeg4": lambda: clip("mpeg4", container="avi"),
        "avi mjpeg": lambda: clip("mjpeg", container="avi", pixel_format="yuvj420p"),
        "avi h264": lambda: clip(container="avi"),
        "avi piped": lambda: piped("avi"),
        "avi room for an index": lambda: clip("mpeg4", container="avi", muxing={"reserve_index_space": "4096"}),
        "ts h264": lambda: clip(container="mpegts"),
        "ts hevc": lambda: clip("libx265", container="mpegts"),
        "ts mpeg4": lambda: clip("mpeg4", container="mpegts"),
        "ts m2ts": lambda: clip(container="mpegts", muxing={"mpegts_m2ts_mode": "1"}),
        "ts tables seldom": lambda: clip(container="mpegts", muxing={"pat_period": "10", "sdt_period": "10"}),
        "ts piped": lambda: piped("mpegts"),
    }
    for container, codec in (
        ("mp4", "aac"),
        ("mov", "aac"),
        ("matroska", "aac"),
        ("avi", "libmp3lame"),
        ("mpegts", "aac"),
    ):
        files[f"{container} two sounds"] = functools.partial(with_two_sounds, container, codec)
    for container, codec in (
        ("mp4", "libmp3lame"), ("mp4", "libopus"), ("mp4", "flac"), ("mp4", "ac3"), ("mov", "pcm_s16le"), ("mov", "pcm_f32le"),
        ("mov", "alac"), ("matroska", "pcm_s16le"), ("matroska", "flac"), ("matroska", "ac3"),
        ("avi", "pcm_s16le"), ("avi", "aac"), ("mpegts", "libmp3lame"), ("mpegts", "ac3"),
    ):  # fmt: skip
        for channels in (1, 2):
            files[f"{container} {codec} {channels}"] = functools.partial(
                with_ffmpeg, chirp(0.5, 48_000, channels), 48_000, container, codec, video=True
            )
    return files


def _sounds() -> dict[str, Make]:
    files: dict[str, Make] = {}
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"):
        for form, channels in itertools.product(("WAV", "WAVEX", "RF64"), (1, 2)):
            if form == "WAV" or "ADPCM" not in subtype:
                files[f"{form.lower()} {subtype} {channels}"] = functools.partial(
                    _soundfile, 16_000, channels, form, subtype
                )
    for rate, channels in itertools.product((8_000, 44_100, 192_000), (1, 6, 8)):
        files[f"wav {rate} x {channels}"] = functools.partial(_soundfile, rate, channels, "WAV", "PCM_16", 0.1)
        files[f"flac {rate} x {channels}"] = functools.partial(_soundfile, rate, channels, "FLAC", "PCM_16", 0.1)
    for rate, channels, subtype in itertools.product((8_000, 48_000), (1, 2), ("VORBIS", "OPUS", "PCM_16")):
        form = "FLAC" if subtype == "PCM_16" else "OGG"
        files[f"{form.lower()} {subtype} {rate} x {channels}"] = functools.partial(
            _soundfile, rate, channels, form, subtype
        )
    for mode, level, channels, rate in itertools.product(
        ("CONSTANT", "VARIABLE", "AVERAGE"), (0.2, 0.8), (1, 2), (16_000, 44_100)
    ):
        files[f"mp3 {mode} {level} {channels} {rate}"] = functools.partial(mp3, mode, level, channels, rate)
    settings: tuple[tuple[str, str, dict[str, str], dict[str, str]], ...] = (
        ("mp3", "libmp3lame", {}, {"title": "x" * 3_000}),
        ("mp3", "libmp3lame", {"id3v2_version": "3", "write_id3v1": "1"}, {"title": "a"}),
        ("mp3", "libmp3lame", {"id3v2_version": "0"}, {}),
        ("mp3", "libmp3lame", {"write_xing": "0"}, {}),
        ("mp2", "mp2", {}, {}),
        ("flac", "flac", {}, {"title": "a"}),
        ("ogg", "libopus", {"page_duration": "20000"}, {}),
        ("ogg", "libopus", {}, {"title": "x" * 100_000}),
        ("ogg", "libspeex", {}, {}),
        ("ipod", "aac", {}, {"title": "a"}),
        ("ipod", "alac", {}, {}),
        ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}, {}),
        ("adts", "aac", {}, {}),
        ("adts", "aac", {"write_id3v2": "1"}, {"title": "a"}),
        ("matroska", "libopus", {}, {"title": "a"}),
        ("webm", "libopus", {}, {}),
        ("mpegts", "aac", {}, {}),
        ("mpegts", "libopus", {}, {}),
        ("wav", "pcm_s16le", {"rf64": "always"}, {}),
        ("wav", "pcm_s24le", {"rf64": "auto"}, {"title": "a"}),
        ("wav", "adpcm_ima_wav", {}, {}),
        ("wav", "pcm_f32le", {"write_bext": "1"}, {"description": "a"}),
        ("avi", "pcm_s16le", {}, {}),
        ("aiff", "pcm_s16be", {}, {}),
        ("au", "pcm_s16be", {}, {"title": "a"}),
        ("ac3", "ac3", {}, {}),
        ("eac3", "eac3", {}, {}),
        ("asf", "wmav2", {}, {"title": "x" * 3_000}),
        ("asf", "wmav1", {}, {}),
    )  # fmt: skip
    for muxer, codec, muxing, tags in settings:
        if codec != "libspeex" or codec in av.codecs_available:
            files[f"{muxer} {codec} {' '.join(muxing)} {' '.join(tags)}"] = functools.partial(
                _muxed_sound, muxer, codec, muxing, tags
            )
    for muxer, codec in (
        ("wav", "pcm_s16le"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
        ("ogg", "libopus"),
        ("adts", "aac"),
    ):
        files[f"{muxer} {codec} piped"] = functools.partial(piped, muxer, codec, sound=True)
    vorbis, flac = _soundfile(48_000, 2, "OGG", "VORBIS"), _soundfile(48_000, 2, "FLAC", "PCM_16")
    for muxer, muxing in (("matroska", {}), ("webm", {}), ("webm", {"live": "1"}), ("ogg", {"serial_offset": "5"})):
        files[f"{muxer} vorbis {' '.join(muxing)}"] = functools.partial(remuxed, vorbis, "ogg", muxer, muxing)
    for muxer in ("ogg", "matroska", "mp4"):
        files[f"{muxer} flac remuxed"] = functools.partial(remuxed, flac, "flac", muxer)
    files["flac behind a tag"] = lambda: _tagged(_soundfile(16_000, 1, "FLAC", "PCM_16"), 300)
    files["mp3 behind a tag"] = lambda: _tagged(mp3("CONSTANT", 0.5), 70_000)
    files["aac behind a tag"] = lambda: _tagged(_muxed_sound("adts", "aac", {}, {}), 2_000)
    for form, subtype in (
        ("AIFF", "PCM_S8"), ("AIFF", "PCM_24"), ("AIFF", "FLOAT"), ("AIFF", "ULAW"), ("AIFF", "IMA_ADPCM"), ("AU", "PCM_24"),
        ("AU", "ALAW"), ("AU", "DOUBLE"), ("CAF", "PCM_16"), ("CAF", "PCM_24"), ("CAF", "FLOAT"), ("CAF", "ULAW"),
    ):  # fmt: skip
        files[f"{form.lower()} {subtype}"] = functools.partial(_soundfile, 44_100, 2, form, subtype)
    for codec, rate, bit_rate in (("ac3", 32_000, 192_000), ("eac3", 44_100, 448_000)):
        files[f"{codec} 5.1"] = functools.partial(
            with_ffmpeg, chirp(0.5, rate, 6), rate, codec, codec, bit_rate=bit_rate
        )
    files["amr 8000"] = lambda: with_ffmpeg(noise(1.0, 8_000), 8_000, "amr", "libopencore_amrnb", bit_rate=12_200)
    files["aac 5.1"] = lambda: with_ffmpeg(chirp(0.5, 48_000, 6), 48_000, "adts", "aac")
    return files


def _images() -> dict[str, Make]:
    gray = Picture.fromarray(scene()).convert("L")
    palette = Picture.fromarray(scene()).quantize(16)
    pixels = torch.from_numpy(scene()).permute(2, 0, 1).contiguous()

    def torch_encoded(encode: Callable[..., Any], level: int) -> bytes:
        return bytes(encode(pixels, level).numpy().tobytes())

    files: dict[str, Make] = {
        "jpeg gray": lambda: encoded(gray, "JPEG"),
        "jpeg cmyk": lambda: encoded(Picture.fromarray(scene()).convert("CMYK"), "JPEG"),
        "jpeg with thumbnail": lambda: encoded(scene(), "JPEG", exif=b"Exif\0\0" + encoded(scene(24, 32), "JPEG")),
        "jpeg restarts": lambda: encoded(scene(), "JPEG", restart_marker_rows=1),
        "jpeg flat of 24 megapixels": lambda: encoded(np.full((4_000, 6_000), 200, np.uint8), "JPEG", quality=10),
        "jpeg flat progressive": lambda: encoded(
            np.full((2_000, 2_500), 9, np.uint8), "JPEG", quality=20, progressive=True
        ),
        "png gray": lambda: encoded(gray, "PNG"),
        "png 1 bit": lambda: encoded(gray.convert("1"), "PNG"),
        "png 16 bits": lambda: png(np.arange(60, dtype=np.uint16).reshape(4, 5, 3), 2, depth=16),
        "png palette": lambda: encoded(palette, "PNG"),
        "png palette, transparent": lambda: encoded(palette, "PNG", transparency=2),
        "png optimised": lambda: encoded(scene(), "PNG", optimize=True),
        "png animated": lambda: animation("PNG", 6),
        "png alpha": lambda: encoded(with_alpha(), "PNG"),
        "webp lossless": lambda: encoded(scene(), "WEBP", lossless=True),
        "webp alpha": lambda: encoded(with_alpha(), "WEBP"),
        "webp lossless alpha": lambda: encoded(with_alpha(), "WEBP", lossless=True),
        "webp animated": lambda: animation("WEBP", 6),
        "webp exif": lambda: turned("WEBP", 6),
        "gif": lambda: encoded(palette, "GIF"),
        "gif interlaced": lambda: encoded(palette, "GIF", interlace=1),
        "gif animated": lambda: animation("GIF", 20),
        "bmp": lambda: encoded(scene(), "BMP"),
        "bmp gray": lambda: encoded(gray, "BMP"),
        "bmp 1 bit": lambda: encoded(gray.convert("1"), "BMP"),
        "bmp palette": lambda: encoded(palette, "BMP"),
        "bmp alpha": lambda: encoded(with_alpha(), "BMP"),
        "bmp odd width": lambda: encoded(scene(31, 37), "BMP"),
        "avif alpha": lambda: encoded(with_alpha(), "AVIF", speed=10),
        "avif animated": lambda: animation("AVIF", 5),
        "tiff": lambda: encoded(scene(), "TIFF"),
        "tiff alpha": lambda: encoded(with_alpha(), "TIFF"),
        "tiff palette": lambda: encoded(palette, "TIFF", compression="tiff_lzw"),
        "tiff cmyk": lambda: encoded(Picture.fromarray(scene()).convert("CMYK"), "TIFF", compression="packbits"),
        "tiff of three pages": lambda: tiff(*[page(scene(24 * n), 2, compression=8) for n in (1, 2, 3)]),
        "tiff big-endian": lambda: tiff(page(scene(), 2, order=">", rows=9), order=">"),
        "tiff in tiles": lambda: tiff(page(scene(), 2, tile=32, compression=8)),
    }
    for quality, sampling, progressive in itertools.product((20, 75, 95), (0, 1, 2), (False, True)):
        files[f"jpeg {quality} {sampling} {progressive}"] = functools.partial(
            encoded, scene(), "JPEG", quality=quality, subsampling=sampling, progressive=progressive, optimize=True
        )
    for quality in (10, 50, 90):
        files[f"webp {quality}"] = functools.partial(encoded, scene(), "WEBP", quality=quality)
        files[f"avif {quality}"] = functools.partial(encoded, scene(), "AVIF", quality=quality, speed=10)
        files[f"jpeg torchvision {quality}"] = functools.partial(torch_encoded, torchvision.io.encode_jpeg, quality)
        files[f"png torchvision {quality}"] = functools.partial(torch_encoded, torchvision.io.encode_png, quality // 10)
    for compression in ("tiff_adobe_deflate", "jpeg", "group3", "group4", "tiff_ccitt"):
        picture_of_it = gray if compression in ("tiff_adobe_deflate", "jpeg") else gray.convert("1")
        files[f"tiff {compression}"] = functools.partial(encoded, picture_of_it, "TIFF", compression=compression)
    for form, orientation in itertools.product(("JPEG", "PNG", "AVIF", "TIFF"), range(1, 9)):
        files[f"{form.lower()} turned {orientation}"] = functools.partial(turned, form, orientation)
    return files


CLIPS, SOUNDS, IMAGES = _clips(), _sounds(), _images()
FILES: dict[str, Make] = CLIPS | SOUNDS | IMAGES | {"heic": lambda: HEIC}


@functools.cache
def made(name: str) -> bytes:
    """The file of that name, encoded once."""
    return FILES[name]()
