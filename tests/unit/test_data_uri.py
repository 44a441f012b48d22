"""``data:`` URIs and base64: one strict form, limits before decoding."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuflow.errors import InvalidSource, TooLarge
from gpuflow.fetch.data_uri import decode_base64, decode_data_uri

LIMIT = 1 << 20


@pytest.mark.parametrize(
    ("uri", "data", "declared"),
    [
        ("data:image/png;base64,AAEC", b"\x00\x01\x02", "image/png"),
        ("DATA:Image/PNG;BASE64,AAEC", b"\x00\x01\x02", "image/png"),
        ("data:;base64,AA==", b"\x00", None),
        ("data:image/svg+xml;charset=utf-8;base64,AAE=", b"\x00\x01", "image/svg+xml"),
        ('data:audio/mp4;codecs="mp4a.40.2";base64,AAE=', b"\x00\x01", "audio/mp4"),
        ("data:audio/ogg;codecs=opus;base64,", b"", "audio/ogg"),
        ("data:video/mp4;base64,+/+/", b"\xfb\xff\xbf", "video/mp4"),
    ],
)
def test_a_data_uri_gives_bytes_and_a_declared_type(uri: str, data: bytes, declared: str | None) -> None:
    assert decode_data_uri(uri, LIMIT) == (data, declared)


@pytest.mark.parametrize(
    "uri",
    [
        "data:",
        "data:image/png",
        "data:image/png;base64",
        "data:image/png;base64;AAEC",
        "data:image/png,AAEC",
        "data:,hello",
        "data:image/png;base64 ,AAEC",
        "data:image/png; base64,AAEC",
        "data:image/png;base64,AA%3D%3D",
        "data:image;base64,AAEC",
        "data:image/png;base64;x=1,AAEC",
        "data:image/png;=x;base64,AAEC",
        " data:image/png;base64,AAEC",
        "date:image/png;base64,AAEC",
        "data:" + "x" * 2_000 + ";base64,AAEC",
        "data:text/plain;" + "a=b;" * 500 + "base64,AAEC",
        "data:\nimage/png;base64,AAEC",
    ],
)
def test_any_other_form_is_refused(uri: str) -> None:
    with pytest.raises(InvalidSource):
        decode_data_uri(uri, LIMIT)


BAD_BASE64 = [
    "!!!!",
    "AA==AA==",
    "AB==",
    "AAB=",
    "AA= =",
    "AA\n==",
    "AAAA\n",
    "AA AA",
    " AAA",
    "A",
    "AA",
    "AAA",
    "AA=",
    "A===",
    "====",
    "AAAA====",
    "=AAA",
    "A=AA",
    "AA=A",
    "_-8=",
    "AAé=",
    "AA==\x00\x00\x00\x00",
    "ＡＡＡＡ",
]


@pytest.mark.parametrize("text", BAD_BASE64, ids=ascii)
@pytest.mark.parametrize("before", ["", "QUJD" * 40], ids=["alone", "after good text"])
def test_base64_that_decoders_disagree_about_is_refused(text: str, before: str) -> None:
    with pytest.raises(InvalidSource, match="base64"):
        decode_base64(before + text, LIMIT)


@given(st.binary(max_size=3_000))
def test_base64_is_decoded_as_the_standard_library_does(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert decode_base64(text, LIMIT) == data
    assert decode_data_uri(f"data:image/png;base64,{text}", LIMIT) == (data, "image/png")


@given(st.binary(min_size=1, max_size=300), st.data())
def test_one_wrong_character_is_refused_unless_it_is_how_the_standard_encoder_writes_some_bytes(
    data: bytes, draw: st.DataObject
) -> None:
    text = base64.b64encode(data).decode()
    position = draw.draw(st.integers(0, len(text) - 1))
    damaged = text[:position] + draw.draw(st.characters(codec="utf-8")) + text[position + 1 :]
    try:
        expected = binascii.a2b_base64(damaged, strict_mode=True)
        canonical = base64.b64encode(expected).decode() == damaged
    except ValueError:
        canonical = False
    if canonical:
        assert decode_base64(damaged, LIMIT) == expected
    else:
        with pytest.raises(InvalidSource):
            decode_base64(damaged, LIMIT)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 1_000, 1_001, 1_002])
def test_the_limit_is_exact_and_told_before_decoding(size: int) -> None:
    text = base64.b64encode(bytes(size)).decode()
    assert len(decode_base64(text, size)) == size
    if size:
        with pytest.raises(TooLarge):
            decode_base64(text, size - 1)
        with pytest.raises(TooLarge):  # not even looked at
            decode_base64("!" * len(text.rstrip("=")) + "=" * text.count("="), size - 1)


def test_messages_hold_nothing_of_the_payload() -> None:
    with pytest.raises(InvalidSource) as caught:
        decode_data_uri("data:image/png;base64,c2VjcmV0!!!!", LIMIT)
    assert "c2VjcmV0" not in str(caught.value)
