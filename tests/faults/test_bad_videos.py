"""Clips that are damaged, lie or attack: each ends soon, with the code that names what was wrong, and no lease stays."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gpuflow.codecs._backends.pyav_demux import open_options
from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe.boxes import movie_claims
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.source import PacketSource
from gpuflow.codecs.videos import cpu_decoder
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import CorruptMedia, DeadlineExceeded, GpuflowError, LimitExceeded, NoSuchStream, UnsupportedFormat
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.video import load_video
from gpuflow.isolation.pool import DecoderPool
from gpuflow.isolation.remote import Isolated
from gpuflow.media import Blob
from gpuflow.memory import Slab
from gpuflow.workers import worker_pool
from tests.flow.clips import FORMATS, barcode, make_clip
from tests.flow.edge_clips import mux, packets_of, replaced
from tests.flow.elementary import Kept

SECONDS = 5.0  # each takes far less; on a loaded machine too
MIB = 1 << 20


def load(data: bytes, context: LoadContext, container: str = "mp4", options: VideoOptions | None = None) -> int:
    """How many frames came; the time and the memory that it took are checked."""
    kind = MediaType(container, "video", FORMATS[container])
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with load_video(Blob(data, "hash"), kind, options or VideoOptions(), context) as frames:
            return len(frames)
    finally:
        assert time.perf_counter() - started < SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def open_source(data: bytes) -> PacketSource:
    return PacketSource.open(data, MediaType("mp4", "video", "mov"), limits=Limits(), deadline=Deadline(30.0))


def status(data: bytes, context: LoadContext, container: str = "mp4") -> int:
    """What a server would answer."""
    try:
        load(data, context, container)
    except GpuflowError as error:
        return error.http_status
    return 200


def edited(entries: int) -> bytes:
    """A clip whose edit list has so many entries, each of one frame."""
    body = struct.pack(">II", 0, entries) + struct.pack(">IiI", 33, 0, 0x10000) * entries
    return replaced(make_clip(num_frames=12), b"elst", lambda _: body)


def test_a_clip_cut_at_every_tenth_gives_frames_or_a_refusal(context: LoadContext) -> None:
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    for container, muxing in (("mp4", None), ("mp4", fragmented), ("matroska", None), ("mpegts", None), ("avi", None)):
        whole = make_clip(container=container, muxing=muxing)
        for tenth in range(1, 10):
            with contextlib.suppress(CorruptMedia, NoSuchStream):
                assert load(whole[: len(whole) * tenth // 10], context, container) >= 1


def test_a_missing_frame_is_named_by_number_and_the_rest_is_still_served(context: LoadContext) -> None:
    whole = make_clip(muxing={"movflags": "frag_keyframe+empty_moov"})
    cut = whole[: len(whole) * 9 // 10]
    with pytest.raises(CorruptMedia, match="31 of 32 wanted frames were decoded"):
        load(cut, context, options=VideoOptions(num_frames=32, strict=True))
    assert load(cut, context) == 31
    assert load(cut, context, options=VideoOptions(indices=(0, 20, 40))) == 3


def damaged_in_the_middle() -> bytes:
    """Three packets of the middle are noise; the keyframes around them are not."""
    random = np.random.default_rng(3)

    def change(number: int, packet: Any) -> None:
        if number in (22, 23, 24):
            payload = bytes(packet)
            packet.update(payload[:4] + random.integers(0, 256, len(payload) - 4, np.uint8).tobytes())

    return mux(packets_of(make_clip(gop=10, bframes=0)), change=change)


def test_of_a_damaged_clip_what_can_be_decoded_comes_out_and_the_rest_is_named(context: LoadContext) -> None:
    data = make_clip(muxing={"movflags": "frag_keyframe+empty_moov"})
    data = data[: len(data) * 9 // 10]
    whole = open_source(data)
    wanted = range(whole.info.num_frames)
    kept = Kept(whole.info)
    plan = whole.plan(wanted, limits=Limits())
    with worker_pool(2, "gpuflow-segment") as pool:
        missing = decode_frames(
            whole.demuxed, whole.info, plan, kept, decoder=cpu_decoder, deadline=context.deadline, pool=pool
        )
    assert 0 < len(missing) < 5
    assert sorted([*kept.frames, *missing]) == list(wanted)
    assert all(barcode(frame) == index for index, frame in kept.frames.items())
    with pytest.raises(CorruptMedia, match=f"damaged: {missing[0]}"):
        load(data, context, options=VideoOptions(indices=tuple(wanted), strict=True))


@pytest.mark.parametrize("slots", [False, True], ids=["to its place", "through slots"])
def test_a_worker_names_the_missing_frames_too(slots: bool, context: LoadContext) -> None:
    data = make_clip(muxing={"movflags": "frag_keyframe+empty_moov"})
    data = data[: len(data) * 9 // 10]
    indices, size = (0, 20, 52), 64 if slots else None
    strict, lenient = (VideoOptions(indices=indices, size=size, strict=strict) for strict in (True, False))
    with Slab("16MiB", shared=True) as slab:
        with DecoderPool(slab, workers=1) as pool:
            context.slab = context.host_slab = slab
            context.decoding = Isolated(pool, slab)
            kind = MediaType("mp4", "video", "mov")
            for _ in range(2):  # the worker is fine afterwards, and the same
                with pytest.raises(CorruptMedia, match="2 of 3 wanted frames were decoded; damaged: 52"):
                    load_video(Blob(data, "hash"), kind, strict, context)
                with load_video(Blob(data, "hash"), kind, lenient, context) as frames:
                    assert (frames.metadata.frame_indices, frames.metadata.missing_indices) == ((0, 20), (52,))
                with load_video(Blob(make_clip(), "hash"), kind, strict, context) as frames:
                    assert len(frames) == 3
            assert "gpuflow_decode_workers_crashed_total" not in pool.counters.snapshot()
        assert slab.statistics().live_leases == 0


def test_packets_of_noise_spoil_no_other_group(context: LoadContext) -> None:
    data, clean = damaged_in_the_middle(), make_clip(gop=10, bframes=0)
    kept = {}
    for name, clip in (("damaged", data), ("clean", clean)):
        source = open_source(clip)
        kept[name] = Kept(source.info)
        plan = source.plan(range(60), limits=Limits())
        decode_frames(source.demuxed, source.info, plan, kept[name], decoder=cpu_decoder, deadline=context.deadline)
    for index in (*range(20), *range(30, 60)):
        np.testing.assert_array_equal(kept["damaged"].frames[index], kept["clean"].frames[index])


def test_flipped_bits_end_in_frames_or_a_refusal_and_the_next_clip_is_fine(context: LoadContext) -> None:
    random = np.random.default_rng(11)
    for codec, container in (("libx264", "mp4"), ("libx265", "mp4"), ("libvpx-vp9", "webm"), ("libsvtav1", "matroska"),
                             ("libvpx", "ivf"), ("libx264", "h264"), ("libsvtav1", "obu"), ("mpeg4", "avi")):  # fmt: skip
        whole = make_clip(codec, 30, container=container)
        for _ in range(6):
            flipped = bytearray(whole)
            for place in random.integers(0, 8 * len(whole), 6):
                flipped[place >> 3] ^= 1 << (place & 7)
            assert status(bytes(flipped), context, container) in {200, 415, 422}
        assert load(whole, context, container) == 30


def test_damage_in_the_middle_ends_in_frames_or_a_refusal(context: LoadContext) -> None:
    random = np.random.default_rng(5)
    for container in ("mp4", "matroska", "mpegts"):
        whole = make_clip(container=container)
        for _ in range(12):
            damaged = bytearray(whole)
            for place in random.integers(0, len(whole), 8):
                damaged[place] = int(random.integers(0, 256))
            assert status(bytes(damaged), context, container) in {200, 415, 422}


def test_sound_alone_has_no_video_stream(context: LoadContext) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with pytest.raises(NoSuchStream, match="no video stream"):
        load(buffer.getvalue(), context)


def test_four_letters_of_a_codec_that_are_no_letters_change_nothing(context: LoadContext) -> None:
    """Found by fuzzing: PyAV's property raises where they are not ASCII."""
    clip = make_clip("mpeg4", num_frames=12)
    assert b"mp4v" in clip
    assert load(clip.replace(b"mp4v", b"mp\xf4v"), context) == load(clip, context) == 12


def test_no_rate_is_none_and_sampling_by_rate_still_works(context: LoadContext) -> None:
    for rate, scale in ((0, 1), (0, 0), (1, 0)):
        avi = bytearray(make_clip("mjpeg", 12, container="avi", pixel_format="yuvj420p"))
        struct.pack_into("<II", avi, avi.index(b"strh") + 8 + 20, scale, rate)
        assert load(bytes(avi), context, "avi", VideoOptions(fps=2.0)) >= 1
        assert load(bytes(avi), context, "avi") == 12
    ivf = bytearray(make_clip("libvpx", 12, container="ivf"))
    struct.pack_into("<II", ivf, 16, 0, 0)
    with pytest.raises(CorruptMedia, match="time base of 0/0"):
        load(bytes(ivf), context, "ivf")


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


def test_one_frame_is_a_clip(context: LoadContext) -> None:
    assert load(make_clip(num_frames=1), context) == 1


def test_nothing_and_noise_are_corrupt(context: LoadContext) -> None:
    for data in (b"", b"\0" * 1000, bytes(range(256)) * 8):
        for container in ("mp4", "matroska", "mpegts", "avi"):
            with pytest.raises((CorruptMedia, NoSuchStream)):
                load(data, context, container)


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


@pytest.mark.parametrize(
    "text",
    [
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '/etc/hostname'\n",
    ],
    ids=["sdp", "hls", "concat"],
)
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi"])
def test_playlists_in_the_bytes_open_nothing(text: str, container: str, context: LoadContext) -> None:
    with pytest.raises((CorruptMedia, NoSuchStream)):
        load(text.encode(), context, container)


def test_a_codec_that_is_not_on_the_list_is_named(context: LoadContext) -> None:
    with pytest.raises(UnsupportedFormat, match="codec mpeg2video is not supported: convert it to one of av1, h264"):
        load(make_clip("mpeg2video", num_frames=4), context)
    unknown = make_clip(num_frames=4).replace(b"avc1", b"zzzz")
    with pytest.raises(UnsupportedFormat, match="codec zzzz is not known to FFmpeg: convert it"):
        load(unknown, context)


def test_the_deadline_ends_decoding_and_frees_the_result(context: LoadContext) -> None:
    clip = make_clip(num_frames=60)
    context.deadline = Deadline(30.0)
    context.deadline.cancel()
    with pytest.raises(DeadlineExceeded):
        load(clip, context)


def test_a_packet_of_a_stream_that_no_table_names_is_corrupt_media_or_left_out(context: LoadContext) -> None:
    """PyAV looks for it behind the list of streams that it made before: what lies there decides between the two."""
    clip = bytearray(make_clip("mpeg4", num_frames=12, container="mpegts"))
    starts = [at for at in range(0, len(clip), 188) if clip[at + 1] & 0x5F == 0x41 and clip[at + 2] == 0]
    clip[starts[-4] + 2] = 0x80
    try:
        assert 8 <= load(bytes(clip), context, "mpegts") <= 12
    except CorruptMedia as error:
        assert "no table names" in str(error)  # noqa: PT017 - either of the two


def test_times_that_jump_by_years_are_refused(context: LoadContext) -> None:
    clip = make_clip(num_frames=3, times=[0, 1, 10**9], time_base=Fraction(1, 1000), container="matroska")
    with pytest.raises(LimitExceeded, match="max_video_seconds"):
        load(clip, context, "matroska")
