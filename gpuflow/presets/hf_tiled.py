"""Hugging Face's image processors of families that cut an image into tiles, read into the fields of a ``Preset``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpuflow.presets.hf_values import Config

FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {}
