"""``gpuflow load``: tensors as safetensors and pictures as PNG, one pair a source."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuflow.demo import picture
from gpuflow.errors import GpuflowError
from gpuflow.flow.flow import Isolation
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Media, Modality, Source
from gpuflow.transfer.local import save


def save_all(
    sources: Sequence[str],
    *,
    out: Path,
    device: str = "auto",
    modality: Modality | None = None,
    options: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    fetch: Mapping[str, Any] | None = None,
    isolation: Isolation = "none",
) -> int:
    """Load every source and write it below ``out``; 0 only if all of them could be.

    Raises:
        GpuflowError: the flow itself cannot be made (device, limits, policy).
    """
    failed = 0
    policy = {"allowed_schemes": ("http", "https"), **(fetch or {})}  # who names a URL here is the user
    with SyncFlow(device=device, limits=limits, fetch=policy, isolation=isolation) as flow:
        wanted = (Source.of(text, modality=modality, trusted=True) for text in sources)
        for outcome in flow.stream(wanted, options=options, max_in_flight=4, ordered=True):
            name = sources[outcome.index]
            if outcome.media is None:
                failed += 1
                print(f"{name}: {_explain(outcome.error)}", file=sys.stderr)
                continue
            with outcome.media as media:
                try:
                    print(_write(media, out / f"{outcome.index:03d}-{_stem(name)}"))
                except OSError as error:
                    failed += 1
                    print(f"{name}: cannot be written: {error.strerror or error}", file=sys.stderr)
    return 1 if failed else 0


def _write(media: Media, path: Path) -> str:
    tensors = path.with_name(path.name + ".safetensors")
    drawing = path.with_name(path.name + ".png")
    save(media, tensors)
    try:
        picture.draw(media).save(drawing)
    except OSError:
        drawing.unlink(missing_ok=True)
        raise
    shapes = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in media.specs)
    reason = f" ({media.fallback})" if media.fallback else ""
    return f"{tensors}: {media.kind}: {shapes}, {media.backend} on {media.device}{reason}; picture {drawing}"


def _explain(error: Exception | None) -> str:
    return f"{error.code}: {error}" if isinstance(error, GpuflowError) else f"internal: {error}"


def _stem(name: str) -> str:
    stem = "inline" if name[:5].lower() == "data:" else name.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:80] or "media"
