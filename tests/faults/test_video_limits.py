"""Clips that claim or need too much: refused before it is allocated or decoded, or ended by the deadline."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gpuflow.codecs._backends.pyav_demux import open_options
from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe.boxes import movie_claims
from gpuflow.codecs.video.source import PacketSource
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import DeadlineExceeded, LimitExceeded, UnsupportedFormat
from gpuflow.flow.context import Deadline, LoadContext
from tests.faults.video_loads import load, status
from tests.flow.clips import FORMATS, make_clip
from tests.flow.edge_clips import mux, packets_of, replaced


def edited(entries: int) -> bytes:
    """A clip whose edit list has so many entries, each of one frame."""
    body = struct.pack(">II", 0, entries) + struct.pack(">IiI", 33, 0, 0x10000) * entries
    return replaced(make_clip(num_frames=12), b"elst", lambda _: body)


def test_a_billion_claimed_frames_are_counted_and_not_believed(context: LoadContext) -> None:
    avi = bytearray(make_clip("mjpeg", 12, container="avi", pixel_format="yuvj420p"))
    struct.pack_into("<I", avi, avi.index(b"avih") + 8 + 16, 1_000_000_000)
    struct.pack_into("<I", avi, avi.index(b"strh") + 8 + 32, 1_000_000_000)
    ivf = bytearray(make_clip("libvpx", 12, container="ivf"))
    struct.pack_into("<I", ivf, 24, 1_000_000_000)
    assert load(bytes(avi), context, "avi") == load(bytes(ivf), context, "ivf") == 12


def test_start_codes_without_end_are_refused_before_libavformat_counts_them(context: LoadContext) -> None:
    """Unchecked, 40,000 of them took 320 MiB."""
    more = b"\0\0\1\x0c\xff" * 40_000
    for codec, container in (("libx264", "h264"), ("libx265", "hevc")):
        with pytest.raises(LimitExceeded, match="begin no picture"):
            load(make_clip(codec, 4, container=container) + more, context, container)
    for container in ("mpegts", "avi"):
        with pytest.raises(LimitExceeded, match="begin no picture"):
            load(longer_first_packet(container, more), context, container)
    bare = longer_first_packet("mp4", more).replace(b"avcC", b"free")
    with pytest.raises(LimitExceeded, match="begin no picture"):
        load(bare, context)


def longer_first_packet(container: str, more: bytes) -> bytes:
    """A clip whose first packet goes on."""
    first, *rest = packets_of(make_clip(num_frames=4, bframes=0, container=container), container)
    longer = av.Packet(bytes(first) + more)
    longer.is_keyframe = True

    def change(number: int, packet: Any) -> None:
        packet.pts = packet.dts = number
        packet.time_base = Fraction(1, 30)

    return mux([longer, *rest], container, change=change, like=first.stream)


class Ends:
    """A deadline that passes so many checks."""

    def __init__(self, checks: float) -> None:
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise DeadlineExceeded("the time is over")


@pytest.mark.parametrize("container", ["mp4", "mpegts", "h264", "avi"])
def test_the_deadline_is_asked_while_the_file_is_read_opened_and_decoded_through(container: str) -> None:
    clip = make_clip(container=container, size=(320, 240), options={"qp": "8"})
    asked = Ends(1e9)
    kind = MediaType(container, "video", FORMATS[container])
    PacketSource.open(clip, kind, limits=Limits(), deadline=asked)
    total = int(1e9 - asked.left)
    assert total > len(clip) // 65_536
    for passed in {0, 1, total // 2, total - 1}:
        with pytest.raises(DeadlineExceeded):
            PacketSource.open(clip, kind, limits=Limits(), deadline=Ends(passed))


def test_frame_counts_and_rates_that_lie_are_not_believed(context: LoadContext) -> None:
    clip = make_clip(num_frames=12)
    for name in (b"mvhd", b"tkhd", b"mdhd"):  # durations
        at = clip.index(name)
        lying = clip[: at + 20] + b"\x7f\xff\xff\xff" + clip[at + 24 :]
        assert status(lying, context) in {200, 422}


def test_a_billion_claimed_samples_are_refused_before_they_are_allocated(context: LoadContext) -> None:
    clip = make_clip(num_frames=12)
    claims = {
        b"stsz": lambda body: struct.pack(">III", 0, 100, 1_000_000_000),
        b"stts": lambda body: struct.pack(">IIII", 0, 1, 50_000_000, 512),
        b"stsc": lambda body: struct.pack(">IIIII", 0, 1, 1, 50_000_000, 1),
        b"ctts": lambda body: struct.pack(">IIII", 0, 1, 50_000_000, 512),
    }
    for name, claim in claims.items():
        with pytest.raises(LimitExceeded, match="samples in a track"):
            load(replaced(clip, name, claim), context)


def test_a_fragment_that_claims_millions_of_samples_is_refused(context: LoadContext) -> None:
    clip = bytearray(make_clip(num_frames=12, muxing={"movflags": "frag_keyframe+empty_moov"}))
    struct.pack_into(">I", clip, clip.index(b"trun") + 8, 50_000_000)
    with pytest.raises(LimitExceeded, match="samples in fragments"):
        load(bytes(clip), context)


def test_samples_that_share_their_bytes_do_not_make_gigabytes_of_a_file(context: LoadContext) -> None:
    """10,000 samples that are each the whole of the file's media: 150 MB of packets of 270 KB."""
    clip, count = make_clip(num_frames=12, bframes=0), 10_000
    start, size = clip.index(b"mdat") + 4, struct.unpack_from(">I", clip, clip.index(b"mdat") - 4)[0] - 8
    tables = {
        b"stsz": struct.pack(">III", 0, size, count),
        b"stts": struct.pack(">IIII", 0, 1, count, 512),
        b"stsc": struct.pack(">IIIII", 0, 1, 1, 1, 1),
        b"stco": struct.pack(">II", 0, count) + struct.pack(">I", start) * count,
        b"elst": struct.pack(">IIIiI", 0, 1, 400_000, 0, 0x10000),
    }
    for name, body in tables.items():
        clip = replaced(clip, name, lambda _, body=body: body)  # type: ignore[misc]
    assert size * count > 100 * len(clip)
    with pytest.raises(LimitExceeded, match="packets have more than"):
        load(clip, context)


def test_to_learn_about_a_stream_no_picture_beyond_the_limit_is_decoded(context: LoadContext) -> None:
    """A transport stream does not say how large its pictures are: libavformat decodes one to find out."""
    clip = make_clip(num_frames=2, size=(8192, 8192), options={"preset": "ultrafast"}, container="mpegts", draw=_black)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
    before = _resident_kib("VmHWM")
    with pytest.raises(LimitExceeded, match="8192x8192"):
        load(clip, context, "mpegts")
    assert _resident_kib("VmHWM") - before < 64 * 1024


def _resident_kib(field: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0])


def test_to_learn_about_a_stream_no_decoder_that_is_not_listed_is_made() -> None:
    """Only a decoder knows the pixel format of these; libavformat asks one unless it may not."""
    for codec, container, pixel_format in (("cinepak", "avi", "rgb24"), ("mpeg2video", "mpegts", "yuv420p")):
        clip = make_clip(codec, num_frames=6, container=container, pixel_format=pixel_format, gop=12)
        kind = MediaType(container, "video", FORMATS[container])
        for options, known in (({}, pixel_format), (open_options(kind, Limits()), None)):
            with av.open(io.BytesIO(clip), format=kind.format, options=options) as opened:
                assert opened.streams.video[0].codec_context.pix_fmt == known


def test_twenty_thousand_edits_are_refused_and_a_thousand_are_not(context: LoadContext) -> None:
    with pytest.raises(LimitExceeded, match="20000 edits"):
        load(edited(20_000), context)
    movie_claims(edited(1_000), Limits())


def test_tables_hidden_in_a_sample_description_are_found() -> None:
    clip = make_clip(num_frames=2)
    hidden = struct.pack(">I4sIII", 20, b"stsz", 0, 1, 1_000_000_000)

    def add(body: bytes) -> bytes:
        size = struct.unpack_from(">I", body, 8)[0]
        return body[:8] + struct.pack(">I", size + len(hidden)) + body[12:] + hidden

    with pytest.raises(LimitExceeded, match="1000000000 samples"):
        movie_claims(replaced(clip, b"stsd", add), Limits())


def test_deep_and_countless_boxes_are_refused() -> None:
    nested = b""
    for _ in range(20):
        nested = struct.pack(">I4s", len(nested) + 8, b"udta") + nested
    with pytest.raises(LimitExceeded, match="levels of boxes"):
        movie_claims(nested, Limits())
    with pytest.raises(LimitExceeded, match="max_boxes"):
        movie_claims(struct.pack(">I4s", 8, b"skip") * 20_001, Limits())
    with pytest.raises(LimitExceeded, match="17 tracks"):
        movie_claims(struct.pack(">I4s", 8, b"trak") * 17, Limits())
    with pytest.raises(UnsupportedFormat, match="cmov"):
        movie_claims(struct.pack(">I4sI4s", 16, b"moov", 8, b"cmov"), Limits())


def test_pictures_beyond_the_limits_are_refused_before_one_is_decoded(context: LoadContext) -> None:
    clip = make_clip(num_frames=1, size=(8192, 8192), options={"preset": "ultrafast"}, bframes=0, draw=_black)
    with pytest.raises(LimitExceeded, match="8192x8192"):
        load(clip, context)


def _black(number: int, width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.zeros((height, width, 3), np.uint8)


def test_clips_that_are_too_long_or_need_too_much_decoding_are_refused(context: LoadContext) -> None:
    context.limits = Limits(max_video_seconds=3.0, max_decoded_frames=20)
    with pytest.raises(LimitExceeded, match="max_video_seconds"):
        load(make_clip(num_frames=3, times=[0, 30, 120]), context)
    with pytest.raises(LimitExceeded, match="max_decoded_frames"):
        load(make_clip(num_frames=60), context)
    assert load(make_clip(num_frames=60), context, options=VideoOptions(indices=(0, 30))) == 2
    with pytest.raises(LimitExceeded, match="max_decoded_frames"):
        load(make_clip(num_frames=60, container="avi"), context, "avi", VideoOptions(indices=(0,)))


def test_many_frames_in_few_bytes_decode_no_more_than_wanted(context: LoadContext) -> None:
    clip = make_clip(num_frames=3000, size=(64, 64), gop=30, bframes=0, draw=_black, options={"preset": "ultrafast"})
    assert load(clip, context, options=VideoOptions(num_frames=128)) == 128


def test_the_deadline_ends_decoding_and_frees_the_result(context: LoadContext) -> None:
    clip = make_clip(num_frames=60)
    context.deadline = Deadline(30.0)
    context.deadline.cancel()
    with pytest.raises(DeadlineExceeded):
        load(clip, context)


def test_times_that_jump_by_years_are_refused(context: LoadContext) -> None:
    clip = make_clip(num_frames=3, times=[0, 1, 10**9], time_base=Fraction(1, 1000), container="matroska")
    with pytest.raises(LimitExceeded, match="max_video_seconds"):
        load(clip, context, "matroska")
