"""Sources to bytes, safely."""

from gpuflow.fetch.fetcher import Fetcher

__all__ = ["Fetcher"]
