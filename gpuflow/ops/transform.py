"""A decoded image into its place of the result, by one of the engines: resize, crop or pad, normalise, lay out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from gpuflow.device import Capability
from gpuflow.errors import BackendUnavailable
from gpuflow.ops.transform_dali import DaliTransform
from gpuflow.ops.transform_exact import ExactTransform
from gpuflow.ops.work import Work


class Transform(Protocol):
    """One engine; safe from any thread. On every device it is the same code."""

    name: str

    def obstacle(self) -> str | None:
        """Why it cannot be used here, with what mends it; ``None`` where it can."""
        ...

    def label(self, device: str) -> str:
        """What runs on that device, for the result's ``backend``."""
        ...

    def apply(self, works: Sequence[Work]) -> None:
        """Write the results of pictures to their leases, which all lie on one device.

        Pixels on the host are uploaded where the leases lie on a GPU. The work is queued there and noted on the leases.
        """
        ...


_ENGINES: dict[str, Transform] = {"exact": ExactTransform(), "dali": DaliTransform()}


def capabilities() -> dict[str, Capability]:
    """What can be used here, by engine."""
    obstacles = {name: engine.obstacle() for name, engine in _ENGINES.items()}
    return {name: Capability(obstacle is None, obstacle or "") for name, obstacle in obstacles.items()}


def transform(engine: Literal["auto", "exact", "dali"] = "auto") -> Transform:
    """The engine of that name; ``"auto"`` is ``"exact"``, which equals Hugging Face's processors.

    Raises:
        BackendUnavailable: it is not installed.
    """
    chosen = _ENGINES["exact" if engine == "auto" else engine]
    if (obstacle := chosen.obstacle()) is not None:
        raise BackendUnavailable(f"engine {engine!r} cannot be used: {obstacle}")
    return chosen
