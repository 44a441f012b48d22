"""Values that come from outside: checked against their types, shown in messages, read from text."""

from __future__ import annotations

import functools
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

import msgspec

from gpuflow.errors import InvalidOptions

MAX_NUMBER = 1 << 53  # what JSON's numbers hold exactly
MAX_SHOWN = 80
_UNKNOWN = "unknown field"  # msgspec's words
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?\s*$")
_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def shown(value: object) -> str:
    """A value for a message, cut short, and never an error: what a request sends may be of any length and depth."""
    try:
        text = _SHORT.repr(value)
    except Exception:  # noqa: BLE001 - whatever the repr of a caller's object raises
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Python writes no integer of more digits than it is told to, 4,300 by default and 640 at least."""
        return "a number of more digits than are shown" if x.bit_length() > 2_000 else repr(x)


_SHORT = _Short()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxfrozenset = MAX_SHOWN
_SHORT.maxstring = _SHORT.maxother = 4 * MAX_SHOWN  # so that what is cut is the end, never the middle


def parse_bytes(size: int | str) -> int:
    """``67108864`` or ``"64MiB"`` as a number of bytes.

    Raises:
        InvalidOptions: not a size, or negative.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = _SIZE.match(size) if isinstance(size, str) else None
    if match is None:
        raise InvalidOptions(f"a size is a number of bytes or text like '64MiB'; got {shown(size)}")
    return int(float(match[1]) * _UNITS[match[2]])


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen value whose fields are checked however it was made."""

    def __post_init__(self) -> None:
        for name, kind, default in fields(type(self)):
            if getattr(self, name) is not default:  # which is what it may be: options are made for each request
                _check(self, name, kind)
        self._check_together()

    def _check_together(self) -> None:
        """Rules between fields; overridden where there are any."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> Self:
        """Make one from the JSON form.

        Raises:
            InvalidOptions: an unknown field, a wrong type, or a rule between fields broken.
        """
        try:
            return msgspec.convert(dict(values or {}), cls, strict=True)
        except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error.__cause__, InvalidOptions):
                raise error.__cause__ from None
            _check_each(cls, values)
            there_are = f"; there are {', '.join(name for name, *_ in fields(cls))}" if _UNKNOWN in str(error) else ""
            raise InvalidOptions(f"{cls.__name__}: {str(error)[:200]}{there_are}") from error


@functools.cache
def fields(kind: type[Value]) -> tuple[tuple[str, Any, Any], ...]:
    """Names, types and defaults."""
    return tuple((field.name, field.type, field.default) for field in msgspec.structs.fields(kind))


def _check_each(kind: type[Value], values: object) -> None:
    """Raise ``InvalidOptions`` for the first value that is none of its field's, with what the field takes."""
    if isinstance(values, Mapping):
        for name, expected, _ in fields(kind):
            if name in values:
                check_value(name, values[name], expected)


def _check(values: Value, name: str, kind: Any) -> None:
    value = getattr(values, name)
    checked = check_value(name, value, kind)
    if checked is not value:  # a list where a tuple is stored
        msgspec.structs.force_setattr(values, name, checked)


def check_value(name: str, value: object, kind: Any) -> Any:
    """``value`` as ``kind``, a type annotation: a list becomes the tuple that is stored.

    Raises:
        InvalidOptions: it is of another type, or a number in it is not finite or beyond what JSON holds exactly.
    """
    try:
        converted = msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
        choices = ", ".join(map(repr, _choices(kind)))
        raise InvalidOptions(
            f"{name}: {f'one of {choices}' if choices else str(error)[:200]}; got {shown(value)}"
        ) from error
    for number in converted if isinstance(converted, tuple) else (converted,):
        if isinstance(number, (int, float)) and not -MAX_NUMBER < number < MAX_NUMBER:
            raise InvalidOptions(f"{name}: a finite number within +-2^53 is needed; got {shown(number)}")
    return converted


def _choices(kind: Any) -> Iterator[object]:
    """What a ``Literal`` allows, in a union or a tuple too."""
    for part in get_args(kind):
        if get_origin(kind) is Literal:
            yield part
        else:
            yield from _choices(part)


def check_fields(values: Any) -> None:
    """``check_value`` for every field of a frozen dataclass.

    Raises:
        InvalidOptions: as ``check_value``.
    """
    owner: Any = type(values)
    for name, kind in _hints(owner):
        check_value(name, getattr(values, name), kind)


@functools.cache
def _hints(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(get_type_hints(kind).items())
