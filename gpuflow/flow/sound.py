"""The sound of a clip beside its pictures: of the same bytes, in a block of its own."""

from __future__ import annotations

from gpuflow.codecs.base import MediaType
from gpuflow.config import AudioOptions
from gpuflow.errors import NoSuchStream
from gpuflow.flow.audio import load_audio
from gpuflow.flow.audio_batches import AudioBatches
from gpuflow.flow.audio_steps import audio_steps
from gpuflow.flow.context import LoadContext
from gpuflow.flow.suspended import finished
from gpuflow.media import Blob, Features, Media, Waveform


def add_sound(
    media: Media,
    blob: Blob,
    kind: MediaType,
    options: AudioOptions,
    context: LoadContext,
    batches: AudioBatches | None = None,
) -> None:
    """Load the sound into ``media.audio``; where that fails, ``media`` is released. A clip without sound leaves ``None``
    there, for a server answers such a clip like any other; one that lacks a stream which ``options`` name is refused.

    Raises:
        NoSuchStream: ``options.stream`` names one that is not there.
        GpuflowError: as ``load_audio``.
    """
    begun = len(context.stages)
    try:
        media.audio = _load(blob, kind, options, context, batches)
        media.audio.stages = tuple(context.stages[begun:])
    except NoSuchStream:
        if options.stream is not None:
            media.release()
            raise
    except BaseException:
        media.release()
        raise


def _load(
    blob: Blob, kind: MediaType, options: AudioOptions, context: LoadContext, batches: AudioBatches | None
) -> Waveform | Features:
    """On this thread, which has the video already."""
    if batches is None:
        return load_audio(blob, kind, options, context)
    return finished(audio_steps(blob, kind, options, context, batches), context.deadline)
