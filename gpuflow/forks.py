"""Objects with threads and locks in a forked child, which has neither those threads nor anybody who gives the locks back."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Disowned(Protocol):
    """Belongs to the process that made it."""

    def disown(self) -> None:
        """In a forked child, where nothing else runs yet: make new locks, let go of what is the parent's."""


_things: weakref.WeakSet[Disowned] = weakref.WeakSet()


def disown_in_children(thing: Disowned) -> None:
    """Have ``thing.disown()`` called in every child that is forked while it lives."""
    _things.add(thing)


def _after_fork() -> None:
    for thing in _things:
        thing.disown()


os.register_at_fork(after_in_child=_after_fork)
