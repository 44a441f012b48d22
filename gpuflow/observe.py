"""Logging and counters: what happened, seen from outside."""

from __future__ import annotations

import logging
import threading
from collections import Counter

log = logging.getLogger("gpuflow")
log.addHandler(logging.NullHandler())


class Counters:
    """Named counters with labels, safe from any thread; names follow Prometheus (``gpuflow_fallback_total``)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()

    def add(self, name: str, value: int = 1, **labels: str) -> None:
        """Add ``value`` to ``name{labels}``; label values must come from a bounded set (codes, names of backends)."""
        key = name + ("{" + ",".join(f'{k}="{labels[k]}"' for k in sorted(labels)) + "}" if labels else "")
        with self._lock:
            self._values[key] += value

    def snapshot(self) -> dict[str, int]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._values)
