"""What is to become of one decoded picture."""

from __future__ import annotations

from dataclasses import dataclass

from gpuflow.media import TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.views import Picture
from gpuflow.presets.plan import ImagePlan


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One picture on its way to the tensors of its plan, which lie in ``lease`` as ``specs`` say."""

    picture: Picture
    plan: ImagePlan
    lease: Lease
    specs: tuple[TensorSpec, ...]
