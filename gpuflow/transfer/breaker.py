"""Stops asking a peer that fails again and again, so that readers of a dead process fail at once."""

from __future__ import annotations

from gpuflow.errors import PeerUnavailable

FAILURES = 3
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


class Breaker:
    """Opens after three failures in a row, for 1 s, then 2, 4 ... 30; one try is let through after each pause."""

    def __init__(self) -> None:
        self._failures = 0
        self._opens_until = 0.0

    def check(self, now: float) -> None:
        """Let a try through.

        Raises:
            PeerUnavailable: the peer failed lately, and its pause is not over.
        """
        if now < self._opens_until:
            raise PeerUnavailable(
                f"the publishing process failed {self._failures} times in a row: asked again in {self._opens_until - now:.1f} s"
            )
        if self._failures >= FAILURES:
            self._opens_until = now + FIRST_PAUSE_SECONDS  # one try: the others wait for how it ends

    def failed(self, now: float) -> None:
        """A try failed."""
        self._failures += 1
        if self._failures >= FAILURES:
            pause = FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - FAILURES, 10)
            self._opens_until = now + min(pause, LONGEST_PAUSE_SECONDS)

    def succeeded(self) -> None:
        """A try went well: forget the failures."""
        self._failures, self._opens_until = 0, 0.0
