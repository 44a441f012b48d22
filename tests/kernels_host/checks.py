"""The check of each kernel: ``check(run)`` in ``check_<folder>_<name>.py``, where ``run`` takes a ``Launch``."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from gpuflow.ops.kernels import Launch

Check = Callable[[Callable[[Launch], None]], None]


def check_of(name: str) -> Check:
    """The check of ``"video/picture"``; a kernel without one fails its tests here."""
    check: Check = importlib.import_module(f"tests.kernels_host.check_{name.replace('/', '_')}").check
    return check
