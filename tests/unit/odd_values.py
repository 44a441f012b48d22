"""Values that no option, setting or size is, and that are hard to speak of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class _Silent:
    def __repr__(self) -> str:
        raise KeyError("no words")


def _nested(outer: Callable[[Any], Any]) -> Any:
    return functools.reduce(lambda inner, _: outer(inner), range(5_000), outer(0))


DEEP = _nested(lambda inner: [inner])
ODD: dict[str, Any] = {
    "deep": DEEP,
    "deep mappings": _nested(lambda inner: {"a": inner}),
    "a large number": 10**5_000,
    "large numbers": [10**5_000, -(10**5_000)],
    "no repr": _Silent(),
    "no repr within": {"a": [_Silent()]},
    "long": "x" * 1_000_000,
    "many": list(range(1_000_000)),
    "keys of all kinds": {1: 2, "a": 3, None: 4},
    "bytes": bytes(1_000_000),
}
