"""The sound of a clip beside its pictures: of the same bytes, on the same clock, in a block of its own."""

from __future__ import annotations

import msgspec

from gpuflow.codecs.base import MediaType
from gpuflow.config import AudioOptions, VideoOptions
from gpuflow.errors import NoSuchStream, SectionAfterEnd
from gpuflow.flow.audio import load_audio
from gpuflow.flow.audio_batches import AudioBatches
from gpuflow.flow.audio_steps import audio_steps
from gpuflow.flow.context import LoadContext
from gpuflow.flow.suspended import finished
from gpuflow.media import Blob, Features, Frames, VideoMetadata, Waveform


def add_sound(
    media: Frames | Features,
    blob: Blob,
    kind: MediaType,
    options: VideoOptions,
    context: LoadContext,
    batches: AudioBatches | None = None,
) -> None:
    """Load the sound into ``media.audio``; where that fails, ``media`` is released. A clip without sound leaves ``None``
    there, for a server answers such a clip like any other, and so does a part of the clip that has none; one that lacks a
    stream which ``options.audio`` names is refused.

    Raises:
        NoSuchStream: ``options.audio.stream`` names one that is not there.
        SectionAfterEnd: ``options.audio`` names a section, and the sound ends before it.
        GpuflowError: as ``load_audio``.
    """
    begun, wanted = len(context.stages), options.audio
    if wanted is None:
        return
    inherits = wanted.start_seconds == 0.0 and wanted.duration_seconds is None
    try:
        sound = _within(options, wanted) if inherits else wanted
        media.audio = _load(blob, kind, sound, _zero_seconds(media), context, batches)
        media.audio.stages = tuple(context.stages[begun:])
    except (NoSuchStream, SectionAfterEnd) as error:
        if (wanted.stream is not None) if isinstance(error, NoSuchStream) else not inherits:
            media.release()
            raise
    except BaseException:
        media.release()
        raise


def _within(options: VideoOptions, sound: AudioOptions) -> AudioOptions:
    """The sound of the clip's section."""
    start, end = options.start_seconds or 0.0, options.end_seconds
    return msgspec.structs.replace(sound, start_seconds=start, duration_seconds=None if end is None else end - start)


def _zero_seconds(media: Frames | Features) -> float:
    """The container's time from which the video's timestamps count."""
    metadata = media.metadata if isinstance(media, Frames) else media.metadata.source
    if not isinstance(metadata, VideoMetadata):
        raise TypeError(f"sound is of a video; got {type(metadata).__name__}")
    return metadata.origin_seconds


def _load(
    blob: Blob,
    kind: MediaType,
    options: AudioOptions,
    zero_seconds: float,
    context: LoadContext,
    batches: AudioBatches | None,
) -> Waveform | Features:
    """On this thread, which has the video already."""
    if batches is None:
        return load_audio(blob, kind, options, context, zero_seconds=zero_seconds)
    return finished(audio_steps(blob, kind, options, context, batches, zero_seconds=zero_seconds), context.deadline)
