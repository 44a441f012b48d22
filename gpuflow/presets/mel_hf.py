"""Hugging Face feature extractor configurations, read into the fields of a ``MelSpec``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gpuflow.errors import InvalidOptions


def spec_fields(config: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """See ``MelSpec.from_hf``."""
    raise InvalidOptions("not read yet")
