"""Whether a package is installed, without loading it."""

from __future__ import annotations

import functools
import importlib.metadata

from gpuflow.codecs.base import Capability


@functools.cache  # reading a package's metadata takes 0.3 ms, as long as decoding a small JPEG
def installed(package: str, missing: str) -> Capability:
    """By the distribution's name; ``missing`` is the reason where it is not there. It is asked once: also where files can
    no longer be opened afterwards."""
    try:
        return Capability(True, version=importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Capability(False, missing)
