"""Keyframes by their own bytes: those that libavformat finds, and when a decoder that begins there is right."""

from __future__ import annotations

import pytest

from gpuflow.codecs.video.keyframes import keyframe_reader, recovery
from tests.flow.clips import make_clip
from tests.flow.edge_clips import LAGGED, packets_of

CLIPS = {
    "h264": lambda: make_clip(gop=10),
    "h264 open gop": lambda: make_clip(options={"x264-params": "open-gop=1:keyint=10:bframes=3"}),
    "vp9": lambda: make_clip("libvpx-vp9", gop=10),
    "vp9 superframes": lambda: make_clip("libvpx-vp9", 90, gop=60, options=LAGGED),
    "av1": lambda: make_clip("libsvtav1", gop=10),
}


@pytest.mark.parametrize("name", CLIPS)
def test_packets_say_themselves_which_are_keyframes(name: str) -> None:
    packets = packets_of(CLIPS[name]())
    context = packets[0].stream.codec_context
    read = keyframe_reader(context.codec.canonical_name, context.extradata or b"")
    assert read is not None
    found = [read(memoryview(packet)) for packet in packets]
    assert found == [packet.is_keyframe for packet in packets]
    assert 1 < sum(found) < len(found)


def test_vp9_of_profile_3_has_one_bit_more_before() -> None:
    read = keyframe_reader("vp9", b"")
    assert read is not None
    assert [read(memoryview(bytes([header]))) for header in (0xB0, 0xB2, 0xB4)] == [True, False, False]


@pytest.mark.parametrize("container", ["mp4", "mpegts"])
def test_a_recovery_point_that_is_right_later_is_told_from_one_that_is_right_at_once(container: str) -> None:
    options = {"x264-params": "intra-refresh=1:keyint=20"}
    packets = packets_of(make_clip(bframes=0, container=container, options=options), container)
    length = 4 if container == "mp4" else 0
    told = [recovery(memoryview(packet), length) for packet in packets]
    assert told[0] == "at once"
    assert [place for place, word in enumerate(told) if word == "later"] == [
        place for place, packet in enumerate(packets) if packet.is_keyframe and place
    ]
    assert "later" in told


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        (b"\x06\x01\xc4\x80", "at once"),
        (b"\x06\x01\x44\x80", "later"),
        (b"\x05\xff\x03" + bytes(0x102) + b"\x06\x01\xc4\x80", "at once"),
        (b"\x05\x05\0\0\x03\0\0\0\x06\x01\x44\x80", "later"),
        (b"\x05\x7f\x06\x01\xc4\x80", None),
        (b"\xff" * 600, None),
        (b"", None),
    ],
    ids=["at once", "later", "behind a long one", "behind escaped zeros", "beyond the end", "endless", "empty"],
)
def test_messages_are_walked_by_their_sizes(messages: bytes, word: str | None) -> None:
    unit = b"\x06" + messages
    slice_unit = b"\x41\x9a\x00\x00"
    payload = b"".join(len(each).to_bytes(4, "big") + each for each in (unit, slice_unit))
    assert recovery(memoryview(payload), 4) == word
