"""``data:`` URIs and bare base64 text: one strict form, whose size is known before it is decoded."""

from __future__ import annotations

import re

from gpuflow.errors import InvalidSource, TooLarge

_MAX_HEADER_CHARACTERS = 1_024
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,64}"
_HEADER = re.compile(
    rf"(?P<type>{_TOKEN}/{_TOKEN})?(?:;{_TOKEN}=(?:{_TOKEN}|\"[^\"\\]*\"))*(?P<base64>;base64)?", re.IGNORECASE
)


def decode_data_uri(uri: str, limit: int) -> tuple[bytes, str | None]:
    """Bytes and declared media type of ``data:[type/subtype][;name=value];base64,...``.

    Raises:
        InvalidSource: not that grammar, not base64 (percent-encoded data are not taken), or base64 that is not canonical.
        TooLarge: more than ``limit`` bytes.
    """
    if not isinstance(uri, str) or uri[:5].lower() != "data:":
        raise InvalidSource("a data URI begins with 'data:'")
    comma = uri.find(",", 5, 5 + _MAX_HEADER_CHARACTERS)
    header = _HEADER.fullmatch(uri, 5, comma) if comma > 0 else None
    if header is None:
        raise InvalidSource("not a data URI of the form data:[type/subtype];base64,<data>")
    if header["base64"] is None:
        raise InvalidSource("only base64 data URIs are taken: data:[type/subtype];base64,<data>")
    declared = header["type"].lower() if header["type"] else None
    return decode_base64(uri, limit, start=comma + 1), declared


def decode_base64(text: str, limit: int, *, start: int = 0) -> bytes:
    """Bytes of base64 text from ``start`` on: standard alphabet, padded, no white space, nothing after the padding.

    Lenient decoders read different bytes out of the same text, or the same out of different ones; this takes only the
    form that all agree on.

    Raises:
        InvalidSource: any other text.
        TooLarge: more than ``limit`` bytes; told from the text's length.
    """
    if not isinstance(text, str):
        raise InvalidSource(f"base64 data are text; got {type(text).__name__}")
    num_characters = len(text) - start
    if num_characters % 4:
        raise InvalidSource("base64 text whose length is not a multiple of four: cut short, or its padding is missing")
    num_bytes = num_characters // 4 * 3 - (text.count("=", max(start, len(text) - 2)))
    if num_bytes > limit:
        raise TooLarge(f"{num_bytes} bytes in base64; {limit} are allowed")
    import pybase64

    try:
        data: bytes = pybase64.b64decode(text[start:] if start else text, validate=True)
    except ValueError as error:
        raise InvalidSource("not strict base64: A-Z a-z 0-9 + / with padding, and no white space") from error
    if text.endswith("=") and pybase64.b64encode(data[len(data) // 3 * 3 :]).decode() != text[-4:]:
        raise InvalidSource("base64 whose last character has bits that mean nothing: not canonical")
    return data
