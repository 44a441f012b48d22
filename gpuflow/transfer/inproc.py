"""Publishers of this process, by name: their readers here share the block itself."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuflow.transfer.publisher import Publisher

_publishers: weakref.WeakValueDictionary[str, Publisher] = weakref.WeakValueDictionary()


def enlist(publisher: Publisher) -> None:
    """Make a publisher known to the readers of this process."""
    _publishers[publisher.peer.agent] = publisher


def delist(publisher: Publisher) -> None:
    """A publisher is being closed."""
    _publishers.pop(publisher.peer.agent, None)


def find(agent: str) -> Publisher | None:
    """The publisher of that name, if it lives in this process."""
    return _publishers.get(agent)


os.register_at_fork(after_in_child=_publishers.clear)
