"""Clips that are damaged or are none: what can be decoded comes out, the rest has a code, and no lease stays."""

from __future__ import annotations

import contextlib
import io
import struct
from typing import Any

import av
import numpy as np
import pytest

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.source import PacketSource
from gpuflow.codecs.videos import cpu_decoder
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import CorruptMedia, NoSuchStream, UnsupportedFormat
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.video import load_video
from gpuflow.isolation.pool import DecoderPool
from gpuflow.isolation.remote import Isolated
from gpuflow.media import Blob
from gpuflow.memory import Slab
from gpuflow.workers import worker_pool
from tests.faults.video_loads import load, status
from tests.flow.clips import barcode, make_clip
from tests.flow.edge_clips import mux, packets_of
from tests.flow.elementary import Kept


def open_source(data: bytes) -> PacketSource:
    return PacketSource.open(data, MediaType("mp4", "video", "mov"), limits=Limits(), deadline=Deadline(30.0))


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


def test_one_frame_is_a_clip(context: LoadContext) -> None:
    assert load(make_clip(num_frames=1), context) == 1


def test_nothing_and_noise_are_corrupt(context: LoadContext) -> None:
    for data in (b"", b"\0" * 1000, bytes(range(256)) * 8):
        for container in ("mp4", "matroska", "mpegts", "avi"):
            with pytest.raises((CorruptMedia, NoSuchStream)):
                load(data, context, container)


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


def test_a_packet_of_a_stream_that_no_table_names_is_corrupt_media_or_left_out(context: LoadContext) -> None:
    """PyAV looks for it behind the list of streams that it made before: what lies there decides between the two."""
    clip = bytearray(make_clip("mpeg4", num_frames=12, container="mpegts"))
    starts = [at for at in range(0, len(clip), 188) if clip[at + 1] & 0x5F == 0x41 and clip[at + 2] == 0]
    clip[starts[-4] + 2] = 0x80
    try:
        assert 8 <= load(bytes(clip), context, "mpegts") <= 12
    except CorruptMedia as error:
        assert "no table names" in str(error)  # noqa: PT017 - either of the two
