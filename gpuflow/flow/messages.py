"""The media of one chat request: found, counted and bounded together, before anything is fetched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

from gpuflow.config import OPTIONS_BY_MODALITY, Limits, Options, made_of
from gpuflow.errors import InvalidOptions, InvalidSource, TooLarge
from gpuflow.media import MODALITIES, Media, Modality, Source
from gpuflow.values import shown

_NOT_MEDIA = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})


def sources_of(messages: object, limits: Limits) -> list[Source]:
    """Every media part of OpenAI chat messages, in order; ``position`` counts them through all messages.

    Raises:
        InvalidSource: not a list of messages, or a part that is neither text nor media.
        TooLarge: more parts of a kind than ``Limits`` allow.
    """
    sources: list[Source] = []
    counts: Counter[Modality] = Counter()
    for part in _parts(messages):
        if isinstance(part, Mapping) and isinstance(kind := part.get("type"), str) and kind in _NOT_MEDIA:
            continue
        source = Source.of(part, position=len(sources)) if isinstance(part, Mapping) else None
        if source is None or source.modality is None:
            raise InvalidSource(f"a content part is a text or a medium; got {shown(type(part).__name__)}")
        counts[source.modality] += 1
        if counts[source.modality] > (most := limits.max_parts(source.modality)):
            raise TooLarge(
                f"more than {most} parts of {source.modality} in one request (Limits.max_{source.modality}s)"
            )
        sources.append(source)
    return sources


def options_of(media_io_kwargs: Mapping[str, Any] | None) -> dict[Modality, Options]:
    """Options by modality, from their JSON form.

    Raises:
        InvalidOptions: an unknown modality, or what is not an option of its.
    """
    if media_io_kwargs is not None and not isinstance(media_io_kwargs, Mapping):
        raise InvalidOptions(f"media_io_kwargs is a mapping by modality; got {shown(media_io_kwargs)}")
    wanted: dict[Modality, Options] = {modality: kind() for modality, kind in OPTIONS_BY_MODALITY.items()}  # type: ignore[misc]
    for name, values in (media_io_kwargs or {}).items():
        if name not in MODALITIES:
            raise InvalidOptions(f"media_io_kwargs has the keys {', '.join(MODALITIES)}; got {shown(name)}")
        if not isinstance(values, OPTIONS_BY_MODALITY[name]):
            values = made_of(values, name)
        wanted[name] = values
    return wanted


async def all_or_none(loads: Sequence[Awaitable[Media]]) -> list[Media]:
    """Every medium, in order; when one fails the others are cancelled, what was loaded is released, and it raises."""
    tasks = [asyncio.ensure_future(load) for load in loads]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Media):
                ended.release()
        raise


def _parts(messages: object) -> Iterable[object]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise InvalidSource(f"messages are a list of chat messages; got {type(messages).__name__}")
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, (list, tuple)):
            yield from content
        elif not isinstance(message, Mapping) or not (content is None or isinstance(content, str)):
            raise InvalidSource(f"a chat message has a content of text or parts; got {shown(type(message).__name__)}")
