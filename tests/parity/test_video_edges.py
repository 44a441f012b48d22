"""Awkward clips: what comes out is bit-equal with decoding all of the file by PyAV's own loop, whatever was asked for.

Two peers on the same files, every 7th frame (torchcodec 0.17 ``exact`` from bytes; OpenCV 5.0 ``set(POS_FRAMES)`` from a
path), where they do not give the right frames; "n for m" is a wrong count of frames:

    edit lists                         torchcodec ok; OpenCV 60 for 45, 27, 30 or 21
    repeated times matroska            torchcodec ok; OpenCV 62 for 60
    negative times matroska            both wrong frames
    cut at an open gop, matroska       H.264: OpenCV 80 for 60; HEVC: torchcodec 64 for 60 and wrong frames, OpenCV 80
    cut at an open gop, mpegts         H.264: torchcodec raises, OpenCV wrong frames; HEVC: both wrong frames
    mpegts: clock runs over            torchcodec wrong frames
    mpegts: two recordings             torchcodec raises; OpenCV ends at 63 of 120
    mpegts: a late first keyframe      torchcodec 53 for 30 and wrong frames; OpenCV 54
    mpegts: broken off                 both wrong frames
    raw h264, raw hevc                 torchcodec raises; OpenCV ends early
    av1 in any container               OpenCV decodes none
    frame counts that lie              OpenCV believes them
    no rate                            torchcodec raises; OpenCV ends at 35 of 60
    mpeg4 b pictures avi               torchcodec raises
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from gpuflow.codecs import av1
from gpuflow.codecs.probe import sniff
from gpuflow.codecs.video.decode import decode_frames
from gpuflow.codecs.video.source import PacketSource
from gpuflow.codecs.videos import cpu_decoder
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import CorruptMedia, NoSuchStream, UnsupportedFormat
from gpuflow.flow.context import Deadline, LoadContext
from gpuflow.flow.video import load_video
from gpuflow.isolation.pool import DecoderPool
from gpuflow.isolation.remote import Isolated
from gpuflow.media import Blob, Frames
from gpuflow.memory import Slab
from tests.flow.clips import FORMATS, barcode, decode_all, make_clip
from tests.flow.edge_clips import EDGES, moov_first, packets_of, turned, two_sizes, two_videos
from tests.flow.elementary import Kept

SEQUENTIAL = {  # whose times do not name pictures
    "edit list: two parts", "edit list: parts backwards", "edit list: a part again", "repeated times mp4",
    "repeated times matroska", "negative times matroska", "cut at an open gop: hevc matroska",
    "cut at an open gop: hevc mpegts", "mpegts: two recordings", "mpegts: a late first keyframe", "raw h264",
    "raw h264 open gop", "raw hevc", "one frame raw", "no rate", "mpeg4 b pictures avi",
}  # fmt: skip


def opened(data: bytes) -> PacketSource:
    return PacketSource.open(data, sniff(data), limits=Limits(), deadline=Deadline(30.0))


def load(data: bytes, context: LoadContext, **options: Any) -> Frames:
    return load_video(Blob(data, "hash"), sniff(data), VideoOptions(**options), context)


def sound_frames(data: bytes) -> dict[int, NDArray[np.uint8]]:
    """All frames that can be decoded, whatever is missing; none of a file that is refused."""
    try:
        source = opened(data)
        kept, wanted = Kept(source.info), range(source.info.num_frames)
        plan = source.plan(wanted, limits=Limits())
        missing = decode_frames(source.demuxed, source.info, plan, kept, decoder=cpu_decoder, deadline=Deadline(30.0))
    except (CorruptMedia, NoSuchStream, UnsupportedFormat):
        return {}
    assert sorted([*kept.frames, *missing]) == list(wanted)
    return kept.frames


def check(
    data: bytes, expected: list[NDArray[np.uint8]], context: LoadContext, *, corrupt: Collection[int] = ()
) -> None:
    """A few frames, some, and all of them."""
    random = np.random.default_rng(len(data))
    total = len(expected)
    for count in (1, 6, 15):
        indices = tuple(int(index) for index in random.integers(0, total, count))
        with load(data, context, indices=indices) as frames:
            assert frames.metadata.num_frames == total
            assert set(frames.metadata.corrupt_indices) == set(corrupt) & set(indices)
            for place, index in enumerate(indices):
                np.testing.assert_array_equal(frames.numpy()[place], expected[index], err_msg=f"frame {index}")
    with load(data, context, indices=tuple(range(total))) as frames:
        assert all(np.array_equal(*pair) for pair in zip(frames.numpy(), expected, strict=True))
        assert frames.metadata.corrupt_indices == tuple(sorted(corrupt))


@pytest.mark.parametrize("name", EDGES)
def test_an_awkward_clip_is_bit_equal_to_decoding_all(name: str, context: LoadContext) -> None:
    make, container = EDGES[name]
    data = make()
    assert sniff(data).format == FORMATS[container]
    assert opened(data).sequential == (name in SEQUENTIAL)
    corrupt = {56} if name == "mpegts: broken off within a packet" else set()
    check(data, decode_all(data, container), context, corrupt=corrupt)


def test_the_clips_are_as_awkward_as_they_say() -> None:
    """Encoders and muxers decide for themselves."""

    def packets(name: str) -> list[Any]:
        return packets_of(EDGES[name][0](), EDGES[name][1])

    assert any(bytes(packet)[-1] & 0xE0 == 0xC0 for packet in packets("vp9 superframes"))
    units = [bytes(packet) for packet in packets("av1 pictures shown again")]
    shown_again = [
        unit[start] & 0x80 for unit in units for kind, start, _ in av1.units(memoryview(unit)) if kind in (3, 6)
    ]
    assert len(shown_again) > 64
    assert any(shown_again)
    assert len({packet.pts for packet in packets("repeated times mp4")}) == 58
    assert packets("negative times matroska")[0].pts is None  # what libavformat makes of it
    assert any(packet.is_discard for packet in packets("edit list: start cut"))
    clock = [packet.pts for packet in packets("mpegts: clock runs over")]
    raw = EDGES["mpegts: clock runs over"][0]()
    with av.open(io.BytesIO(raw), format="mpegts", options={"correct_ts_overflow": "0"}) as wrapped:
        uncorrected = [packet.pts for packet in wrapped.demux(video=0) if packet.size]
    assert max(clock) - min(clock) < 90_000 * 3 < max(uncorrected) - min(uncorrected)
    for name, interlaced in (("h264 interlaced (mbaff)", True), ("h264 headers in band", False)):
        with av.open(io.BytesIO(EDGES[name][0]())) as source:
            assert next(source.decode(video=0)).interlaced_frame == interlaced
    kinds = {bytes(packet)[4] >> 1 & 63 for packet in packets("cut at an open gop: hevc matroska")}
    assert {8, 21} <= kinds | {9}  # RASL after a CRA


def test_pictures_of_the_highest_temporal_layers_are_not_decoded_for_others() -> None:
    source = opened(EDGES["hevc temporal layers"][0]())
    layers = [max(bytes(packet)[5] & 7, 1) - 1 for packet in source.demuxed.packets]
    assert set(layers) == {0, 1, 2}
    last = max(place for place, layer in enumerate(layers) if layer == 0)
    index = next(iter(source.plan([0], limits=Limits()).segments)).targets
    assert index
    lowest = [place for place, row in enumerate(source.demuxed.rows) if layers[place] == 0]
    times = sorted(row.pts or 0 for row in source.demuxed.rows)
    wanted = [times.index(source.demuxed.rows[place].pts or 0) for place in lowest]
    plan = source.plan(wanted, limits=Limits())
    fed = [position for segment in plan.segments for position in segment.positions()]
    assert {layers[position] for position in fed if position <= last} == {0}
    assert len(fed) == len(lowest) < len(layers) / 2


def test_av1_pictures_that_are_not_kept_are_not_decoded_for_others() -> None:
    data = make_clip("libsvtav1", 64, gop=64)
    source, expected = opened(data), decode_all(data)
    [segment] = source.plan([0, 62, 63], limits=Limits()).segments
    assert len(segment.skipped) >= 8
    kept = Kept(source.info)
    assert cpu_decoder.decode(source.demuxed, source.info, segment, kept, Deadline(30.0)) == {0, 62, 63}
    assert all(np.array_equal(kept.frames[index], expected[index]) for index in (0, 62, 63))


# --- orientation -----------------------------------------------------------------------------------------------------
TURNS = {  # a, b, c, d of the display matrix; FFmpeg's filters for it (fftools/ffmpeg_filter.c)
    "as it is": ((1, 0, 0, 1), ()),
    "90": ((0, -1, 1, 0), ("transpose=cclock",)),
    "180": ((-1, 0, 0, -1), ("hflip", "vflip")),
    "270": ((0, 1, -1, 0), ("transpose=clock",)),
    "mirrored": ((-1, 0, 0, 1), ("hflip",)),
    "upside down": ((1, 0, 0, -1), ("vflip",)),
    "transposed": ((0, 1, 1, 0), ("transpose=cclock_flip",)),
    "transposed the other way": ((0, -1, -1, 0), ("transpose=clock_flip",)),
}


def filtered(data: bytes, filters: tuple[str, ...]) -> list[NDArray[np.uint8]]:
    """Every frame as FFmpeg's own filters turn it."""
    with av.open(io.BytesIO(data)) as source:
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=source.streams.video[0]), *(graph.add(*f.split("=")) for f in filters)]
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        shown = []
        for frame in source.decode(video=0):
            graph.push(frame)
            pulled = graph.pull()
            assert isinstance(pulled, av.VideoFrame)
            shown.append(pulled.to_ndarray(format="rgb24"))
        return shown


@pytest.mark.parametrize("name", TURNS)
def test_pictures_are_turned_and_mirrored_as_ffmpegs_tools_do(name: str, context: LoadContext) -> None:
    matrix, filters = TURNS[name]
    data = turned(matrix)
    expected = filtered(data, ())
    for step in filters:  # on RGB, so that chroma is not resampled
        expected = [_turned(frame, step) for frame in expected]
    luma = [frame.shape for frame in filtered(data, filters)]
    assert luma == [frame.shape for frame in expected]
    close = np.abs(np.stack(filtered(data, filters)).astype(int) - np.stack(expected))
    assert close.mean() < 1.0
    with load(data, context, indices=tuple(range(12))) as frames:
        np.testing.assert_array_equal(frames.numpy(), np.stack(expected))
        assert (frames.metadata.height, frames.metadata.width) == expected[0].shape[:2]


def _turned(frame: NDArray[np.uint8], step: str) -> NDArray[np.uint8]:
    """What FFmpeg's manual says of its filters."""
    clockwise = np.rot90(frame, -1)
    return {
        "hflip": frame[:, ::-1],
        "vflip": frame[::-1],
        "transpose=clock": clockwise,
        "transpose=cclock": np.rot90(frame, 1),
        "transpose=clock_flip": clockwise[::-1],
        "transpose=cclock_flip": np.rot90(frame, 1)[::-1],
    }[step]


def test_pixels_that_are_not_square_are_left_as_they_are(context: LoadContext) -> None:
    """As FFmpeg's tools, torchcodec and OpenCV leave them."""
    wide = make_clip(options={"x264-params": "sar=2/1"}, num_frames=6)
    with av.open(io.BytesIO(wide)) as source:
        assert source.streams.video[0].codec_context.sample_aspect_ratio == 2
    check(wide, decode_all(wide), context)


# --- streams and sizes -----------------------------------------------------------------------------------------------
def test_of_several_videos_the_largest_is_taken_or_the_default(context: LoadContext) -> None:
    clips = make_clip(num_frames=8, size=(64, 48)), make_clip()  # once: encoders do not repeat themselves to the bit
    preview, film = map(decode_all, clips)
    for container in ("mp4", "matroska"):
        check(two_videos(*clips, container, default=1), film, context)
        check(two_videos(*clips, container, default=0), preview, context)
    check(two_videos(*clips), film, context)


SIZES = {
    "h264 mpegts": ("libx264", "mpegts"),
    "h264 matroska": ("libx264", "matroska"),
    "hevc mpegts": ("libx265", "mpegts"),
    "vp9": ("libvpx-vp9", "webm"),
    "vp8": ("libvpx", "webm"),
    "av1": ("libsvtav1", "obu"),
    "raw h264": ("libx264", "h264"),
    "growing": ("libx264", "mpegts"),
}


@pytest.mark.parametrize("name", SIZES)
def test_pictures_that_change_size_are_each_resized_to_the_size_asked_for(name: str, context: LoadContext) -> None:
    codec, container = SIZES[name]
    sizes = ((64, 48), (160, 96)) if name == "growing" else ((160, 96), (128, 64))
    data = two_sizes(codec, container, sizes=sizes)
    expected = decode_all(data, container)
    assert {frame.shape[:2] for frame in expected} == {(height, width) for width, height in sizes}
    assert len(expected) == 60
    indices = (0, 7, 29, 30, 31, 44, 59)
    with load(data, context, indices=indices, size=(40, 56), resample="bilinear") as frames:
        for place, index in enumerate(indices):
            planar = torch.from_numpy(expected[index].copy()).permute(2, 0, 1)
            resized = functional.resize(planar, [40, 56], InterpolationMode.BILINEAR, antialias=True)
            np.testing.assert_array_equal(frames.numpy()[place], resized.permute(1, 2, 0).numpy())


def test_without_a_size_pictures_that_change_theirs_are_refused_with_the_remedy(context: LoadContext) -> None:
    data = two_sizes("libx264", "mpegts")
    for more in ({}, {"layout": "TCHW"}, {"dtype": "float32"}):
        with pytest.raises(UnsupportedFormat, match="from 160x96 to 128x64 within the clip: give a size"):
            load(data, context, indices=(3, 50), **more)
    with load(data, context, indices=(3, 29)) as frames:
        assert [barcode(frame) for frame in frames.numpy()] == [3, 29]


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[Slab, Isolated]]:
    with Slab("16MiB", shared=True) as slab:
        with DecoderPool(slab, workers=1) as pool:
            yield slab, Isolated(pool, slab)
        assert slab.statistics().live_leases == 0


def test_a_worker_gives_pictures_that_shrink_and_refuses_those_that_grow(
    workers: tuple[Slab, Isolated], context: LoadContext
) -> None:
    data = two_sizes("libx264", "mpegts")
    with load(data, context, indices=(7, 45), size=(40, 56)) as here:
        context.slab, context.decoding = workers
        with load(data, context, indices=(7, 45), size=(40, 56)) as there:
            np.testing.assert_array_equal(there.numpy(), here.numpy())
    with pytest.raises(UnsupportedFormat, match="give a size"):
        load(data, context, indices=(7, 45))
    with pytest.raises(UnsupportedFormat, match="grows from 64x48 to 160x96"):
        load(two_sizes("libx264", "mpegts", sizes=((64, 48), (160, 96))), context, indices=(7, 45), size=(40, 56))


@pytest.mark.parametrize(
    "name",
    ["hevc temporal layers", "av1 short groups", "h264 headers that change once", "raw hevc", "edit list: two parts"],
)
def test_a_worker_gives_the_same_frames_of_awkward_clips(
    name: str, workers: tuple[Slab, Isolated], context: LoadContext
) -> None:
    make, container = EDGES[name]
    data, (context.slab, context.decoding) = make(), workers
    check(data, decode_all(data, container), context)


# --- damage ----------------------------------------------------------------------------------------------------------
WAYS: dict[str, dict[str, Any]] = {
    "mp4, moov first": {},
    "mp4, moov last": {},
    "mp4 in fragments": {"muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "matroska": {"container": "matroska"},
    "webm": {"codec": "libvpx-vp9", "container": "webm"},
    "mpegts": {"container": "mpegts"},
    "avi": {"codec": "mjpeg", "container": "avi", "pixel_format": "yuvj420p"},
    "ivf": {"codec": "libvpx", "container": "ivf"},
    "raw h264": {"container": "h264"},
}


@pytest.mark.parametrize("name", WAYS)
def test_a_clip_cut_at_every_tenth_gives_the_frames_that_it_has(name: str) -> None:
    """Each frame that comes out before the damage is that of the whole clip."""
    whole = make_clip(gop=10, **WAYS[name])
    whole = moov_first(whole) if name == "mp4, moov first" else whole
    expected = decode_all(whole, WAYS[name].get("container", "mp4"))
    counts = []
    for tenth in range(1, 11):
        cut = whole[: len(whole) * tenth // 10]
        frames = sound_frames(cut)
        counts.append(len(frames))
        wrong = [index for index, frame in frames.items() if not np.array_equal(frame, expected[index])]
        assert [index for index in wrong if index < max(frames) - 3] == []  # the last may be half there
    assert counts == sorted(counts)
    assert counts[-1] == 60
    if name != "mp4, moov last":
        assert counts[4] > 15
