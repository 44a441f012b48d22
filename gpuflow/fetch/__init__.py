"""TEMPORARY STUB until the fetch slice lands."""
from __future__ import annotations
import blake3
from pathlib import Path
from gpuflow.media import Blob, Source
class Fetcher:
    def __init__(self, policy, limits): pass
    async def fetch(self, source):
        d = source.value if source.kind == "bytes" else Path(source.value).read_bytes()
        return Blob(d, blake3.blake3(d).hexdigest())
    async def aclose(self): pass
