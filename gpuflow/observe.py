"""Logging, counters and metrics: what happened, seen from outside."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping

log = logging.getLogger("gpuflow")
log.addHandler(logging.NullHandler())

Values = dict[str, float]
"""Metrics by name with labels, as ``labelled`` writes them."""


def labelled(name: str, **labels: str) -> str:
    """``name{label="value"}`` with the labels in order; names follow Prometheus (``gpuflow_fallback_total``)."""
    return name + ("{" + ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)) + "}" if labels else "")


class Counters:
    """Named counters with labels, safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()

    def add(self, name: str, value: int = 1, **labels: str) -> None:
        """Add ``value`` to ``name{labels}``; label values must come from a bounded set (codes, names of backends)."""
        key = labelled(name, **labels)
        with self._lock:
            self._values[key] += value

    def snapshot(self) -> dict[str, int]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._values)


def exposition(values: Values) -> str:
    """Prometheus' text format, version 0.0.4: counters are the names that end in ``_total``, the rest are gauges."""
    lines: list[str] = []
    families: dict[str, list[str]] = {}
    for key in values:
        families.setdefault(key.partition("{")[0], []).append(key)
    for family in sorted(families):
        lines.append(f"# TYPE {family} {'counter' if family.endswith('_total') else 'gauge'}")
        lines += [
            f"{key} {values[key]:g}" if values[key] % 1 else f"{key} {int(values[key])}"
            for key in sorted(families[family])
        ]
    return "\n".join(lines) + "\n"


def merged(parts: Iterable[Mapping[str, float]]) -> Values:
    """One set of metrics; values of the same name and labels are added."""
    whole: Values = {}
    for part in parts:
        for key, value in part.items():
            whole[key] = whole.get(key, 0) + value
    return whole
