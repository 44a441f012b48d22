"""Which packets nothing refers to: headers made by hand, against a decoder's rule written out in full, and by chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuflow.codecs.video.headers import RestartPoints
from gpuflow.codecs.video.references import Role, role_reader, unneeded

AVCC = {2: b"\1\x64\0\x1e\xfd\xe1\0", 4: b"\1\x64\0\x1e\xff\xe1\0"}
HVCC = b"\1" + bytes(20) + b"\x0f" + bytes(3)  # lengths of four bytes
HELD, FREE = Role(0, True), Role(0, False)


def avc(*headers: int, length: int = 4, extradata: bytes | None = None) -> Role:
    """The role of an H.264 packet of such NAL units; ``length`` 0: with start codes."""
    units = [bytes([header]) + b"\x88\x84\x21" for header in headers]
    packed = b"".join((len(unit).to_bytes(length, "big") if length else b"\0\0\1") + unit for unit in units)
    read = role_reader("h264", AVCC.get(length, b"") if extradata is None else extradata)
    assert read is not None
    return read(memoryview(packed))


def hevc(*units: tuple[int, int]) -> Role:
    """Of an HEVC packet of NAL units of these types and temporal layers."""
    bodies = [bytes([kind << 1, layer + 1]) + b"\x21\x42" for kind, layer in units]
    read = role_reader("hevc", HVCC)
    assert read is not None
    return read(memoryview(b"".join(len(body).to_bytes(4, "big") + body for body in bodies)))


@pytest.mark.parametrize("length", [0, 2, 4])
def test_an_h264_picture_all_of_whose_slices_have_no_reference_is_free(length: int) -> None:
    assert avc(0x01, length=length) == FREE
    assert avc(0x09, 0x06, 0x01, 0x01, length=length) == FREE
    assert avc(0x41, length=length) == avc(0x65, length=length) == HELD
    assert avc(0x01, 0x41, length=length) == HELD  # two fields, of which one is referred to


def test_what_goes_beyond_its_picture_is_held() -> None:
    assert avc(0x67, 0x68, 0x01) == HELD  # parameter sets
    assert avc(0x0E, 0x01) == avc(0x0A, 0x01) == HELD  # an extension's prefix; the end of a sequence
    assert avc() == avc(0x06) == HELD
    assert hevc((34, 0), (1, 0)) == hevc((36, 0), (0, 0)) == HELD


def test_packets_whose_lengths_do_not_add_up_are_held() -> None:
    read = role_reader("h264", AVCC[4])
    assert read is not None
    for packet in (b"", b"\0\0\0\5\x01\1\1", b"\0\0\0\0", b"\0\0\0\4\x01\1\1\1\0", b"\0\0\0\1\x01\x9e\x21\x42"):
        assert read(memoryview(packet)) == HELD, packet


def test_an_hevc_picture_has_a_layer_and_says_whether_its_own_refers_to_it() -> None:
    assert hevc((1, 0)) == Role(0, True)
    assert hevc((0, 2)) == hevc((35, 2), (39, 2), (0, 2), (0, 2)) == Role(2, False)
    assert hevc((1, 2)) == Role(2, True)
    assert hevc((21, 0)) == Role(0, True)
    assert hevc((8, 1)) == Role(1, False, True)
    assert hevc((9, 0)) == Role(0, True, True)
    assert hevc((6, 1)) == Role(1, False)  # it leads, and can be decoded


def test_a_b_vop_is_free_and_two_in_a_packet_are_not() -> None:
    read = role_reader("mpeg4", b"")
    assert read is not None
    roles = [read(memoryview(b"\0\0\1\xb6" + bytes([kind << 6]) + b"\0\0")) for kind in range(4)]
    assert roles == [HELD, HELD, FREE, HELD]
    assert read(memoryview(2 * b"\0\0\1\xb6\x80\0")) == read(memoryview(b"\0\0\1\xb6")) == HELD


def test_codecs_that_hide_their_references_have_no_reader() -> None:
    assert role_reader("vp8", b"") is role_reader("vp9", b"") is role_reader("mjpeg", b"") is None
    assert role_reader("av1", b"") is role_reader("av1", b"\x81\0\0\0") is None


def test_the_packet_at_which_decoding_begins_is_never_left_out() -> None:
    assert unneeded([FREE, FREE, HELD, FREE], {3}) == [1]
    assert unneeded([FREE, FREE], {1}) == []
    assert unneeded([FREE, HELD], ()) == [1]


def test_a_keyframe_that_is_no_intra_picture_is_none_to_begin_at() -> None:
    vops = [RestartPoints("mpeg4", b"").here(memoryview(b"\0\0\1\xb6" + bytes([kind << 6]))) for kind in range(4)]
    assert vops == [True, False, False, False]
    units = [bytes([0, 0, 0, 3, kind << 1, 1, 0x80]) for kind in (0, 1, 9, 16, 19, 21, 23, 24)]
    pictures = [RestartPoints("hevc", HVCC).here(memoryview(unit)) for unit in units]
    assert pictures == [False, False, False, True, True, True, True, False]
    for codec in ("mpeg4", "hevc"):  # what cannot be told
        assert RestartPoints(codec, HVCC).here(memoryview(b"\0\0\1\xb6"))


ROLES = st.lists(st.builds(Role, st.integers(0, 3), st.booleans(), st.just(False)), max_size=14).map(
    lambda some: [HELD, *some]
)


@given(roles=ROLES, data=st.data())
def test_what_is_left_out_is_what_no_wanted_picture_refers_to_by_however_many_others(
    roles: list[Role], data: st.DataObject
) -> None:
    wanted = set(data.draw(st.lists(st.integers(0, len(roles) - 1), min_size=1)))
    needed = set(wanted)
    for place in range(len(roles) - 1, -1, -1):  # the definition: whom may each later, needed picture refer to?
        for later in [later for later in needed if later > place]:
            same = roles[later].layer == roles[place].layer and roles[place].held
            if roles[later].layer > roles[place].layer or same:
                needed.add(place)
    assert unneeded(roles, wanted) == sorted(set(range(len(roles))) - needed)


def test_leading_pictures_of_the_first_keyframe_cannot_be_decoded_and_those_of_others_can() -> None:
    lead = Role(0, True, True)
    assert unneeded([HELD, lead, lead, HELD, HELD, lead], {3, 5}) == [1, 2]
    assert unneeded([HELD, lead, HELD], {1, 2}) == []


def test_a_keyframe_that_does_not_repeat_headers_that_changed_is_none_to_begin_at() -> None:
    def packet(*units: bytes) -> memoryview:
        return memoryview(b"".join(b"\0\0\1" + unit for unit in units))

    one, other, pps, idr = b"\x67\x42\x0a", b"\x67\x42\x0b", b"\x68\xce", b"\x65\x88\x84"
    points = RestartPoints("h264", b"\0\0\0\1" + one + b"\0\0\0\1" + pps)
    assert [points.here(packet(*units)) for units in ([idr], [one, pps, idr], [idr])] == [True] * 3
    assert [points.here(packet(*units)) for units in ([other, pps, idr], [idr], [one, idr])] == [True, False, False]
    assert points.here(packet(one, pps, idr))
    assert RestartPoints("vp9", b"").here(memoryview(b"\x82"))
